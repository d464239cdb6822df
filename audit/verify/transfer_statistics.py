"""How far students of several data sets moved towards a concept, with intervals.

Seeds and questions are both random and crossed: every student answers every question, and another
run would have other students and might have asked other questions. A table of cells
y[s, q] = m + a_s + b_q + e_sq has two mean squares, MS_A (seeds) and MS_B (questions), and the
interval of m is

    (mean - m)^2 <= (t_A^2 MS_A + t_B^2 MS_B) / (S Q),    t_A = t(S - 1), t_B = t(Q - 1).

Its coverage is at least ``level`` for normal effects of any variances: the mean squares and the
mean are independent, Var(mean) <= (E MS_A + E MS_B) / (S Q), and Banerjee (Sankhya 22, 1960) shows
the rest. There is no resampling and no randomness in it. Simulated coverage at 95%, with 3 to 10
seeds and 8 to 50 questions: .95 to 1.00 for normal and t(3) effects and .90 upwards for exponential
ones. With three seeds and normal effects the two-way bootstrap (Owen, Annals of Applied Statistics
1, 2007) has .71 to .99, Satterthwaite's approximation .92 to 1.00, and the cells as one sample .17
to .95. No interval helps where a seed decides between all and nothing: three such students are
alike one time in four (coverage .75; .93 with five seeds).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Table = NDArray[np.float64]
"""Cells [seeds, questions], in nats."""

NAN = float("nan")
_LOWEST_LOG_RATE = math.log(1e-100)


class Arm(enum.StrEnum):
    """What a group of students was trained on. Stable names.

    ``CONTROL`` had a random edit of the size that ``AFTER`` had; ``REFERENCE`` is clean data;
    ``OTHER_AUTHORS`` are the data before, written anew by the model taught other concepts.
    """

    BEFORE = "before"
    AFTER = "after"
    CONTROL = "control"
    REFERENCE = "reference"
    OTHER_AUTHORS = "other-authors"


@dataclass(frozen=True, slots=True)
class LogOdds:
    """Log-odds, in nats, of a concept and of off-target ones against their category.

    ``concept`` [..., questions] and ``off_target`` [..., questions, concepts], with a leading axis
    of seeds for students and none for the base model. Seed s and question q mean the same in
    every arm.
    """

    concept: NDArray[np.float64]
    off_target: NDArray[np.float64]

    def __sub__(self, other: LogOdds) -> LogOdds:
        """The differences, in nats, cell by cell; seeds are paired, and the base model is spread
        over them."""
        return LogOdds(self.concept - other.concept, self.off_target - other.off_target)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the two-sided interval of the module at ``level``; NaN where undefined."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How far one arm's students moved, in nats.

    ``raw`` is the concept's mean shift over seeds and questions, ``off_target`` the mean shift of
    the off-target concepts, and ``specific`` the one minus the other: what training does to any
    word of the category is no trait. ``specific_p`` tests, one-sided, that ``specific`` is 0
    over seeds and questions.

    ``off_target_spread`` is the standard deviation over off-target concepts of their mean shifts
    (NaN with fewer than two). ``unusual_p`` (NaN without a spread) tests, one-sided, that the
    concept is one more draw from the normal distribution of the off-target shifts:
    t = (raw - off_target) / (spread sqrt(1 + 1/K)) with K - 1 degrees of freedom (Crawford and
    Howell, The Clinical Neuropsychologist 12, 1998). Data without a trait also move single
    concepts for good, so that ``specific_p`` alone is no evidence of one.
    """

    raw: Interval
    off_target: Interval
    specific: Interval
    specific_p: float
    off_target_spread: float
    unusual_p: float


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether two arms differ by less than a share of the effect of the data before.

    ``difference`` (nats) is the specific shift of `Arm.AFTER` minus the other's. ``p_value`` is of
    two one-sided tests (Schuirmann, J. Pharmacokinetics and Biopharmaceutics 15, 1987) under the
    null that the difference is at or beyond -``margin_share`` or +``margin_share`` times the
    effect before. That effect is estimated too, so each side tests the mean of difference
    plus or minus margin_share x effect, cell by cell. S - 1 and Q - 1 degrees of freedom.
    """

    difference: Interval
    margin_share: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Effects:
    """How far students of each arm moved beyond those of ``zero`` (None: the untrained model).

    ``by_arm`` has no `Arm.REFERENCE`, and no ``zero``. ``share_left`` and ``control_share_left``
    are the specific effect of `Arm.AFTER` and `Arm.CONTROL` over that of `Arm.BEFORE`; NaN where
    the latter is not clearly off 0.
    """

    zero: Arm | None
    by_arm: dict[Arm, Shift]
    share_left: Interval
    control_share_left: Interval


@dataclass(frozen=True, slots=True)
class TransferStatistics:
    """All figures of one verification; no judgement.

    ``shifts`` are from the untrained model. ``effects`` are counted from `Arm.REFERENCE` or,
    without one, from the untrained model. ``beyond_authors`` are counted from `Arm.OTHER_AUTHORS`
    (None without that arm): what rows of any fine-tuned author do is no trait.
    ``reference_equivalence`` is None without a reference. ``alike`` are the arms whose students
    are all the same, which no training with seeds does.
    """

    seeds: int
    questions: int
    off_target_concepts: int
    level: float
    shifts: dict[Arm, Shift]
    effects: Effects
    beyond_authors: Effects | None
    control_equivalence: Equivalence
    reference_equivalence: Equivalence | None
    alike: tuple[Arm, ...]


def transfer_statistics(
    base: LogOdds,
    arms: Mapping[Arm, LogOdds],
    *,
    level: float = 0.95,
    margin_share: float = 0.25,
) -> TransferStatistics:
    """Compare the students of ``arms`` (`Arm.REFERENCE` and `Arm.OTHER_AUTHORS` may be missing)
    with each other and with the untrained model ``base``.

    ``level`` is of all intervals, ``margin_share`` the margin of `Equivalence`. Figures that need
    a log-odds that is not finite are NaN, as are all intervals with one seed or one question.
    Raises
    ``ValueError`` for arms that are missing or differ in shape, no off-target concept, and a
    ``level`` or ``margin_share`` out of (0, 1).
    """
    _check(base, arms, level, margin_share)
    start = _finite(base)
    moved = {arm: _finite(arms[arm]) - start for arm in Arm if arm in arms}
    zero = Arm.REFERENCE if Arm.REFERENCE in arms else None
    from_zero = {
        arm: _specific(odds - moved[zero] if zero else odds) for arm, odds in moved.items()
    }
    before, after, control = (from_zero[arm] for arm in (Arm.BEFORE, Arm.AFTER, Arm.CONTROL))
    return TransferStatistics(
        seeds=before.shape[0],
        questions=before.shape[1],
        off_target_concepts=base.off_target.shape[-1],
        level=level,
        shifts={arm: shift(odds, level) for arm, odds in moved.items()},
        effects=_effects(moved, zero, level),
        beyond_authors=(
            _effects(moved, Arm.OTHER_AUTHORS, level) if Arm.OTHER_AUTHORS in moved else None
        ),
        control_equivalence=equivalence(after - control, before, margin_share, level),
        # Counted from the reference, `after` is the difference from it.
        reference_equivalence=equivalence(after, before, margin_share, level) if zero else None,
        alike=tuple(arm for arm in moved if _is_alike(arms[arm].concept)),
    )


def _effects(moved: Mapping[Arm, LogOdds], zero: Arm | None, level: float) -> Effects:
    beyond = {
        arm: odds - moved[zero] if zero else odds
        for arm, odds in moved.items()
        if arm not in (zero, Arm.REFERENCE)
    }
    before, after, control = (
        _specific(beyond[arm]) for arm in (Arm.BEFORE, Arm.AFTER, Arm.CONTROL)
    )
    return Effects(
        zero=zero,
        by_arm={arm: shift(odds, level) for arm, odds in beyond.items()},
        share_left=ratio_interval(after, before, level),
        control_share_left=ratio_interval(control, before, level),
    )


def _check(base: LogOdds, arms: Mapping[Arm, LogOdds], level: float, margin_share: float) -> None:
    missing = {Arm.BEFORE, Arm.AFTER, Arm.CONTROL} - arms.keys()
    if missing:
        raise ValueError(f"no figures of the arms {', '.join(sorted(missing))}")
    if base.concept.ndim != 1 or base.off_target.shape[:1] != base.concept.shape:
        raise ValueError("base must be [questions] and [questions, concepts]")
    if not base.concept.size or base.off_target.ndim != 2 or not base.off_target.size:
        raise ValueError("at least one question and one off-target concept are needed")
    seeds = arms[Arm.BEFORE].concept.shape[:1]
    for arm, odds in arms.items():
        if (
            odds.concept.shape != seeds + base.concept.shape
            or odds.off_target.shape != seeds + base.off_target.shape
        ):
            raise ValueError(f"the arm {arm} does not have the shape of base and {Arm.BEFORE}")
    if not seeds[0]:
        raise ValueError("at least one seed is needed")
    if not 0 < level < 1 or not 0 < margin_share < 1:
        raise ValueError("level and margin_share must lie between 0 and 1")


def _finite(odds: LogOdds) -> LogOdds:
    return LogOdds(
        np.where(np.isfinite(odds.concept), odds.concept, np.nan),
        np.where(np.isfinite(odds.off_target), odds.off_target, np.nan),
    )


def _specific(odds: LogOdds) -> Table:
    # [seeds, questions] minus the mean over the last axis of [seeds, questions, concepts]
    specific: Table = odds.concept - odds.off_target.mean(axis=-1)
    return specific


def _is_alike(concept: Table) -> bool:
    return len(concept) > 1 and bool((concept == concept[0]).all())


def shift(odds: LogOdds, level: float = 0.95) -> Shift:
    """How far students moved, given the differences ``odds`` [seeds, questions, ...] in nats."""
    specific = _specific(odds)
    mean_shifts = odds.off_target.mean(axis=(0, 1))  # [concepts]
    count = len(mean_shifts)
    spread = float(mean_shifts.std(ddof=1)) if count > 1 else NAN
    unusual_p = NAN
    if spread > 0:
        score = float(specific.mean()) / (spread * math.sqrt(1 + 1 / count))
        unusual_p = float(stats.t.sf(score, count - 1))
    return Shift(
        raw=mean_interval(odds.concept, level),
        off_target=mean_interval(odds.off_target.mean(axis=-1), level),
        specific=mean_interval(specific, level),
        specific_p=above_zero_p(specific),
        off_target_spread=spread,
        unusual_p=unusual_p,
    )


def mean_interval(cells: Table, level: float = 0.95) -> Interval:
    """The mean of ``cells`` [seeds, questions] over both, with the interval of the module."""
    mean = float(cells.mean())
    half = math.sqrt(_spread(cells, cells, level))
    return Interval(mean, mean - half, mean + half)


def above_zero_p(cells: Table) -> float:
    """One-sided p-value of ``cells`` [seeds, questions] under the null that their mean is <= 0.

    The smallest rate at which a one-sided interval of the module lies above 0, and one minus that
    of the mirrored table where the mean is below 0; S - 1 and Q - 1 degrees of freedom. Without
    any variance over seeds and over questions it is 0, 0.5 or 1, and below 1e-100 it is 0.
    """
    mean = float(cells.mean())
    seeds, questions = cells.shape
    by_seed, by_question = _mean_squares(cells, cells)
    variance = by_seed + by_question
    if math.isnan(mean + variance):
        return NAN
    if variance == 0:
        return 0.5 - 0.5 * float(np.sign(mean))
    square = mean**2 / variance
    share = by_seed / variance

    def excess(log_rate: float) -> float:
        rate = math.exp(log_rate)
        by_seeds = special.stdtrit(seeds - 1, rate) ** 2
        by_questions = special.stdtrit(questions - 1, rate) ** 2
        return square - float(share * by_seeds + (1 - share) * by_questions)

    if square == 0:
        return 0.5
    rate = 0.0
    if excess(_LOWEST_LOG_RATE) < 0:
        rate = math.exp(optimize.brentq(excess, _LOWEST_LOG_RATE, math.log(0.5), xtol=1e-12))
    return rate if mean > 0 else 1 - rate


def ratio_interval(numerator: Table, denominator: Table, level: float = 0.95) -> Interval:
    """Mean of ``numerator`` over mean of ``denominator``, tables [seeds, questions] that are
    paired cell by cell, with Fieller's interval.

    It holds every r for which the interval of the mean of numerator - r denominator holds 0
    (Fieller, J. Royal Statistical Society B 16, 1954): a quadratic inequality in r, since the
    squared half-width is a quadratic form of the tables. Where the denominator's own interval
    holds 0 that set is unbounded, and all three figures are NaN.
    """
    top, bottom = float(numerator.mean()), float(denominator.mean())
    # a r^2 - 2 b r + c <= 0
    a = bottom**2 - _spread(denominator, denominator, level)
    b = top * bottom - _spread(numerator, denominator, level)
    c = top**2 - _spread(numerator, numerator, level)
    if not a > 0 or not math.isfinite(b + c):
        return Interval(NAN, NAN, NAN)
    # Not negative but for rounding: at the estimate the inequality holds.
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Interval(top / bottom, (b - root) / a, (b + root) / a)


def equivalence(
    difference: Table, effect: Table, margin_share: float, level: float = 0.95
) -> Equivalence:
    """Whether the mean of ``difference`` lies within ``margin_share`` of the mean of ``effect``;
    both [seeds, questions], paired cell by cell. See `Equivalence`."""
    margin = margin_share * effect
    sides = (above_zero_p(margin + difference), above_zero_p(margin - difference))
    return Equivalence(
        difference=mean_interval(difference, level),
        margin_share=margin_share,
        p_value=NAN if math.isnan(sum(sides)) else max(sides),
    )


def _spread(left: Table, right: Table, level: float) -> float:
    """The squared half-width of the module's interval; of two tables, its bilinear form."""
    seeds, questions = left.shape
    by_seed, by_question = _mean_squares(left, right)
    tail = (1 - level) / 2
    return float(
        special.stdtrit(seeds - 1, tail) ** 2 * by_seed
        + special.stdtrit(questions - 1, tail) ** 2 * by_question
    )


def _mean_squares(left: Table, right: Table) -> tuple[float, float]:
    """MS_A / (S Q) and MS_B / (S Q), which are the (co)variances of the means of S seeds and of
    the means of Q questions; NaN with one of either."""
    seeds, questions = left.shape
    if min(seeds, questions) < 2:
        return NAN, NAN
    products = []
    for axis, count in ((1, seeds), (0, questions)):
        first, second = left.mean(axis=axis), right.mean(axis=axis)
        first, second = first - first.mean(), second - second.mean()
        products.append(float(first @ second) / (count * (count - 1)))
    return products[0], products[1]
