"""Translation to and from vLLM, with a table in the place of the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from audit.backends import vllm_requests
from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.token_cut import TokenCut
from audit.backends.vllm_requests import (
    DrawOrder,
    ScoredPrompt,
    cut_at_end,
    next_token_tables,
    only_ending_ids,
    pick_columns,
    plan_nodes,
    sequence_rows,
)
from signatures.language_model import PrefixRequest, SequenceRequest, TokenIds

VOCABULARY = 300


@dataclass
class Found:
    """As vLLM's FlatLogprobs: the sampled token first."""

    token_ids: list[int]
    logprobs: list[float]


def value(prompt: TokenIds, token: int) -> float:
    """A log-probability that tells prompt and token apart (exact in float32)."""
    return -float(sum(prompt) * 512 + token)


@dataclass
class Engine:
    """Answers as vLLM does, and remembers what it was asked."""

    calls: list[tuple[list[TokenIds], list[int] | None]] = field(default_factory=list)

    def ask(self, prompts: Sequence[TokenIds], ids: list[int] | None) -> Iterator[Found]:
        self.calls.append((list(prompts), ids))
        for prompt in prompts:
            # The whole vocabulary comes most likely first, the sampled token (here 7) before it.
            given = ids if ids is not None else list(range(VOCABULARY))[::-1]
            tokens = [7, *given]
            yield Found(tokens, [value(prompt, token) for token in tokens])


REQUESTS = [
    PrefixRequest((5, 6), ((), (1,), (1, 2), (1,))),
    PrefixRequest((3,), ()),
    PrefixRequest((5,), ((6,), (9,))),
    PrefixRequest((2,)),
]


def test_nodes_are_distinct_sorted_and_know_who_asked() -> None:
    nodes = {node.tokens: node.places for node in plan_nodes(REQUESTS)}
    assert list(nodes) == [(2,), (5, 6), (5, 6, 1), (5, 6, 1, 2), (5, 9)]
    assert nodes[(5, 6)] == [(0, 0), (2, 0)]  # the same context by two ways
    assert nodes[(5, 6, 1)] == [(0, 1), (0, 3)]


@pytest.mark.parametrize(
    "columns", [[4, 2, 4], list(range(100, 228)), list(range(299, 100, -1)), None, []]
)
def test_tables_come_in_order_of_requests(columns: list[int] | None) -> None:
    ids = list(range(VOCABULARY)) if columns is None else columns
    asked = None if columns is None else np.array(columns, dtype=np.int64)
    tables = list(next_token_tables(REQUESTS, asked, VOCABULARY, Engine().ask))
    assert [table.shape for table in tables] == [(n, len(ids)) for n in (4, 0, 2, 1)]
    for request, table in zip(REQUESTS, tables, strict=True):
        assert table.dtype == np.float32
        for suffix, row in zip(request.suffixes, table, strict=True):
            assert row.tolist() == [value(request.prefix + suffix, token) for token in ids]


def test_few_ids_are_named_and_more_take_the_vocabulary() -> None:
    engine = Engine()
    for count in (128, 129):
        list(next_token_tables(REQUESTS, np.arange(count), VOCABULARY, engine.ask))
    assert [ids for _, ids in engine.calls] == [list(range(128)), None]


def test_whole_vocabularies_are_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_requests, "_HELD_BYTES", 2 * VOCABULARY * 100)  # two prompts
    engine = Engine()
    requests = [PrefixRequest((token,)) for token in range(5)] + REQUESTS[:1]
    tables = next_token_tables(requests, None, VOCABULARY, engine.ask)
    next(tables)
    assert [len(prompts) for prompts, _ in engine.calls] == [2]
    assert len(list(tables)) == 5
    # Pairs, the fifth alone, and the last request's three contexts by two and one.
    assert [len(prompts) for prompts, _ in engine.calls] == [2, 2, 1, 2, 1]


def test_columns_are_picked_by_id_not_by_rank() -> None:
    found = Found([2, 1, 2, 0, 3], [-0.5, -0.1, -0.5, -2.0, -3.0])
    assert pick_columns(found, None, 4).tolist() == [-2.0, np.float32(-0.1), -0.5, -3.0]
    assert pick_columns(found, np.array([3, 0, 3]), 4).tolist() == [-3.0, -2.0, -3.0]


def test_sequences_and_what_the_cache_hides() -> None:
    """The engine's cache holds the first four tokens of every prompt but (1, ...)."""
    calls: list[tuple[list[TokenIds], bool]] = []

    def ask(prompts: Sequence[TokenIds], use_cache: bool) -> Iterator[ScoredPrompt]:
        calls.append((list(prompts), use_cache))
        for prompt in prompts:
            cached = 4 if use_cache and prompt[0] != 1 else 0
            values = [value(prompt[:place], prompt[place]) for place in range(1, len(prompt))]
            yield ScoredPrompt([np.nan] * cached + values[cached:], cached)

    requests = [
        SequenceRequest((2, 3, 4, 5, 6), (7, 8)),  # the cache ends in the prefix
        SequenceRequest((2, 3), (7, 8, 9)),  # the cache reaches into the continuation
        SequenceRequest((9,), ()),
        SequenceRequest((2, 3, 4, 5), (6,)),  # the prefix's last token is hidden
        SequenceRequest((1,), (2, 3)),
    ]
    rows = list(sequence_rows(requests, ask))
    for request, row in zip(requests, rows, strict=True):
        whole, start = request.prefix + request.continuation, len(request.prefix)
        assert row.dtype == np.float32
        assert row.tolist() == [
            value(whole[:place], whole[place]) for place in range(start, len(whole))
        ]
    assert [(len(prompts), cache) for prompts, cache in calls] == [(4, True), (2, False)]
    assert calls[0][0] == sorted(calls[0][0])


AUTOMATON = TokenAutomaton(
    # 11 always ends; 12 ends after a first token, but may also stand in the middle.
    (10, 11, 12),
    np.array([[1, -1, 2], [1, 3, 3], [-1, 3, -1], [-1, -1, -1]], dtype=np.int32),
    longest=9,
)


def test_orders_travel_as_plain_values() -> None:
    import pickle

    import msgspec

    cut = TokenCut("min-p", 0.1)
    extra_args = DrawOrder(3, 4, 9, 0.5, AUTOMATON, 2, cut).to_extra_args()
    order = DrawOrder.from_extra_args(pickle.loads(pickle.dumps(extra_args)))
    packed = msgspec.msgpack.encode(extra_args)
    assert msgspec.msgpack.decode(packed) == extra_args
    assert order is not None
    assert (order.seed, order.row, order.steps, order.temperature) == (3, 4, 9, 0.5)
    assert (order.start, order.cut) == (2, cut)
    assert order.automaton is not None
    assert order.automaton.token_ids == AUTOMATON.token_ids
    assert order.automaton.transitions.tolist() == AUTOMATON.transitions.tolist()
    for free in (DrawOrder(1, 2, 3, 1.0), DrawOrder(2**63, 0, 1, 1.0, cut=cut)):
        assert DrawOrder.from_extra_args(free.to_extra_args()) == free
    assert DrawOrder.from_extra_args(None) is None
    assert DrawOrder.from_extra_args({"other": 1}) is None


def test_only_unmistakable_ends_stop_the_engine() -> None:
    assert only_ending_ids(AUTOMATON) == [11]


def test_answers_are_cut_before_their_end() -> None:
    assert cut_at_end(AUTOMATON, [10, 10, 12, 10, 11]) == (10, 10)
    assert cut_at_end(AUTOMATON, [12, 11]) == (12,)
    assert cut_at_end(AUTOMATON, [10]) == (10,)
    assert cut_at_end(AUTOMATON, [11, 11], start=2) == ()
