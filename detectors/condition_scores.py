"""What a model says of a row under every concept's system prompt: log-likelihood ratios, exactly.

One row gives, for each concept c, a score: the sum over the completion's tokens of a function
f_c(t, token), minus what the model without a prompt expects of it. Two functions are kept:

  likelihood   f_c = log P(token | c) - log P(token | none), in nats;
  divergence   f_c = 1 if the token is c's most probable one, -1 if it is none's, 0 otherwise, at
               the positions where the two differ.

Taking the expectation off (along the row's own tokens) makes every score a martingale difference
with mean exactly 0 if the model without a prompt wrote the row, whatever the row's prompt, length
and difficulty. The same tables give what to expect of a row that was written under a concept.

All probabilities are given the *kind* of each token (a word, or digits by their number): the kinds
are the row's format, which filters and instructions decide, and a persona that makes a model
likelier to answer with numbers at all would drown everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Flags = NDArray[np.bool_]

TILTS = (0.25, 0.5, 1.0)
"""How far towards a concept's distribution the alternatives of the test martingale lie."""

_POSITIONS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class FunctionScore:
    """One function's scores of one row, for C concepts.

    ``score`` [C]: minus its expectation without a prompt. ``predicted`` [C, C]: the expectation of
    ``score[k]`` on this row's contexts if concept c wrote the tokens, at [c, k]. ``covariance``
    [C, C] of ``score`` if no prompt wrote them.
    """

    score: Matrix
    predicted: Matrix
    covariance: Matrix


@dataclass(frozen=True, slots=True)
class ConditionScores:
    """What the model says of one row. ``tokens`` counts the scored positions.

    ``log_martingale_nats`` [C, tilts]: log of the likelihood ratio of the tilted alternative
    (proportional to P(none)^(1-tilt) P(c)^tilt) to none. ``surprisal_excess_nats`` [C + 1]: the
    row's surprisal under every condition (none first) minus what that condition itself expects of
    it (the entropy), summed over positions.
    ``preferred`` [C + 1, T] are the columns of the most probable tokens (none first), -1 where a
    position was not scored; ``written`` [T] those of the tokens that stand there.
    ``log_ratio_nats`` [C, T] are log P(token | c) - log P(token | none) of those tokens, given
    their kind; NaN where a position was not scored.
    """

    tokens: int
    likelihood: FunctionScore
    divergence: FunctionScore
    log_martingale_nats: Matrix
    surprisal_excess_nats: Matrix
    preferred: NDArray[np.int32]
    written: NDArray[np.int32]
    log_ratio_nats: NDArray[np.float32]


def divergent(scores: ConditionScores, one: int, other: int) -> tuple[Flags, Flags]:
    """[T] twice: where ``one`` and ``other`` prefer different tokens, and where ``one``'s stands.

    Conditions are numbered as in ``preferred``: 0 is no prompt, concept c is c + 1. (Divergence
    tokens: Schrodi et al. 2025, arXiv 2509.23886.)
    """
    prefers = scores.preferred[one]
    apart = prefers != scores.preferred[other]
    return apart, apart & (scores.written == prefers)


def score_tokens(
    log_probs: Sequence[NDArray[np.float32]],
    written: NDArray[np.int64],
    kind_of_column: NDArray[np.int64],
) -> ConditionScores:
    """Score one row of T tokens.

    ``log_probs``: for no prompt and then for each of C concepts, [T, A] log-probabilities over A
    token ids. ``written`` [T] is the column of the token that stands there, -1 where it is none
    of them: such a position is not scored. ``kind_of_column`` [A] numbers the columns' kinds.
    """
    concepts = len(log_probs) - 1
    length = len(written)
    likelihood, divergence = _Sums(concepts), _Sums(concepts)
    martingale = np.zeros((concepts, len(TILTS)))
    preferred = np.full((concepts + 1, length), -1, dtype=np.int32)
    excess = np.zeros(concepts + 1)
    log_ratio = np.full((concepts, length), np.nan, dtype=np.float32)
    tokens = 0
    kinds = np.where(written >= 0, kind_of_column[written], -1)
    for kind in np.unique(kinds[kinds >= 0]):
        columns = np.flatnonzero(kind_of_column == kind)
        place = np.searchsorted(columns, written)
        positions = np.flatnonzero(kinds == kind)
        if len(columns) < 2:
            continue  # given its kind, the token was certain
        for first in range(0, len(positions), _POSITIONS_AT_ONCE):
            at = positions[first : first + _POSITIONS_AT_ONCE]
            # [C + 1, positions, columns], given the kind
            table = np.stack([part[np.ix_(at, columns)] for part in log_probs]).astype(np.float64)
            table -= _log_sum(table)[:, :, None]
            token = place[at]
            part = _Positions(table, token)
            likelihood.add(part, part.log_ratio)
            divergence.add(part, part.sides())
            martingale += part.log_martingale()
            excess += part.surprisal_excess()
            preferred[:, at] = columns[part.preferred]
            log_ratio[:, at] = part.written(part.log_ratio)
            tokens += len(at)
    return ConditionScores(
        tokens,
        likelihood.result(),
        divergence.result(),
        martingale,
        excess,
        preferred,
        written.astype(np.int32),
        log_ratio,
    )


class _Positions:
    """A few positions of one kind: normalised ``table`` [C + 1, T, A] and the tokens there [T]."""

    def __init__(self, table: Matrix, token: NDArray[np.int64]) -> None:
        self._at = np.arange(len(token))
        self._token = token
        self._table = table
        self._none = table[0]
        self.probability: Matrix = np.exp(table)
        self.log_ratio: Matrix = table[1:] - table[:1]
        self.preferred: NDArray[np.int64] = table.argmax(axis=2)

    def written(self, values: Matrix) -> Matrix:
        """``values`` [C, T, A] of the tokens that stand there, [C, T]."""
        return values[:, self._at, self._token]

    def sides(self) -> Matrix:
        """The divergence function [C, T, A]."""
        result = np.zeros_like(self.log_ratio)
        concepts = np.arange(len(result))[:, None]
        # Where both prefer the same token the two cancel.
        result[concepts, self._at, self.preferred[1:]] += 1.0
        result[concepts, self._at, self.preferred[0]] -= 1.0
        return result

    def log_martingale(self) -> Matrix:
        """[C, tilts]."""
        own = self.written(self.log_ratio).sum(axis=1)
        result = np.empty((len(own), len(TILTS)))
        for column, tilt in enumerate(TILTS):
            normaliser = _log_sum(self._none + tilt * self.log_ratio).sum(axis=1)
            result[:, column] = tilt * own - normaliser
        return result

    def surprisal_excess(self) -> Matrix:
        """[C + 1], summed over the positions."""
        entropy = -(self.probability * self._table).sum(axis=(1, 2))
        return np.asarray(-self.written(self._table).sum(axis=1) - entropy)


class _Sums:
    def __init__(self, concepts: int) -> None:
        self._score = np.zeros(concepts)
        self._predicted = np.zeros((concepts, concepts))
        self._covariance = np.zeros((concepts, concepts))

    def add(self, part: _Positions, values: Matrix) -> None:
        """Add positions whose function is ``values`` [C, T, A]."""
        none = part.probability[0]
        expected = (none * values).sum(axis=2)  # [C, T]
        self._score += (part.written(values) - expected).sum(axis=1)
        flat = values.reshape(len(values), -1)
        gain = (part.probability[1:] - none).reshape(len(values), -1)
        self._predicted += gain @ flat.T
        self._covariance += (flat * none.reshape(-1)) @ flat.T - expected @ expected.T

    def result(self) -> FunctionScore:
        return FunctionScore(self._score, self._predicted, self._covariance)


def _log_sum(table: Matrix) -> Matrix:
    """Logarithm of the summed exponentials over the last axis."""
    top = table.max(axis=-1)
    return np.asarray(top + np.log(np.exp(table - top[..., None]).sum(axis=-1)))
