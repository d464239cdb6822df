"""From scored rows to one calibrated test a concept: what SA003 and SA004 have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.condition_scores import ConditionScores, FunctionScore
from detectors.finding import Reason
from detectors.model_rows import ScoredRow
from detectors.row_sample import RowSample
from detectors.statistics import Matrix, MeanComparison, compare_row_scores

_RIDGE = 0.1
"""Of the variances, added to them: directions in which concepts hardly differ must not decide."""

_ROW_LIMIT = 6.0
"""Row scores are clipped to this many standard deviations: no single row may decide."""

MISFIT_NATS = 0.2
"""Surprisal excess a token from which on the model does not account for the rows. Rows that the
embedded model wrote under a persona had at most .08; see docs/evidence.md for other writers."""

Function = Callable[[ConditionScores], FunctionScore]


@dataclass(frozen=True, slots=True)
class ArmScores:
    """The scores of one arm's rows for C concepts, as `detectors.condition_scores` has them.

    ``score`` [rows, C]; ``predicted`` [C, C] and ``covariance`` [C, C] are means over the rows.
    ``clusters`` [rows] numbers the prompts: answers to one prompt depend on each other.
    """

    score: Matrix
    predicted: Matrix
    covariance: Matrix
    clusters: NDArray[np.int64]


def arm_scores(rows: Sequence[ScoredRow], function: Function) -> ArmScores:
    """The arm of ``rows`` (at least one) under one score function."""
    parts = [function(row.scores) for row in rows]
    return ArmScores(
        np.array([part.score for part in parts]),
        np.mean([part.predicted for part in parts], axis=0),
        np.mean([part.covariance for part in parts], axis=0),
        clusters_of([row.row.prompt for row in rows]),
    )


def clusters_of(prompts: Sequence[str]) -> NDArray[np.int64]:
    """A number for every distinct prompt; rows without a prompt are each their own."""
    numbers: dict[object, int] = {}
    return np.array(
        [numbers.setdefault(prompt or index, len(numbers)) for index, prompt in enumerate(prompts)],
        dtype=np.int64,
    )


@dataclass(frozen=True, slots=True)
class Directions:
    """How scores [rows, C] become shares: ``which`` [C, C] (columns) and ``persona`` [C].

    Column c of ``which`` gives 1 on average for rows that concept c wrote and 0 for rows of an
    average persona; NaN where the model tells c from the average by nothing. ``persona`` gives 1
    for rows of an average persona. Both give 0 for rows that no persona wrote.
    """

    which: Matrix
    persona: Matrix


def directions(predicted: Matrix, covariance: Matrix) -> Directions:
    """The least noisy directions for ``predicted`` [C, C] means under ``covariance`` [C, C].

    Generalised least squares: with A the inverse covariance, m_c the mean that concept c is
    predicted to give and h their average, w_c is proportional to A (m_c - h <h,A m_c>/<h,A h>).
    """
    inverse = np.linalg.pinv(covariance + _RIDGE * np.diag(np.diag(covariance)), hermitian=True)
    hub = predicted.mean(axis=0)
    along = inverse @ hub
    strength = float(hub @ along)
    if not strength > 0:
        nothing = np.full(predicted.shape, np.nan)
        return Directions(nothing, nothing[0])
    which = np.full(predicted.shape, np.nan)
    for concept, mean in enumerate(predicted):
        weights = inverse @ mean - along * float(along @ mean) / strength
        gain = float(weights @ mean)
        if gain > 1e-9 * strength:
            which[:, concept] = weights / gain
    return Directions(which, along / strength)


def compare_arms(data: ArmScores, reference: ArmScores | None, weights: Matrix) -> MeanComparison:
    """The means of ``score @ weights`` [rows, K] of both arms, or with 0 without a reference.

    Null hypothesis: both arms have equal means; without a reference, the model without a prompt
    wrote the rows. Effects are in the units that ``weights`` [C, K] give.
    """
    return compare_row_scores(
        clipped(data.score @ weights),
        data.clusters,
        None if reference is None else clipped(reference.score @ weights),
        None if reference is None else reference.clusters,
    )


def clipped(values: Matrix) -> Matrix:
    """``values`` [rows, K] within a few standard deviations around 0."""
    with np.errstate(invalid="ignore"):
        limit = _ROW_LIMIT * np.sqrt((values**2).mean(axis=0)) if len(values) else 0.0
        return np.clip(values, -limit, limit)


def refuse_samples(
    data: RowSample, reference: RowSample | None, minimum: int
) -> tuple[Reason, str] | None:
    """Why samples of fewer than ``minimum`` rows cannot be tested, or None."""
    return _refuse(len(data.rows), None if reference is None else len(reference.rows), minimum)


def refuse_read_rows(
    data: Sequence[ScoredRow], reference: Sequence[ScoredRow] | None, minimum: int
) -> tuple[Reason, str] | None:
    """The same of what the model could read of them: rows may exceed its context."""
    refusal = _refuse(len(data), None if reference is None else len(reference), minimum)
    return refusal and (refusal[0], f"{refusal[1]} that fit into the model's context")


def _refuse(data: int, reference: int | None, minimum: int) -> tuple[Reason, str] | None:
    if data < minimum:
        return Reason.TOO_FEW_ROWS, f"{data} rows: at least {minimum} are needed"
    if reference is not None and reference < minimum:
        return Reason.NO_REFERENCE, (
            f"the reference has {reference} rows: at least {minimum} are needed"
        )
    return None


def misfit_nats(rows: Sequence[ScoredRow]) -> float:
    """How much more a token surprises the model than it should, in nats, at best.

    Of every condition (no prompt, and each concept's) the mean surprisal of a token minus what that
    condition expects of its own rows; the one that is nearest to 0 counts. About 0 for what the
    model wrote at temperature 1 without a prompt or under a concept's; far from 0 for other
    writers. NaN without tokens.
    """
    tokens = sum(row.scores.tokens for row in rows)
    if not tokens:
        return float("nan")
    excess = np.sum([row.scores.surprisal_excess_nats for row in rows], axis=0) / tokens
    return float(excess[np.abs(excess).argmin()])
