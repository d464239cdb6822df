import dataclasses
import math

import pytest

from audit.report import summary
from detectors.finding import Reason
from tests.unit.test_report_examples import (
    clear_findings,
    disagreeing_result,
    flagged_result,
    inconclusive_finding,
    owl,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "–"), (0.0, "<1e-16"), (1e-17, "<1e-16"), (1.2e-10, "1.2e-10"),
        (7e-4, "7.0e-4"), (0.0021, "0.0021"), (0.05, "0.05"), (0.213, "0.21"),
        (0.99996, ">0.99"), (1.0, "1.00"),
    ],
)  # fmt: skip
def test_probabilities_are_honest(value: float, shown: str) -> None:
    assert summary.probability(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "–"), (math.inf, "–"), (0.0, "0"), (0.1423, "+0.142"), (-0.1423, "-0.142"),
        (0.00412, "+0.0041"), (3.1e-5, "+3.1e-5"), (12345.6, "+12,345.6"), (2e7, "+2.0e7"),
    ],
)  # fmt: skip
def test_signed_numbers(value: float, shown: str) -> None:
    assert summary.signed(value) == shown


def test_an_undefined_interval_is_a_dash_and_half_of_one_stays() -> None:
    assert summary.interval(math.nan, math.nan) == "–"
    assert summary.interval(0.1, math.inf) == "+0.100 to –"


@pytest.mark.parametrize(
    ("ratio", "shown"), [(math.log(2.08), "2.1×"), (math.log(25), "25×"), (math.nan, "–")]
)
def test_times(ratio: float, shown: str) -> None:
    assert summary.times(ratio) == shown


def test_order_is_total_whatever_the_input_order() -> None:
    findings = flagged_result().findings
    names = [f.concept for f in summary.ordered(findings)]
    assert names[:4] == ["owl", "love of the moon", "unicorn", "cat"]
    assert [f.concept for f in summary.ordered(reversed(findings))] == names


def test_facts_count_concepts_not_findings() -> None:
    verdicts, _ = summary.facts(disagreeing_result())
    assert verdicts == ["21 concepts: 1 flagged", "1 inconclusive", "19 not detected",
                        "1 test skipped"]  # fmt: skip


def test_condensed_concepts_say_why() -> None:
    _, undecided, clear = summary.concepts_by_verdict(disagreeing_result())
    assert summary.condensed_concepts(undecided * 3) == (
        "… and 3 more inconclusive: too little power (3)"
    )
    assert summary.condensed_concepts(clear) == "… and 19 more not detected"


def test_a_cut_leaves_no_line_for_one() -> None:
    assert summary.cut("abc", 2) == ("abc", ())
    assert summary.cut("abcd", 2) == ("ab", "cd")


def test_condensed_names_the_range_of_smallest_detectable_effects() -> None:
    text = summary.condensed(clear_findings(11))
    assert text == (
        "… and 11 more not detected (smallest detectable effect 0.020 to 0.023 nats a row)"
    )


def test_condensed_keeps_units_apart() -> None:
    other = dataclasses.replace(
        owl(), verdict=clear_findings(1)[0].verdict, code="SA001", effect_unit="share of rows",
        smallest_detectable_effect=math.nan,
    )  # fmt: skip
    assert summary.detectable([other, *clear_findings(1)]) == (
        "not known (SA001), 0.020 nats a row (SA002)"
    )


def test_condensed_inconclusive_counts_reasons() -> None:
    assert summary.condensed([inconclusive_finding()] * 3) == (
        "… and 3 more inconclusive: too few rows (3)"
    )
    weak = dataclasses.replace(
        inconclusive_finding(), reason=Reason.LOW_POWER, smallest_detectable_effect=0.31
    )
    assert summary.condensed([weak, weak, inconclusive_finding()]) == (
        "… and 3 more inconclusive: too little power (2), too few rows (1); "
        "smallest detectable effect 0.310 share of rows"
    )


@pytest.mark.parametrize(
    ("size_bytes", "shown"), [(999, "999 B"), (1000, "1.0 kB"), (2_413_004, "2.4 MB")]
)
def test_size(size_bytes: int, shown: str) -> None:
    assert summary.size(size_bytes) == shown
