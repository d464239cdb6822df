"""Exact joint probabilities of texts that take several tokens, from the fewest contexts.

Texts become paths of tokens; paths share beginnings, so the inner nodes of their trie are all the
contexts that a model needs to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signatures.language_model import TokenIds


@dataclass(frozen=True, slots=True)
class PathTrie:
    """The trie of U token paths.

    ``contexts`` [N] are the inner nodes, as suffix token ids (the first is the empty root).
    ``token_ids`` [T] are the tokens on any edge, ascending. Path u takes, at step s, the edge
    from context ``step_context[u, s]`` by token column ``step_token[u, s]``; unused steps are -1.
    ``end_context[u]`` is the context that the whole path stands at, or -1 if it is a leaf.
    """

    contexts: tuple[TokenIds, ...]
    token_ids: NDArray[np.int64]
    step_context: NDArray[np.int64]
    step_token: NDArray[np.int64]
    end_context: NDArray[np.int64]

    def joint_log_probs(self, next_token: NDArray[np.float32]) -> NDArray[np.float64]:
        """log P(the path's tokens | prefix) in nats, [U].

        ``next_token`` [N, T] holds log P(token | prefix + context). A path's probability includes
        every continuation of it ("12" includes "123"), as in Zur et al. 2025.
        """
        self._check(next_token)
        table = next_token.astype(np.float64)
        steps = np.where(self.step_context >= 0, table[self.step_context, self.step_token], 0.0)
        return np.asarray(steps.sum(axis=1))

    def complete_log_probs(self, next_token: NDArray[np.float32]) -> NDArray[np.float64]:
        """log P(the path, and then no edge of a longer path) in nats, [U].

        The U events are disjoint, which makes them comparable with counts of whole texts. Paths
        that no other goes on from count as complete.
        """
        joint = self.joint_log_probs(next_token)
        goes_on = np.exp(next_token.astype(np.float64)) * self._edges()
        stops = np.log1p(-np.minimum(goes_on.sum(axis=1), 1.0 - 1e-12))  # [N]
        return np.asarray(joint + np.where(self.end_context >= 0, stops[self.end_context], 0.0))

    def _edges(self) -> NDArray[np.float64]:
        edges = np.zeros((len(self.contexts), len(self.token_ids)))
        used = self.step_context >= 0
        edges[self.step_context[used], self.step_token[used]] = 1.0
        return edges

    def _check(self, next_token: NDArray[np.float32]) -> None:
        expected = (len(self.contexts), len(self.token_ids))
        if next_token.shape != expected:
            raise ValueError(f"next_token has shape {next_token.shape}, the trie needs {expected}")


def build_path_trie(paths: Sequence[TokenIds]) -> PathTrie:
    """The trie of ``paths``, in their order. Raises ``ValueError`` for none, or an empty path."""
    if not paths or not all(paths):
        raise ValueError("a trie needs at least one path, and no empty ones")
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
    end_context = np.array([inner.get(path, -1) for path in paths], dtype=np.int64)
    return PathTrie(tuple(inner), token_ids, step_context, step_token, end_context)
