"""From p-values to verdicts: one rule for every detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detectors.finding import Finding, Reason, Severity, Verdict
from detectors.statistics import benjamini_hochberg


def settle(findings: Sequence[Finding], false_discovery_rate: float) -> tuple[Finding, ...]:
    """Fill in q-values over all ``findings`` together, and with them the verdicts.

    A finding with a p-value is flagged where q is at or below ``false_discovery_rate``; else it
    is "not detected", unless its detector gave a reason why the test could not have seen enough:
    then, as without a p-value, it is "inconclusive". Nothing here can make a finding "clean".
    """
    # A discrete test that its margins keep from ever being significant is no test, and costs the
    # others nothing (Tarone, Biometrics 46, 1990).
    p_values = np.array([finding.p_value for finding in findings], dtype=np.float64)
    hopeless = np.array([f.smallest_possible_p > false_discovery_rate for f in findings], bool)
    q_values = benjamini_hochberg(np.where(hopeless, np.nan, p_values))
    q_values = np.where(hopeless & np.isfinite(p_values), 1.0, q_values)
    return tuple(
        _settled(finding, float(q), false_discovery_rate)
        for finding, q in zip(findings, q_values, strict=True)
    )


def _settled(finding: Finding, q_value: float, false_discovery_rate: float) -> Finding:
    if q_value <= false_discovery_rate:  # False for NaN
        return replace(
            finding, q_value=q_value, verdict=Verdict.FLAGGED, severity=Severity.ERROR, reason=None
        )
    reason = finding.reason
    if np.isnan(q_value) and reason is None:
        reason = Reason.NO_REFERENCE
    return replace(
        finding,
        q_value=q_value,
        verdict=Verdict.NOT_DETECTED if reason is None else Verdict.INCONCLUSIVE,
        severity=Severity.NOTE,
        reason=reason,
    )
