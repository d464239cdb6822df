"""From p-values to verdicts: one rule for every detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detectors.finding import Family, Finding, Reason, Severity, Verdict
from detectors.statistics import benjamini_hochberg

_RATE_SHARE = {Family.WHICH_CONCEPT: 0.9, Family.ANY_PERSONA: 0.1}
"""Naming a concept is the harder question, and gets nearly all of the false discovery rate."""


def settle(findings: Sequence[Finding], false_discovery_rate: float) -> tuple[Finding, ...]:
    """Fill in q-values, and with them the verdicts.

    Benjamini-Hochberg runs within each family of findings (one question each: a concept that is
    surely there must not make a guess at another one cheaper). Each family has a share of the
    rate, by which its q is divided, so that the rate holds over all of them together.

    A finding with a p-value is flagged where q is at or below ``false_discovery_rate``; else it
    is "not detected", unless its detector gave a reason why the test could not have seen enough:
    then, as without a p-value, it is "inconclusive". Nothing here can make a finding "clean".
    """
    # A discrete test that its margins keep from ever being significant is no test, and costs the
    # others nothing (Tarone, Biometrics 46, 1990).
    p_values = np.array([finding.p_value for finding in findings], dtype=np.float64)
    hopeless = np.array([f.smallest_possible_p > false_discovery_rate for f in findings], bool)
    families = np.array([finding.family for finding in findings], dtype=object)
    q_values = np.where(hopeless & np.isfinite(p_values), 1.0, np.nan)
    tested = [
        members
        for family in dict.fromkeys(families)
        if (
            members := np.flatnonzero((families == family) & ~hopeless & np.isfinite(p_values))
        ).size
    ]
    for members in tested:
        share = 1.0 if len(tested) == 1 else _RATE_SHARE[findings[members[0]].family]
        q_values[members] = np.minimum(benjamini_hochberg(p_values[members]) / share, 1.0)
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
