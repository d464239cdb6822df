"""JUnit XML: what each verdict becomes, and that nothing undecided can look like a pass."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import xmlschema

from audit.named_scan import Accepted, AcceptedBy, NamedScan
from audit.report.junit import scans_to_junit, to_junit
from audit.scan_result import Outcome, ScanResult
from detectors.finding import EvidenceRow, Severity, Verdict
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    HOSTILE,
    clear_findings,
    clear_result,
    composed,
    disagreeing_result,
    finding,
    flagged_result,
    hostile_result,
    incomplete_result,
    inconclusive_result,
    owl,
)
from tests.unit.test_report_safe_text import assert_inert

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[1] / "data/junit.xsd")

Element = ElementTree.Element


def suites(document: bytes) -> list[Element]:
    SCHEMA.validate(document.decode())
    root = ElementTree.fromstring(document)
    found = root.findall("testsuite")
    for count in ("tests", "failures", "errors"):
        assert int(root.attrib[count]) == sum(int(suite.attrib[count]) for suite in found)
    for suite in found:
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[name]) == sum(case.find(tag) is not None for case in cases)
    return found


def suite_of(result: ScanResult) -> Element:
    (suite,) = suites(to_junit(result))
    return suite


def case_of(suite: Element, name: str) -> Element:
    (case,) = [case for case in suite.findall("testcase") if case.attrib["name"] == name]
    return case


def said(case: Element) -> str:
    """What a viewer makes of a case."""
    tags = [child.tag for child in case]
    assert len(tags) == 1, tags
    return {"system-out": "passed"}.get(tags[0], tags[0])


def colour(document: bytes) -> str:
    """Red if a viewer would stop a pipeline for it: skipped cases stop none."""
    root = ElementTree.fromstring(document)
    return "red" if int(root.attrib["failures"]) + int(root.attrib["errors"]) else "green"


@pytest.mark.parametrize("name", EVERY_OUTCOME)
def test_every_outcome_is_valid_and_deterministic(name: str) -> None:
    result = EVERY_OUTCOME[name]()
    suite = suite_of(result)
    assert to_junit(result) == to_junit(result)
    properties = [(p.attrib["name"], p.attrib["value"]) for p in suite.iter("property")]
    assert ("outcome", name) in properties
    assert [value for key, value in properties if key == "limit"] == list(result.limits)
    assert len(suite.findall("testcase")) == len(result.concepts) + 1


@pytest.mark.parametrize("name", EVERY_OUTCOME)
def test_only_a_scan_that_decided_everything_and_flags_nothing_is_green(name: str) -> None:
    expected = "green" if name == "not detected" else "red"
    assert colour(to_junit(EVERY_OUTCOME[name]())) == expected


def test_each_verdict_has_its_element() -> None:
    suite = suite_of(flagged_result())
    seen = Counter(said(case) for case in suite.findall("testcase")[1:])
    # By hand: 2 concepts are flagged; SA001 did not test the other 39, so they are inconclusive.
    assert seen == {"failure": 2, "skipped": 39}
    assert said(case_of(suite, "decided")) == "error"
    clear = suite_of(clear_result())
    assert Counter(said(case) for case in clear.findall("testcase")) == {"passed": 37}
    assert "no proof" in str(case_of(clear, "cat (animal)").findtext("system-out"))


def test_a_failure_holds_numbers_and_rows() -> None:
    failure = case_of(suite_of(flagged_result()), "owl (animal)").find("failure")
    assert failure is not None and failure.text is not None
    assert failure.attrib["type"] == "error"
    assert failure.attrib["message"].startswith("flagged by SA002: owl: ")
    assert "effect +0.142 nats a row (95% +0.110 to +0.174)" in failure.text
    assert "data/train.jsonl:1043: 480, 725, «087», «693», 747, «087»" in failure.text


def test_a_disagreement_is_said_where_the_failure_is() -> None:
    failure = case_of(suite_of(disagreeing_result()), "owl (animal)").find("failure")
    assert failure is not None and "could have seen the effect they look for." in str(failure.text)


def accept(*findings: Any, by: AcceptedBy = AcceptedBy.SUPPRESSION) -> tuple[Accepted, ...]:
    return tuple(
        Accepted(f.code, f.concept, by, "data-team", "a benign list", "2026-12-31")
        for f in findings
    )


def test_accepted_findings_are_skipped_with_who_and_why() -> None:
    result = composed(
        clear_result(), outcome=Outcome.FLAGGED, findings=(owl(), *clear_findings()), skipped=()
    )
    document = scans_to_junit([NamedScan("train", result, accept(owl()))])
    (suite,) = suites(document)
    skipped = case_of(suite, "owl (animal)").find("skipped")
    assert skipped is not None
    assert skipped.attrib == {
        "type": "accepted",
        "message": "SA002 owl is flagged and accepted by suppression until 2026-12-31: "
        "a benign list (owner data-team)",
    }
    assert suite.attrib["failures"] == "0"


def test_a_concept_fails_as_long_as_one_of_its_findings_counts() -> None:
    named = finding("owl", Verdict.FLAGGED, code="SA001", q=0.001, severity=Severity.ERROR)
    result = composed(flagged_result(), findings=(owl(), named))
    (suite,) = suites(scans_to_junit([NamedScan("train", result, accept(owl()))]))
    failure = case_of(suite, "owl (animal)").find("failure")
    assert failure is not None and failure.text is not None
    assert "SA001 mention" in failure.text
    assert "accepted by suppression until 2026-12-31" in failure.text


def test_accepting_every_flag_makes_no_undecided_scan_green() -> None:
    flagged = flagged_result()
    scan = NamedScan("train", flagged, accept(*flagged.flagged()))
    document = scans_to_junit([scan])
    assert suites(document)[0].attrib["failures"] == "0"
    assert colour(document) == "red"


def test_what_a_broken_scan_did_not_detect_is_no_pass() -> None:
    result = composed(incomplete_result(), findings=clear_findings(3), skipped=())
    suite = suite_of(result)
    assert {c.verdict for c in result.concepts} == {Verdict.NOT_DETECTED}
    assert [said(case) for case in suite.findall("testcase")] == ["error", *["skipped"] * 3]


def test_no_data_set_is_no_pass() -> None:
    document = scans_to_junit([])
    assert len(suites(document)) == 1
    assert colour(document) == "red"


def test_each_data_set_is_a_suite() -> None:
    scans = [NamedScan("a.jsonl", clear_result()), NamedScan("b.jsonl", inconclusive_result())]
    first, second = suites(scans_to_junit(scans))
    assert (first.attrib["name"], second.attrib["name"]) == ("a.jsonl", "b.jsonl")
    assert (first.attrib["errors"], second.attrib["errors"]) == ("0", "1")
    # A dot would make Jenkins take "jsonl" for the class and the rest for its package.
    assert {case.attrib["classname"] for case in first.findall("testcase")} == {
        "subliminal-audit.a_jsonl"
    }


def test_text_that_xml_cannot_hold_is_replaced() -> None:
    text = f"{HOSTILE} \ufffe \uffff \x0b \ud800 ]]> <!-- -->"
    bad = dataclasses.replace(
        owl(), concept=text, message=text, evidence=(EvidenceRow(text, 1, text, 1.0),)
    )
    result = composed(hostile_result(), findings=(bad,))
    document = scans_to_junit([NamedScan(text, result, accept(owl()))])
    (suite,) = suites(document)
    assert suite.attrib["name"].endswith(" � � ␋ � ]]> <!-- -->")
    assert_inert(document.decode())
