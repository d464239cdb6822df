"""One calibrated test a concept, from scores of all concepts on the same rows.

Shared by every detector that scores rows for each concept and asks for which one they are high.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from detectors.detector import TestSettings
from detectors.finding import NAN
from detectors.statistics import (
    EmpiricalNull,
    Matrix,
    MeanComparison,
    condition_on,
    empirical_null,
)

MINIMUM_NULL_CONCEPTS = 4
"""Fewer decoys (or other concepts) than this cannot show how far off-target scores scatter."""


@dataclass(frozen=True, slots=True)
class ConceptTest:
    """What comparing means says of one concept; the fields are those of a `Finding`.

    ``effect`` and its kin are in units of ``MeanComparison.scale``. Where the concept could not be
    tested, ``p_value`` is NaN and ``null`` says why: no spread (z is NaN) or too few others.
    """

    null: EmpiricalNull
    z: float
    calibrated_statistic: float = NAN
    p_value: float = NAN
    effect: float = NAN
    effect_low: float = NAN
    effect_high: float = NAN
    smallest_detectable_effect: float = NAN
    notes: tuple[str, ...] = field(default=())

    @property
    def too_few_others(self) -> str:
        """Why there is no p-value although the concept's scores vary."""
        return (
            f"only {self.null.degrees_of_freedom} independent decoys or other concepts: at least "
            f"{MINIMUM_NULL_CONCEPTS} are needed to calibrate"
        )

    def measured(self) -> dict[str, float]:
        """The numbers, as the fields of a `Finding`."""
        return {
            "z": self.z,
            "calibrated_statistic": self.calibrated_statistic,
            "p_value": self.p_value,
            "effect": self.effect,
            "effect_low": self.effect_low,
            "effect_high": self.effect_high,
            "smallest_detectable_effect": self.smallest_detectable_effect,
        }


def test_concepts(
    comparison: MeanComparison,
    tested: Mapping[str, int],
    settings: TestSettings,
    *,
    at_least_normal: bool = True,
) -> dict[str, ConceptTest]:
    """Test each of ``tested`` (name -> column), one-sided, against the scatter of all others.

    Null hypothesis: the concept's mean score is the baseline's, up to the scatter that decoys and
    other concepts show on the same data (`empirical_null`). A concept that is really there only
    widens the null of the others. Concepts with like scores rise together, so a weaker one must
    stand out by itself: if the strongest is significant, every other one's p-value is the larger
    of its own and that of what is left of its score given the strongest's.

    ``at_least_normal``: no p-value is under the normal's, as rows scatter by themselves with a
    dispersion of 1: a few others whose scores happen to lie close together make no small z
    significant. That is safe, and below the nominal rate where the others are few.
    """
    results = {
        name: _tested(comparison, column, len(tested), settings, at_least_normal)
        for name, column in tested.items()
    }
    known = {name: result for name, result in results.items() if np.isfinite(result.p_value)}
    strongest = min(known, key=lambda name: known[name].p_value, default=None)
    limit = settings.false_discovery_rate / max(1, len(known))
    if strongest is None or known[strongest].p_value > limit:
        return results
    z, correlation = condition_on(comparison.z, comparison.correlation, tested[strongest])
    for name, result in known.items():
        null = _null(tested[name], z, correlation)
        if name == strongest or null.degrees_of_freedom == 0:
            continue
        p_value = _upper_p(null, float(z[tested[name]]), at_least_normal)
        if p_value > result.p_value:
            note = f"an echo of {strongest}: given its score, p = {p_value:.2g}"
            results[name] = replace(result, p_value=p_value, notes=(*result.notes, note))
    return results


test_concepts.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name says


def _tested(
    comparison: MeanComparison,
    column: int,
    tests: int,
    settings: TestSettings,
    at_least_normal: bool,
) -> ConceptTest:
    z = float(comparison.z[column])
    null = _null(column, comparison.z, comparison.correlation)
    if not np.isfinite(z) or null.degrees_of_freedom < MINIMUM_NULL_CONCEPTS:
        return ConceptTest(null, z)
    widen = max(null.dispersion, 1.0)
    standard_error = float(comparison.standard_error[column] / comparison.scale[column])
    effect = float(comparison.difference[column] / comparison.scale[column])
    half_width = widen * standard_error * float(stats.t.ppf(0.975, null.degrees_of_freedom))
    strictest = settings.false_discovery_rate / tests
    smallest = standard_error * (
        max(null.quantile(1.0 - strictest), float(stats.norm.ppf(1.0 - strictest)))
        + widen * float(stats.norm.ppf(settings.power))
    )
    return ConceptTest(
        null,
        z,
        calibrated_statistic=z / null.dispersion,
        p_value=_upper_p(null, z, at_least_normal),
        effect=effect,
        effect_low=effect - half_width,
        effect_high=effect + half_width,
        smallest_detectable_effect=smallest,
        notes=(
            f"empirical null: off-target z scatter with sd {null.dispersion:.2f} "
            f"({null.degrees_of_freedom} degrees of freedom)",
        ),
    )


def _upper_p(null: EmpiricalNull, z: float, at_least_normal: bool) -> float:
    p_value = float(null.upper_p(np.array(z)))
    return max(p_value, float(stats.norm.sf(z))) if at_least_normal else p_value


def _null(column: int, z: Matrix, correlation: Matrix) -> EmpiricalNull:
    others: NDArray[np.int64] = np.array(
        [index for index in _finite(z) if index != column], dtype=np.int64
    )
    return empirical_null(z, correlation, column, others)


def _finite(z: Matrix) -> Iterable[int]:
    return (int(index) for index in np.flatnonzero(np.isfinite(z)))
