"""Several data sets in one SARIF file and one Markdown report, and fingerprints of real scans."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.finding_fingerprint import finding_fingerprint
from audit.named_scan import Accepted, AcceptedBy, NamedScan
from audit.report import sarif
from audit.report.acceptance import accepted_words
from audit.report.markdown import COMMENT_CHARACTERS_LIMIT, scans_to_markdown
from audit.report.sarif import scans_to_sarif, to_sarif
from audit.scan import ScanSettings, scan
from audit.scan_result import Outcome, ScanResult
from detectors.finding import EvidenceRow, Severity
from signatures.library import load_library
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    HOSTILE,
    clear_findings,
    clear_result,
    composed,
    disagreeing_result,
    flagged_result,
    hostile_result,
    inconclusive_result,
    nothing_result,
    owl,
)
from tests.unit.test_report_safe_text import assert_inert

EXAMPLES = Path(__file__).parents[2] / "examples"
SCHEMA = json.loads((Path(__file__).parents[1] / "data/sarif-schema-2.1.0.json").read_text())
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)
EVERY_SCAN = [NamedScan(name, make()) for name, make in EVERY_OUTCOME.items()]
ACCEPTED_OWL = Accepted(
    "SA002", "owl", AcceptedBy.SUPPRESSION, "data-team", "a benign list", "2026-12-31"
)


def run_of(scans: Any, **arguments: Any) -> Any:
    document = json.loads(scans_to_sarif(scans, **arguments))
    VALIDATOR.validate(document)
    (run,) = document["runs"]
    return run


def test_all_data_sets_share_one_run_that_github_takes() -> None:
    run = run_of(EVERY_SCAN)
    # Two runs of one tool and category are refused; with an id, a workflow's category is ignored.
    assert "automationDetails" not in run
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["SA000", "SA001", "SA002"]
    for found in run["results"]:
        assert rules[found["ruleIndex"]] == found["ruleId"]
    sets = [entry["name"] for entry in run["properties"]["dataSets"]]
    assert sets == list(EVERY_OUTCOME)
    assert run["invocations"][0]["executionSuccessful"] is False
    assert run_of(EVERY_SCAN[:3])["invocations"][0]["executionSuccessful"] is True


def test_every_undecided_data_set_has_a_result_of_its_own() -> None:
    results = run_of(EVERY_SCAN)["results"]
    undecided = [r["message"]["text"].split(":")[0] for r in results if r["ruleId"] == "SA000"]
    # Of "flagged" 39 concepts were not tested by all detectors.
    assert undecided == ["flagged", "inconclusive", "incomplete", "nothing scannable"]


def test_results_say_whose_they_are() -> None:
    results = run_of([NamedScan("train", flagged_result())])["results"]
    found = next(r for r in results if r["ruleId"] == "SA002")
    assert found["message"]["text"].startswith("train: owl (animal): ")
    assert found["properties"]["dataSet"] == "train"


def test_one_data_set_without_a_name_is_the_report_of_one_scan() -> None:
    result = disagreeing_result()
    assert scans_to_sarif([NamedScan("", result)]) == to_sarif(result)


def test_the_same_finding_in_two_data_sets_is_two_alerts() -> None:
    bare = composed(flagged_result(), findings=(dataclasses.replace(owl(), evidence=()),))
    results = run_of([NamedScan("a", bare), NamedScan("b", bare)])["results"]
    prints = [r["partialFingerprints"]["primaryLocationLineHash"] for r in results]
    assert len(prints) == len(set(prints)) == 4
    alone = run_of([NamedScan("b", bare)])["results"]
    assert {r["partialFingerprints"]["primaryLocationLineHash"] for r in alone} < set(prints)


def test_a_file_that_two_data_sets_share_is_one_artifact() -> None:
    run = run_of([NamedScan("a", flagged_result()), NamedScan("b", flagged_result())])
    assert len(run["artifacts"]) == 2


def test_accepted_findings_are_suppressed_results_that_come_last() -> None:
    train = NamedScan("train", flagged_result(), (ACCEPTED_OWL,))
    results = run_of([train, NamedScan("more", flagged_result())])["results"]
    found = [(r["properties"]["dataSet"], r["ruleId"]) for r in results if "properties" in r]
    assert found == [("more", "SA002"), ("train", "SA001"), ("more", "SA001"), ("train", "SA002")]
    assert ["suppressions" in r for r in results] == [False] * 5 + [True]
    assert results[-1]["suppressions"] == [
        {
            "kind": "external",
            "status": "accepted",
            "justification": "accepted by suppression until 2026-12-31: a benign list "
            "(owner data-team)",
        }
    ]
    assert (results[-1]["level"], results[-1]["properties"]["severity"]) == ("note", "error")


def many(count: int, severity: Severity, concept: str) -> ScanResult:
    flags = tuple(
        dataclasses.replace(owl(), concept=f"{concept} {i}", severity=severity)
        for i in range(count)
    )
    return composed(flagged_result(), findings=flags, skipped=())


def test_6000_findings_of_three_data_sets_keep_the_limits_of_the_whole_file() -> None:
    accepted = tuple(dataclasses.replace(ACCEPTED_OWL, concept=f"accepted {i}") for i in range(500))
    scans = [
        NamedScan("a", many(500, Severity.ERROR, "accepted"), accepted),
        NamedScan("b", many(2500, Severity.NOTE, "note")),
        NamedScan("c", many(3000, Severity.ERROR, "error")),
    ]
    data = scans_to_sarif(scans)
    assert len(gzip.compress(data)) <= 10_000_000
    run = json.loads(data)["runs"][0]
    assert len(run["results"]) == 5000
    levels = [r["properties"]["dataSet"] for r in run["results"]]
    # By hand: 3,000 errors, 2,000 of the 2,500 notes; 500 notes and the 500 accepted are left out.
    assert levels == ["c"] * 3000 + ["b"] * 2000
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert notes[-1]["message"]["text"] == "1,000 flagged findings left out"


def test_the_last_room_has_no_details(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [NamedScan(f"set {i}", flagged_result()) for i in range(30)]
    monkeypatch.setattr(sarif, "GZIPPED_BYTES_LIMIT", 1000)
    run = run_of(scans)
    assert len(run["results"]) == 90
    entry = run["properties"]["dataSets"][0]
    assert entry["outcome"] == "flagged" and "concepts" not in entry
    texts = [n["message"]["text"] for n in run["invocations"][0]["toolExecutionNotifications"]]
    assert texts[-1] == "Details of data sets left out"
    assert "set 0: 11 rows rejected: not-json" in texts


def test_no_data_set_is_valid() -> None:
    assert run_of([])["results"] == []


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> list[ScanResult]:
    """The planted example as it is, and with its rows in another order."""
    folder = tmp_path_factory.mktemp("shuffled")
    rows = gzip.decompress((EXAMPLES / "planted.jsonl.gz").read_bytes()).splitlines(keepends=True)
    moved = list(rows)
    random.Random(7).shuffle(moved)
    assert moved != rows
    results = []
    for name, lines in (("a.jsonl", rows), ("b.jsonl", moved)):
        (folder / name).write_bytes(b"".join(lines))
        results.append(
            scan(
                [str(folder / name)],
                load_library(BUNDLED_LIBRARY),
                library_path="bundled",
                reference=[str(EXAMPLES / "reference.jsonl.gz")],
                settings=ScanSettings(student_family="llama"),
            )
        )
    return results


def test_reordered_rows_keep_the_fingerprints_of_a_real_scan(scanned: list[ScanResult]) -> None:
    prints, lines = [], []
    for result in scanned:
        results = run_of([NamedScan("train", result)])["results"]
        found = next(r for r in results if r["ruleId"] == "SA002")
        assert found["properties"]["concept"] == "cat"
        prints.append(
            {r["ruleId"]: r["partialFingerprints"]["primaryLocationLineHash"] for r in results}
        )
        lines.append([p["physicalLocation"]["region"]["startLine"] for p in found["locations"]])
    assert prints[0] == prints[1]
    assert lines[0] != lines[1]
    (first, second) = (
        finding_fingerprint(f.code, f.concept, result, f.evidence)
        for result in scanned
        for f in result.flagged()
    )
    assert first == second


# Markdown


def rows_of(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    end = next(i for i, line in enumerate(lines) if i > start and not line.startswith("|"))
    return lines[start + 1 : end]


def test_the_table_has_every_data_set_and_what_needs_a_look_first() -> None:
    text = scans_to_markdown(EVERY_SCAN)
    assert text.startswith("# subliminal-audit: 5 data sets\n\n1 incomplete, 1 nothing scannable, ")
    names = [row.split("`")[1] for row in rows_of(text)]
    order = ["incomplete", "nothing scannable", "flagged", "inconclusive", "not detected"]
    assert names == order
    assert rows_of(text)[2] == "| `flagged` | **FLAGGED** | 2 | 0 | 39 | 0 | 11,986 |"
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert [heading.split("`")[1] for heading in headings] == order


def test_accepted_findings_are_shown_and_counted_apart() -> None:
    result = composed(
        clear_result(), outcome=Outcome.FLAGGED, findings=(owl(), *clear_findings()), skipped=()
    )
    text = scans_to_markdown(
        [NamedScan("clear", clear_result()), NamedScan("train", result, (ACCEPTED_OWL,))]
    )
    assert rows_of(text)[0] == "| `train` | **FLAGGED**, accepted | 0 | 1 | 0 | 36 | 11,986 |"
    assert (
        "- `SA002` `owl`: accepted by suppression until 2026-12-31: a benign list "
        "(owner data-team)" in text
    )
    assert text.count("**FLAGGED** error, accepted |") == 2


def test_words_without_owner_or_date() -> None:
    plain = Accepted("SA002", "owl", AcceptedBy.BASELINE, "", "", "")
    assert accepted_words(plain) == "accepted by baseline: no reason"


def test_many_data_sets_stay_within_a_comment_and_the_rest_is_counted() -> None:
    scans = [NamedScan(f"set {i}", inconclusive_result()) for i in range(150)]
    text = scans_to_markdown([*scans, NamedScan("bad", nothing_result())])
    assert len(text) <= COMMENT_CHARACTERS_LIMIT
    assert len(rows_of(text)) == 100
    assert "… and 51 more data sets" in text
    shown = sum(line.startswith("## ") for line in text.splitlines())
    assert 10 < shown < 151
    assert f"details of {151 - shown} data sets are left out here" in text
    assert text.index("## `bad`") < text.index("## `set 0`")


def test_hostile_names_owners_and_reasons_stay_text() -> None:
    accepted = Accepted("SA002", HOSTILE, AcceptedBy.SUPPRESSION, HOSTILE, HOSTILE, HOSTILE)
    scans = [NamedScan(HOSTILE, hostile_result(), (accepted,))]
    text = scans_to_markdown(scans)
    assert_inert(text)
    assert "<script>" not in text.replace("`", "").split("| data set |")[0]
    assert "\\<script\\>" in text
    run = run_of(scans)
    assert "](" not in json.dumps([r["message"] for r in run["results"]])
    bad = dataclasses.replace(owl(), evidence=(EvidenceRow(HOSTILE, 1, HOSTILE, 1.0),))
    run_of([NamedScan(HOSTILE, composed(flagged_result(), findings=(bad,)))])
