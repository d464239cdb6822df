import dataclasses
import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest

from audit.report import sarif
from audit.report.sarif import to_sarif
from audit.scan_result import Outcome
from detectors.finding import EvidenceRow, Verdict
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    LIMITS,
    clear_result,
    composed,
    disagreeing_result,
    flagged_result,
    hostile_result,
    incomplete_result,
    inconclusive_result,
    nothing_result,
    owl,
)

SCHEMA = json.loads((Path(__file__).parents[1] / "data/sarif-schema-2.1.0.json").read_text())
# The schema's recursion is shallow: one validator serves all tests.
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)


def run_of(result: Any, **arguments: Any) -> Any:
    document = json.loads(to_sarif(result, **arguments))
    VALIDATOR.validate(document)
    return document["runs"][0]


@pytest.mark.parametrize("name", EVERY_OUTCOME)
def test_every_outcome_is_valid_and_deterministic(name: str) -> None:
    result = EVERY_OUTCOME[name]()
    run = run_of(result)
    assert to_sarif(result) == to_sarif(result)
    assert run["properties"]["outcome"] == name
    assert run["properties"]["limits"] == list(LIMITS)
    for found in run["results"]:
        assert run["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == found["ruleId"]
        assert found["locations"]
        assert found["partialFingerprints"]["primaryLocationLineHash"]


def test_a_flag_becomes_a_result_with_its_rows() -> None:
    run = run_of(flagged_result())
    found = next(r for r in run["results"] if r["ruleId"] == "SA002")
    assert found["level"] == "error"
    assert found["message"]["text"].startswith("owl (animal): ")
    assert "q <1e-16" in found["message"]["text"]
    places = [p["physicalLocation"] for p in found["locations"]]
    assert places[0]["artifactLocation"] == {
        "uri": "data/train.jsonl",
        "uriBaseId": "%SRCROOT%",
    }
    assert [p["region"]["startLine"] for p in places] == [1043, 77, 9]


def test_a_flag_without_rows_points_at_the_first_source() -> None:
    bare = dataclasses.replace(owl(), evidence=())
    found = run_of(composed(flagged_result(), findings=(bare,), skipped=()))["results"][0]
    place = found["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "data/train.jsonl"
    assert place["region"]["startLine"] == 1


def test_each_detector_that_ran_is_a_rule_github_accepts() -> None:
    rules = run_of(clear_result())["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["SA001", "SA002"]
    for rule in rules:
        assert rule["name"]
        assert rule["shortDescription"]["text"] and rule["fullDescription"]["text"]
        assert rule["help"]["text"] and rule["help"]["markdown"]
        assert rule["properties"]["nullHypothesis"]


def test_not_detected_raises_no_alert_but_is_listed() -> None:
    run = run_of(clear_result())
    assert run["results"] == []
    assert len(run["properties"]["notDetected"]) == 36
    assert run["invocations"][0]["executionSuccessful"] is True


@pytest.mark.parametrize(
    ("make", "level", "successful"),
    [
        (inconclusive_result, "note", True),
        (incomplete_result, "warning", False),
        (nothing_result, "warning", False),
    ],
)
def test_an_undecided_scan_never_looks_like_a_pass(make: Any, level: str, successful: bool) -> None:
    run = run_of(make())
    found = run["results"][0]
    assert (found["ruleId"], found["level"]) == ("SA000", level)
    assert "This is not a pass." in found["message"]["text"]
    assert run["invocations"][0]["executionSuccessful"] is successful


def test_notifications_name_rejects_breaks_and_skips() -> None:
    notes = run_of(incomplete_result())["invocations"][0]["toolExecutionNotifications"]
    texts = [(note["descriptor"]["id"], note["message"]["text"]) for note in notes]
    assert ("broken-source", "broken off: zstd stream ends early") in texts
    assert ("rejected-row", "11 rows rejected: not-json") in texts
    assert ("skipped-test", "SA003 likelihood: needs the model: pass --model") in texts


def fingerprint(evidence: tuple[EvidenceRow, ...]) -> str:
    found = dataclasses.replace(owl(), evidence=evidence)
    run = run_of(composed(flagged_result(), findings=(found,), skipped=()))
    hashed: str = run["results"][0]["partialFingerprints"]["primaryLocationLineHash"]
    return hashed


def test_the_fingerprint_follows_content_not_lines_or_order() -> None:
    rows = owl().evidence
    moved = tuple(dataclasses.replace(row, line=row.line + 500) for row in rows[::-1])
    assert fingerprint(moved) == fingerprint(rows)
    changed = (dataclasses.replace(rows[0], text="1, 2, 3"), *rows[1:])
    assert fingerprint(changed) != fingerprint(rows)


def test_two_views_of_one_concept_without_rows_stay_two_alerts() -> None:
    bare = dataclasses.replace(owl(), evidence=())
    twice = (bare, dataclasses.replace(bare, message="the other view"))
    run = run_of(composed(flagged_result(), findings=twice, skipped=()))
    prints = {r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("data/a b#1.jsonl", "data/a%20b%231.jsonl"),
        ("./data//x.jsonl", "data/x.jsonl"),
        ("/repo/data/x.jsonl", "data/x.jsonl"),
        ("/elsewhere/x.jsonl", "file:///elsewhere/x.jsonl"),
        ("a:b.jsonl", "a%3Ab.jsonl"),
        ("猫.jsonl", "%E7%8C%AB.jsonl"),
        ("bad\udcff.jsonl", "bad%FF.jsonl"),
        ("<stdin>", "%3Cstdin%3E"),
        ("s3://bucket/a b.jsonl", "s3://bucket/a%20b.jsonl"),
    ],
)
def test_locations_are_relative_and_percent_encoded(source: str, uri: str) -> None:
    found = dataclasses.replace(owl(), evidence=(EvidenceRow(source, 0, "x", 1.0),))
    result = composed(flagged_result(), findings=(found,), skipped=())
    place = run_of(result, root=Path("/repo"))["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == uri
    assert place["region"]["startLine"] == 1


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for item in value.items() for s in (item[0], *strings(item[1]))]
    if isinstance(value, list):
        return [s for item in value for s in strings(item)]
    return []


def test_hostile_text_is_inert() -> None:
    run = run_of(hostile_result())
    for text in strings(run):
        bad = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs"}} - {"\n"}
        assert not bad
    for found in run["results"]:
        assert "](" not in found["message"]["text"]
        urlsplit(found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
    for rule in run["tool"]["driver"]["rules"]:
        assert "<script>" not in rule["help"]["markdown"].replace("\\<", "")


def test_the_limits_of_code_scanning_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sarif, "RESULTS_LIMIT", 50)
    flags = tuple(dataclasses.replace(owl(), concept=f"concept {i}") for i in range(80))
    result = composed(flagged_result(), findings=flags, skipped=())
    run = run_of(result)
    assert len(run["results"]) == 50
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert notes[-1]["message"]["text"] == "30 flagged findings left out"
    full = len(gzip.compress(to_sarif(result)))
    monkeypatch.setattr(sarif, "GZIPPED_BYTES_LIMIT", full - 1)
    assert "snippet" not in to_sarif(result).decode()


def test_what_every_detector_says_of_a_concept_is_with_its_result_and_its_run() -> None:
    run = run_of(disagreeing_result())
    found = next(r for r in run["results"] if r["ruleId"] == "SA003")
    assert found["message"]["text"].endswith("could have seen the effect they look for.")
    properties = found["properties"]
    assert properties["flaggedBy"] == ["SA003"]
    assert properties["notDetectedBy"] == ["SA001", "SA004", "SA005"]
    assert properties["inconclusiveBy"] == ["SA002"]
    concepts = {concept["concept"]: concept for concept in run["properties"]["concepts"]}
    assert len(concepts) == 21
    assert concepts["cat"]["reason"] == "too little power"
    assert concepts["trait 15"]["skippedBy"] == ["SA004"]
    assert concepts["owl"]["disagreement"] == properties["disagreement"]


def test_a_test_that_another_one_made_up_for_leaves_nothing_undecided() -> None:
    made = disagreeing_result()
    sure = tuple(f for f in made.findings if f.concept not in ("owl", "cat"))
    run = run_of(composed(made, outcome=Outcome.NOT_DETECTED, findings=sure))
    assert run["results"] == []
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert any(note["descriptor"]["id"] == "inconclusive" for note in notes)


def test_only_flagged_findings_are_results() -> None:
    run = run_of(flagged_result())
    flagged = [f for f in flagged_result().findings if f.verdict is Verdict.FLAGGED]
    assert [r["ruleId"] for r in run["results"]] == ["SA000", "SA002", "SA001"]
    assert len(flagged) == 2
