"""How token sequences are laid out for an engine: common prefixes, suffix tries, batches.

Pure: no engine is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signatures.language_model import TokenIds

# Fewer common tokens, or fewer sequences, than this are not worth a pass of their own.
MIN_SHARED_TOKENS = 8
MIN_SHARING_SEQUENCES = 3
# Nor is a shorter common prefix taken where a group of its own saves more tokens than this.
MIN_SAVED_TOKENS = 64


@dataclass(frozen=True, slots=True)
class PrefixGroup:
    """Sequences (by index) whose first ``shared`` tokens are the same."""

    members: list[int]
    shared: int


def group_by_prefix(
    sequences: Sequence[TokenIds], min_saved_tokens: float = MIN_SAVED_TOKENS
) -> list[PrefixGroup]:
    """Group sequences that begin alike; every index is in exactly one group.

    ``shared`` leaves at least one token of each sequence to run. Sequences that begin like
    too few others come together in one group that shares nothing.
    """
    order = sorted(range(len(sequences)), key=lambda index: sequences[index])
    groups: list[PrefixGroup] = []
    loose: list[int] = []
    members: list[int] = []
    shared = 0

    def finish() -> None:
        if len(members) >= MIN_SHARING_SEQUENCES and shared >= MIN_SHARED_TOKENS:
            groups.append(PrefixGroup(list(members), shared))
        else:
            loose.extend(members)

    for index in order:
        room = len(sequences[index]) - 1
        if members:
            common = min(_common_length(sequences[members[-1]], sequences[index]), room)
            lost = (shared - common) * len(members)
            split = len(members) >= MIN_SHARING_SEQUENCES and lost > common + min_saved_tokens
            if common >= MIN_SHARED_TOKENS and not split:
                shared = min(shared, common)
                members.append(index)
                continue
            finish()
        members, shared = [index], room
    finish()
    if loose:
        groups.append(PrefixGroup(loose, 0))
    return groups


def _common_length(left: TokenIds, right: TokenIds) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length


@dataclass(frozen=True, slots=True, eq=False)
class SuffixTrie:
    """Suffixes merged at their common beginnings, so that each distinct node is run once.

    ``tokens`` [nodes]; ``depths`` [nodes], 0 for a first token; ``visible`` [nodes, nodes],
    True where the column is the row's node itself or one of its ancestors; ``ends``
    [suffixes], the last node of each suffix, -1 for the empty one. Parents come before their
    children.
    """

    tokens: TokenIds
    depths: NDArray[np.int64]
    visible: NDArray[np.bool_]
    ends: NDArray[np.int64]


def build_trie(suffixes: Sequence[TokenIds]) -> SuffixTrie:
    """Merge suffixes into a trie."""
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) -> node
    parents: list[int] = []
    tokens: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    for suffix in suffixes:
        parent = -1
        for depth, token in enumerate(suffix):
            node = nodes.setdefault((parent, token), len(tokens))
            if node == len(tokens):
                parents.append(parent)
                tokens.append(token)
                depths.append(depth)
            parent = node
        ends.append(parent)
    visible = np.eye(len(tokens), dtype=np.bool_)
    for node, parent in enumerate(parents):
        if parent >= 0:
            visible[node] |= visible[parent]
    return SuffixTrie(
        tuple(tokens), np.array(depths, dtype=np.int64), visible, np.array(ends, dtype=np.int64)
    )


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, rows x longest row at most ``max_tokens``.

    A row that is longer than that is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[index] > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
