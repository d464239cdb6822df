"""From p-values to verdicts, by hand."""

import math
from dataclasses import replace

import pytest

from detectors.finding import Family, Finding, Reason, Severity, Verdict
from detectors.verdict import settle

BASE = Finding(
    code="SA999",
    detector="test",
    concept="owl",
    category="animal",
    verdict=Verdict.INCONCLUSIVE,
    severity=Severity.NOTE,
    message="",
    null_hypothesis="",
    rows_tested=1,
    units_tested=1,
)


def finding(p_value=math.nan, **changes):
    return replace(BASE, p_value=p_value, **changes)


def test_q_values_are_adjusted_within_a_family_and_over_families():
    settled = settle([finding(0.01), finding(0.02), finding(1e-9, family=Family.ANY_PERSONA)], 0.05)
    # Benjamini-Hochberg's .02 and .02 over a share of .9 of the rate; alone, 1e-9 over .1 of it.
    assert [f.q_value for f in settled] == pytest.approx([0.02 / 0.9, 0.02 / 0.9, 1e-8])
    assert [f.verdict for f in settled] == [Verdict.FLAGGED] * 3
    assert {f.severity for f in settled} == {Severity.ERROR}


def test_a_sure_finding_makes_no_guess_of_another_family_cheaper():
    alone = settle([finding(0.03), finding(0.9)], 0.05)[0]
    beside = settle([finding(0.03), finding(0.9), finding(1e-30, family=Family.ANY_PERSONA)], 0.05)[
        0
    ]
    assert alone.verdict is beside.verdict is Verdict.NOT_DETECTED
    assert beside.q_value >= alone.q_value


def test_a_reason_makes_silence_inconclusive_but_does_not_hide_a_finding():
    loud, quiet = settle(
        [finding(1e-6, reason=Reason.LOW_POWER), finding(0.5, reason=Reason.LOW_POWER)], 0.05
    )
    assert (loud.verdict, loud.reason) == (Verdict.FLAGGED, None)
    assert (quiet.verdict, quiet.reason) == (Verdict.INCONCLUSIVE, Reason.LOW_POWER)


def test_without_a_p_value_nothing_is_decided():
    (settled,) = settle([finding()], 0.05)
    assert settled.verdict is Verdict.INCONCLUSIVE
    assert settled.reason is Reason.NO_REFERENCE
    assert math.isnan(settled.q_value)


def test_a_hopeless_test_costs_the_others_nothing():
    settled = settle([finding(0.04), finding(1.0, smallest_possible_p=0.5)], 0.05)
    assert settled[0].verdict is Verdict.FLAGGED
    assert settled[0].q_value == pytest.approx(0.04)
    assert settled[1].q_value == 1.0
    assert settled[1].verdict is Verdict.NOT_DETECTED


def test_nothing_to_settle():
    assert settle([], 0.05) == ()
