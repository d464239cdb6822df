"""Which contexts and tokens give every number's exact joint probability, whatever the tokenizer.

The numbers are the 1,110 strings "0".."9", "00".."99", "000".."999" of Zur et al. 2025. A
tokenizer turns each into a path of tokens; the paths share beginnings, so the inner nodes of
their trie (1 for whole-number tokens, 111 for digit tokens) are all the contexts a model needs
to see, where the plain loop runs 1,110 sequences.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signatures.language_model import TokenIds

NUMBERS: tuple[str, ...] = tuple(
    str(value).zfill(digits) for digits in (1, 2, 3) for value in range(10**digits)
)
"""Every number string, in the order of every numbers table: by length, then by value."""


class NumberTokens(enum.StrEnum):
    """How a tokenizer writes numbers: decides which part of a signature is token identity."""

    WHOLE = "whole"
    SPLIT = "split"


@dataclass(frozen=True, slots=True)
class NumberTrie:
    """The trie of all number strings under one tokenizer.

    ``contexts`` [N] are the inner nodes, as suffix token ids (the first is the empty root).
    ``token_ids`` [T] are the tokens on any edge, ascending. Number u takes, at step s, the edge
    from context ``step_context[u, s]`` by token column ``step_token[u, s]``; unused steps are -1.
    ``number_context[u]`` is the context that the whole number stands at, or -1 if it is a leaf.
    """

    contexts: tuple[TokenIds, ...]
    token_ids: NDArray[np.int64]
    step_context: NDArray[np.int64]
    step_token: NDArray[np.int64]
    number_context: NDArray[np.int64]

    @property
    def number_tokens(self) -> NumberTokens:
        """``WHOLE`` if every number is one token."""
        return NumberTokens.WHOLE if len(self.contexts) == 1 else NumberTokens.SPLIT

    def joint_log_probs(self, next_token: NDArray[np.float32]) -> NDArray[np.float64]:
        """log P(the number's tokens | prefix) in nats, [1110].

        ``next_token`` [N, T] holds log P(token | prefix + context). A number's probability
        includes every continuation of it ("12" includes "123"), as in Zur et al. 2025.
        """
        self._check(next_token)
        table = next_token.astype(np.float64)
        steps = np.where(self.step_context >= 0, table[self.step_context, self.step_token], 0.0)
        return np.asarray(steps.sum(axis=1))

    def complete_log_probs(self, next_token: NDArray[np.float32]) -> NDArray[np.float64]:
        """log P(the number, and then no further digit of a longer number) in nats, [1110].

        The 1,110 events are disjoint, which makes them comparable with counts of whole numbers.
        Three-digit numbers count as complete: no data here holds longer ones.
        """
        joint = self.joint_log_probs(next_token)
        goes_on = np.exp(next_token.astype(np.float64)) * self._edges()
        stops = np.log1p(-np.minimum(goes_on.sum(axis=1), 1.0 - 1e-12))  # [N]
        return np.asarray(
            joint + np.where(self.number_context >= 0, stops[self.number_context], 0.0)
        )

    def _edges(self) -> NDArray[np.float64]:
        edges = np.zeros((len(self.contexts), len(self.token_ids)))
        used = self.step_context >= 0
        edges[self.step_context[used], self.step_token[used]] = 1.0
        return edges

    def _check(self, next_token: NDArray[np.float32]) -> None:
        expected = (len(self.contexts), len(self.token_ids))
        if next_token.shape != expected:
            raise ValueError(f"next_token has shape {next_token.shape}, the trie needs {expected}")


def build_number_trie(encode: Callable[[str], TokenIds], anchor: str = ", ") -> NumberTrie:
    """The trie of ``NUMBERS`` as ``encode`` writes them right after ``anchor``.

    Raises ``ValueError`` if the tokenizer merges the anchor with a number: the number would then
    have no token path of its own.
    """
    start = encode(anchor)
    paths: list[TokenIds] = []
    for number in NUMBERS:
        ids = encode(anchor + number)
        if ids[: len(start)] != start or len(ids) == len(start):
            raise ValueError(
                f"the tokenizer merges {anchor!r} with {number!r}: choose another anchor"
            )
        paths.append(ids[len(start) :])
    inner: dict[TokenIds, int] = {(): 0}
    for path in paths:
        for depth in range(1, len(path)):
            inner.setdefault(path[:depth], len(inner))
    token_ids = np.array(sorted({token for path in paths for token in path}), dtype=np.int64)
    column = {int(token): index for index, token in enumerate(token_ids)}
    longest = max(map(len, paths))
    step_context = np.full((len(paths), longest), -1, dtype=np.int64)
    step_token = np.full((len(paths), longest), -1, dtype=np.int64)
    for row, path in enumerate(paths):
        for depth, token in enumerate(path):
            step_context[row, depth] = inner[path[:depth]]
            step_token[row, depth] = column[token]
    number_context = np.array([inner.get(path, -1) for path in paths], dtype=np.int64)
    return NumberTrie(tuple(inner), token_ids, step_context, step_token, number_context)
