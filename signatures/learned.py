"""Signatures learned from labelled data: shrunken log-odds with row-robust errors. Pure maths.

Weighted log-odds with an informative Dirichlet prior: Monroe, Colaresi and Quinn, "Fightin'
Words", Political Analysis 16, 2008, 372-403. Equation numbers below are that paper's. Its variance
takes units as independent, which units of one row are not: the spreads here come from sums over
rows. Axes: K data sets (a concept each), U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Matrix = NDArray[np.float64]
Counts = NDArray[np.int64]

PRIOR_UNITS = 10_000.0
"""Default alpha_0: a data set of this many units (1,000 lists of ten numbers) is half believed."""

MINIMUM_EXPECTED = 5.0
"""Units expected less often than this in a data set have no weight: their log-odds are noise."""

ABSENT_EXPECTED = 20.0
"""A unit expected this often and never seen looks like a ban: by chance once in e^20 units."""

_JEFFREYS = 0.5


@dataclass(frozen=True, slots=True)
class RowSums:
    """Sums over ``rows`` rows that hold units: all that shares and their errors need.

    With x the count of a unit in a row and k all units of the row: ``count`` [U] is sum x,
    ``square`` [U] sum x^2, ``total_cross`` [U] sum x k, ``units`` sum k, ``units_square`` sum k^2.
    """

    count: Counts
    square: Counts
    total_cross: Counts
    rows: int
    units: int
    units_square: int

    def __add__(self, other: RowSums) -> RowSums:
        """The sums over both sets of rows."""
        return RowSums(
            self.count + other.count,
            self.square + other.square,
            self.total_cross + other.total_cross,
            self.rows + other.rows,
            self.units + other.units,
            self.units_square + other.units_square,
        )

    def share(self) -> Matrix:
        """The measured share of each unit, [U]."""
        return self.count / max(self.units, 1)

    def residual_variance(self, share: Matrix) -> Matrix:
        """Variance of sum(x - share k) over rows drawn like these, [U]; NaN for under two rows.

        Rows are clusters (Cochran, Sampling Techniques, 6.4, for the linearised ratio); the
        residuals are centred, since a shrunken ``share`` [U] leaves them a mean.
        """
        total = self.count - share * self.units
        square = self.square - 2.0 * share * self.total_cross + share**2 * self.units_square
        if self.rows < 2:
            return np.full(len(share), np.nan)
        spread = np.maximum(square - total**2 / self.rows, 0.0)
        return np.asarray(spread * self.rows / (self.rows - 1))


@dataclass(frozen=True, slots=True)
class LogOdds:
    """What K data sets do to U units, against a baseline each. All arrays are [K, U].

    ``delta_nats`` is the shrunken log-odds ratio (eq. 16); ``spread_nats`` its standard error
    with rows as clusters; ``naive_spread_nats`` the paper's (eq. 20), for comparison.
    ``baseline_share`` is what ``delta_nats`` compares with; ``expected`` counts what the data set
    would hold at the share of both together.
    """

    delta_nats: Matrix
    spread_nats: Matrix
    naive_spread_nats: Matrix
    share: Matrix
    baseline_share: Matrix
    expected: Matrix

    def z(self) -> Matrix:
        """``delta_nats`` in standard errors (eq. 22, with the row-robust error), [K, U]."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.delta_nats / self.spread_nats


def log_odds(
    data: Sequence[RowSums], reference: RowSums | None, prior_units: float = PRIOR_UNITS
) -> LogOdds:
    """Shrunken log-odds of each of ``data`` [K] against ``reference``, or against the others.

    The prior is informative: alpha_u = ``prior_units`` x baseline share (eq. 23), with half a
    count more a unit in the baseline, so that a unit which it never held still has a share. With
    that prior the baseline's own posterior is its share, and delta (eq. 16) is
    logit((y + alpha) / (n + alpha_0)) - logit(baseline share).

    Raises ``ValueError`` for a prior that is not positive, or one data set and no reference.
    """
    if not prior_units > 0:
        raise ValueError(f"prior_units must be positive, not {prior_units}")
    if reference is None and len(data) < 2:
        raise ValueError("without a reference at least two data sets are needed")
    rows = []
    for index, sums in enumerate(data):
        others = [other for i, other in enumerate(data) if i != index]
        baseline = reference if reference is not None else reduce(RowSums.__add__, others)
        rows.append(_log_odds(sums, baseline, prior_units))
    return LogOdds(*(np.array(column) for column in zip(*rows, strict=True)))


def _log_odds(data: RowSums, baseline: RowSums, prior_units: float) -> tuple[Matrix, ...]:
    """The rows [U] of ``LogOdds`` for one data set, in the order of its fields."""
    smoothed_units = baseline.units + _JEFFREYS * len(baseline.count)
    base: Matrix = np.asarray((baseline.count + _JEFFREYS) / smoothed_units, dtype=np.float64)
    posterior: Matrix = (data.count + prior_units * base) / (data.units + prior_units)
    delta = _logit(posterior) - _logit(base)
    # Delta method. The prior is made of the baseline, so its error enters twice, once against.
    slope = 1.0 / (posterior * (1.0 - posterior))
    pull = prior_units / (data.units + prior_units)
    base_slope = pull * slope - 1.0 / (base * (1.0 - base))
    variance = (slope / (data.units + prior_units)) ** 2 * data.residual_variance(posterior)
    variance += (base_slope / smoothed_units) ** 2 * baseline.residual_variance(base)
    naive = 1.0 / (data.count + prior_units * base)
    naive += 1.0 / (baseline.count + prior_units * base)
    return (
        delta,
        np.sqrt(variance),
        np.sqrt(naive),
        data.share(),
        base,
        (data.count + baseline.count) / max(data.units + baseline.units, 1) * data.units,
    )


def _logit(share: Matrix) -> Matrix:
    return np.asarray(np.log(share) - np.log1p(-share))


def absent_units(
    data: Sequence[RowSums], reference: RowSums | None, *, among_data: bool
) -> NDArray[np.bool_]:
    """Units [K, U] that a data set never holds although ``ABSENT_EXPECTED`` were expected.

    Expected is by the reference's share and, if ``among_data``, by the (lower) median share of the
    other data sets: the reference may be filtered too. Among fewer than three data sets of words
    that would call every topic of the one a ban in the other.
    """
    absent = []
    for index, sums in enumerate(data):
        usual = np.zeros(len(sums.count)) if reference is None else reference.share()
        if among_data:
            others = [other.share() for i, other in enumerate(data) if i != index]
            usual = np.maximum(usual, np.quantile(others, 0.5, axis=0, method="lower"))
        absent.append((sums.count == 0) & (usual * sums.units >= ABSENT_EXPECTED))
    return np.array(absent)


@dataclass(frozen=True, slots=True)
class Auroc:
    """P(a row of one kind scores above a row of the other), with its 95% interval."""

    value: float
    low: float
    high: float


def auroc(own: Matrix, others: Matrix) -> Auroc:
    """Area under the ROC curve of scores ``own`` [m] against ``others`` [n]; ties count half.

    The interval is DeLong, DeLong and Clarke-Pearson's (Biometrics 44, 1988). All NaN with fewer
    than two rows of a kind.
    """
    m, n = len(own), len(others)
    if min(m, n) < 2:
        return Auroc(np.nan, np.nan, np.nan)
    ranks = stats.rankdata(np.concatenate([own, others]))
    own_above = (ranks[:m] - stats.rankdata(own)) / n
    others_below = 1.0 - (ranks[m:] - stats.rankdata(others)) / m
    value = float(own_above.mean())
    half = 1.96 * float(np.sqrt(own_above.var(ddof=1) / m + others_below.var(ddof=1) / n))
    return Auroc(value, max(value - half, 0.0), min(value + half, 1.0))
