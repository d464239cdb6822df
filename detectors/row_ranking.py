"""Rows and tokens by how much they read as a persona's: what to drop, mask or replace first.

Not a test: a ranking has no null hypothesis, and condemns as many rows of clean data as of any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.condition_scores import ConditionScores, FunctionScore
from detectors.model_evidence import arm_scores, directions
from detectors.model_rows import ScoredRow
from detectors.statistics import Matrix


@dataclass(frozen=True, slots=True)
class RowRanks:
    """Per row [rows]; NaN where nothing of a row could be scored, 0 where a persona would have
    changed nothing in it (no divergence token, say): it speaks neither for one nor against.

    ``score``: how many standard deviations (of rows without a persona, on the row's own contexts)
    the row stands above what the model without a prompt writes. ``expected``: what that would be on
    average if the persona had written the row; the standard deviation is then about 1 as well.
    """

    score: Matrix
    expected: Matrix


def rank_rows(
    rows: Sequence[ScoredRow],
    function: Callable[[ConditionScores], FunctionScore],
    concepts: Sequence[int],
) -> RowRanks:
    """Rank rows that were scored under C conditions, by those of number ``concepts``.

    With one concept, the row's log-likelihood ratio (or whatever ``function`` gives) itself: the
    best ranking that there is for it (Neyman-Pearson). With several, each row by the one that it
    reads most like. With none, by "some persona", the least noisy direction towards the average of
    all C (see `detectors.model_evidence.directions`).
    """
    if not rows:
        return RowRanks(np.zeros(0), np.zeros(0))
    own = arm_scores(rows, function)
    total = own.score.shape[1]
    if concepts:
        columns = np.eye(total)[:, list(concepts)]  # [C, weights]
        written_by = np.eye(total)[list(concepts)]  # [weights, C]
    else:
        columns = directions(own.predicted, own.covariance).persona[:, None]
        written_by = np.full((1, total), 1 / total)
    parts = [function(row.scores) for row in rows]
    # [rows, weights]
    variance = np.array([_quadratic(columns, part.covariance) for part in parts])
    predicted = np.array(
        [((written_by @ part.predicted) * columns.T).sum(axis=1) for part in parts]
    )
    is_read = np.array([row.scores.tokens > 0 for row in rows])[:, None]
    silent = np.where(is_read, 0.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.where(variance > 0, own.score @ columns / np.sqrt(variance), silent)
        expected = np.where(variance > 0, predicted / np.sqrt(variance), silent)
    known = np.isfinite(scores)
    best = np.where(known, scores, -np.inf).argmax(axis=1)
    at = np.arange(len(rows))
    return RowRanks(scores[at, best], expected[at, best])


def _quadratic(columns: Matrix, covariance: Matrix) -> Matrix:
    """The variance of each weighted sum; ``columns`` [C, weights]."""
    return np.asarray(((covariance @ columns) * columns).sum(axis=0))


def rank_tokens(scores: ConditionScores, by: str, concepts: Sequence[int]) -> NDArray[np.float64]:
    """[T]: how much each token of a row is a persona's; NaN where it was not scored.

    ``by`` "likelihood": the log-likelihood ratio in nats; "divergence": 1 where the persona
    prefers another token than the model without a prompt does, to which the size of the
    log-likelihood ratio adds less than 1 (divergence tokens: Schrodi et al. 2025, arXiv
    2509.23886). The largest over ``concepts``; over none, the mean over all that were scored.
    """
    ratio = scores.log_ratio_nats.astype(np.float64)
    if by == "divergence":
        apart = scores.preferred[1:] != scores.preferred[:1]
        size = np.abs(ratio)
        ratio = np.where(np.isfinite(ratio), apart + size / (1.0 + size), np.nan)
    elif by != "likelihood":
        raise ValueError(f"tokens are ranked by likelihood or divergence, not {by!r}")
    return np.asarray(ratio[list(concepts)].max(axis=0) if concepts else ratio.mean(axis=0))
