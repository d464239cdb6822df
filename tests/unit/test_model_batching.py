from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audit.backends.batching import batches_by_length, build_trie, group_by_prefix

TOKENS = st.lists(st.integers(0, 3), max_size=6).map(tuple)


def test_trie_by_hand() -> None:
    # 1 -> 2 -> 3 and 1 -> 4 and 5: five nodes, in order of first use.
    trie = build_trie([(1, 2), (), (1, 2, 3), (1, 4), (5,), (1, 2)])
    assert trie.tokens == (1, 2, 3, 4, 5)
    assert trie.depths.tolist() == [0, 1, 2, 1, 0]
    assert trie.ends.tolist() == [1, -1, 2, 3, 4, 1]
    assert trie.visible.astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]


@given(st.lists(TOKENS, max_size=8))
def test_what_a_suffix_end_sees_is_the_suffix(suffixes: list[tuple[int, ...]]) -> None:
    trie = build_trie(suffixes)
    for suffix, end in zip(suffixes, trie.ends, strict=True):
        seen = np.flatnonzero(trie.visible[end]) if end >= 0 else np.array([], dtype=np.int64)
        assert tuple(trie.tokens[node] for node in seen) == suffix
        assert trie.depths[seen].tolist() == list(range(len(suffix)))


def test_personas_become_groups_and_strangers_share_nothing() -> None:
    owl, cat = tuple(range(100, 112)), tuple(range(200, 212))
    sequences = [(*owl, 1), (*cat, 1), (*owl, 2, 3), (*cat, 9), (7,), (*owl, 4), (*cat, 5), (7,)]
    groups = {tuple(sorted(g.members)): g.shared for g in group_by_prefix(sequences)}
    assert groups == {(0, 2, 5): 12, (1, 3, 6): 12, (4, 7): 0}


def test_equal_sequences_keep_a_token_to_run() -> None:
    (group,) = group_by_prefix([tuple(range(20))] * 4)
    assert group.shared == 19


def test_repeated_prompts_stay_together_where_splitting_is_dear() -> None:
    # Two long texts, five times each: apart they save 2 x 5 x 100 tokens.
    sequences = [tuple(range(12)) + (side,) * 100 for side in (50, 60) for _ in range(5)]
    assert sorted(group.shared for group in group_by_prefix(sequences)) == [111, 111]
    (group,) = group_by_prefix(sequences, min_saved_tokens=math.inf)
    assert (len(group.members), group.shared) == (10, 12)


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple), max_size=12))
def test_groups_partition_and_share(sequences: list[tuple[int, ...]]) -> None:
    groups = group_by_prefix(sequences)
    assert sorted(i for group in groups for i in group.members) == list(range(len(sequences)))
    for group in groups:
        assert len({sequences[i][: group.shared] for i in group.members}) == 1
        assert group.shared == 0 or all(len(sequences[i]) > group.shared for i in group.members)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
def test_batches_keep_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
