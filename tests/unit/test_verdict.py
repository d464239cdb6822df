"""From p-values to verdicts, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from detectors.finding import Family, Finding, Reason, Severity, Verdict
from detectors.verdict import holm, settle

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


def finding(p_value=math.nan, concept="owl", **changes):
    return replace(BASE, p_value=p_value, concept=concept, **changes)


def q_values(*findings, rate=0.05):
    return [f.q_value for f in settle(findings, rate)]


def test_with_one_detector_it_is_benjamini_hochberg():
    # .01 * 3 / 1 = .03, .02 * 3 / 2 = .03, .3 * 3 / 3 = .3
    assert q_values(finding(0.3, "cat"), finding(0.01), finding(0.02, "oak")) == pytest.approx(
        [0.3, 0.03, 0.03]
    )


def test_q_values_are_adjusted_within_a_family_and_over_families():
    settled = settle(
        [finding(0.01), finding(0.02, "cat"), finding(1e-9, family=Family.ANY_PERSONA)], 0.05
    )
    # Benjamini-Hochberg's .02 and .02 over a share of .9 of the rate; alone, 1e-9 over .1 of it.
    assert [f.q_value for f in settled] == pytest.approx([0.02 / 0.9, 0.02 / 0.9, 1e-8])
    assert [f.verdict for f in settled] == [Verdict.FLAGGED] * 3
    assert {f.severity for f in settled} == {Severity.ERROR}


def test_a_sure_finding_makes_no_guess_of_another_family_cheaper():
    guesses = [finding(0.03), finding(0.9, "cat")]
    alone = settle(guesses, 0.05)[0]
    beside = settle([*guesses, finding(1e-30, family=Family.ANY_PERSONA)], 0.05)[0]
    assert alone.verdict is beside.verdict is Verdict.NOT_DETECTED
    assert beside.q_value >= alone.q_value


def test_holm_by_hand():
    # .01 * 4, .04 * 1 below its forerunner, .03 * 2, .02 * 3
    assert holm(np.array([0.01, 0.04, 0.03, 0.02])) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm(np.array([0.5, 0.4])) == pytest.approx([0.8, 0.8])
    assert holm(np.array([0.9, 0.7])) == pytest.approx([1.0, 1.0])


def test_detectors_of_one_concept_are_one_hypothesis():
    # owl: Holm gives min(2 * .002, 1) = .004 and max(.004, .02) = .02; cat: .6 and .6.
    # Concepts .004 and .6 of two: q = .008 and .6. The second finding of owl counts as soon as
    # .02 <= (1 of 2 found) * rate, so from a rate of .04 on.
    owl = [finding(0.002), finding(0.02, code="SA998")]
    cat = [finding(0.3, "cat"), finding(0.9, "cat", code="SA998")]
    assert q_values(*owl, *cat) == pytest.approx([0.008, 0.04, 0.6, 0.9])


def test_more_findings_of_a_concept_that_is_surely_there_make_no_other_cheaper():
    guess = finding(0.03, "cat")
    sure = [finding(1e-30, code=f"SA99{index}") for index in range(5)]
    # With one sure concept of two: .03 * 2 / 2. Over findings it would be .03 * 6 / 6 as well,
    # but a guess at .06 would pass there beside enough sure findings, and here never.
    assert q_values(*sure, guess)[-1] == pytest.approx(0.03)
    assert q_values(*sure, replace(guess, p_value=0.06))[-1] == pytest.approx(0.06)


def test_the_second_of_a_concept_pays_for_the_selection():
    # 20 concepts, one found: within it, a finding counts below 1 / 20 of the rate.
    others = [finding(0.5, f"concept {index}") for index in range(19)]
    strong, weak = settle([finding(1e-6), finding(0.01, code="SA998"), *others], 0.05)[:2]
    assert (strong.verdict, weak.verdict) == (Verdict.FLAGGED, Verdict.NOT_DETECTED)
    assert strong.q_value == pytest.approx(2e-6 * 20)
    assert weak.q_value == pytest.approx(0.01 * 20)


def test_a_reason_makes_silence_inconclusive_but_does_not_hide_a_finding():
    loud, quiet = settle(
        [finding(1e-6, reason=Reason.LOW_POWER), finding(0.5, "cat", reason=Reason.LOW_POWER)],
        0.05,
    )
    assert (loud.verdict, loud.reason) == (Verdict.FLAGGED, None)
    assert (quiet.verdict, quiet.reason) == (Verdict.INCONCLUSIVE, Reason.LOW_POWER)


def test_without_a_p_value_nothing_is_decided():
    (settled,) = settle([finding()], 0.05)
    assert settled.verdict is Verdict.INCONCLUSIVE
    assert settled.reason is Reason.NO_REFERENCE
    assert math.isnan(settled.q_value)


def test_a_hopeless_test_costs_the_others_nothing():
    for concept in ("owl", "cat"):  # neither the same concept's nor another one's
        settled = settle([finding(0.04), finding(1.0, concept, smallest_possible_p=0.5)], 0.05)
        assert settled[0].verdict is Verdict.FLAGGED
        assert settled[0].q_value == pytest.approx(0.04)
        assert settled[1].q_value == 1.0
        assert settled[1].verdict is Verdict.NOT_DETECTED


def test_nothing_to_settle():
    assert settle([], 0.05) == ()
