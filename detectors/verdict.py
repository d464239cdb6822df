"""From p-values to verdicts: one rule for every detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detectors.finding import Family, Finding, Reason, Severity, Verdict
from detectors.statistics import Matrix, benjamini_hochberg

_RATE_SHARE = {Family.WHICH_CONCEPT: 0.9, Family.ANY_PERSONA: 0.1}
"""Naming a concept is the harder question, and gets nearly all of the false discovery rate."""


def family_rate(family: Family, false_discovery_rate: float) -> float:
    """The part of the rate that the findings of ``family`` have where there are others too."""
    return _RATE_SHARE[family] * false_discovery_rate


def settle(findings: Sequence[Finding], false_discovery_rate: float) -> tuple[Finding, ...]:
    """Fill in q-values, and with them the verdicts, in the order given.

    The concept is what is discovered, so the rate is held over concepts, not over findings:

    1. Within a concept, the k detectors that tested it saw the same rows: their p-values depend
       on each other in unknown ways. They are adjusted by Holm's rule (Scand. J. Statist. 6,
       1979), which holds under any dependence. The least of them, min(1, k * min p), is
       Bonferroni's: the p-value of the concept (see `detectors.compose`).
    2. Over concepts, Benjamini-Hochberg runs within each family (one question each: a concept
       that is surely there must not make a guess at another one cheaper). Each family has a share
       of the rate, by which its q is divided, so that the rate holds over all of them together.
    3. Where R of C concepts are found at a rate, a finding counts if its adjusted p-value is at
       most R / C of it (Benjamini and Bogomolov, J. R. Statist. Soc. B 76, 2014). Its q-value is
       the least rate at which that is so. The strongest finding's is thus that of its concept:
       a concept is found exactly where one of its findings is.

    With one detector this is plain Benjamini-Hochberg. A finding is flagged where q is at or
    below ``false_discovery_rate``; else it is "not detected", unless its detector gave a reason
    why the test could not have seen enough: then, as without a p-value, it is "inconclusive".
    Nothing here can make a finding "clean".
    """
    q_values = np.array(
        [1.0 if np.isfinite(finding.p_value) else np.nan for finding in findings], dtype=np.float64
    )
    families: dict[Family, dict[str, list[int]]] = {}
    for index, finding in enumerate(findings):
        if could_be_significant(finding, false_discovery_rate):
            concepts = families.setdefault(finding.family, {})
            concepts.setdefault(finding.concept, []).append(index)
    p_values = np.array([finding.p_value for finding in findings], dtype=np.float64)
    for family, concepts in families.items():
        share = 1.0 if len(families) == 1 else _RATE_SHARE[family]
        members, q_of_members = _family_q_values(p_values, concepts)
        q_values[members] = np.minimum(q_of_members / share, 1.0)
    return tuple(
        _settled(finding, float(q), false_discovery_rate)
        for finding, q in zip(findings, q_values, strict=True)
    )


def could_be_significant(finding: Finding, false_discovery_rate: float) -> bool:
    """Whether the finding is a test that counts.

    A discrete test that its margins keep from ever being significant is no test, and costs the
    others nothing (Tarone, Biometrics 46, 1990).
    """
    possible = finding.smallest_possible_p <= false_discovery_rate
    return possible and bool(np.isfinite(finding.p_value))


def holm(p_values: Matrix) -> Matrix:
    """Adjusted p-values of Holm 1979, [k]: valid under any dependence. The least is Bonferroni's.

    The j-th smallest of k is multiplied by k - j + 1, and is no less than those before it.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values), dtype=np.float64)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _family_q_values(
    p_values: Matrix, concepts: Mapping[str, Sequence[int]]
) -> tuple[NDArray[np.int64], Matrix]:
    """Indices of the findings of one family [T], and their q-values [T] at its whole rate."""
    adjusted = [holm(p_values[indices]) for indices in concepts.values()]
    concept_p = np.array([part.min() for part in adjusted])  # [C]
    members = np.concatenate([np.asarray(i, dtype=np.int64) for i in concepts.values()])
    # At a rate of concept_q[r - 1] and above, at least r concepts are found.
    concept_q = np.sort(benjamini_hochberg(concept_p))
    ranks = np.arange(1, len(concept_p) + 1)
    needed = np.concatenate(adjusted)[:, None] * len(concept_p) / ranks  # [T, C]
    return members, np.maximum(needed, concept_q).min(axis=1)


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
