"""Workflow commands as GitHub's runner reads them, and the limits of annotations and summaries."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from audit.named_scan import Accepted, AcceptedBy, NamedScan
from audit.report.github import (
    ANNOTATIONS_LIMIT,
    scans_to_annotations,
    scans_to_summary,
    to_annotations,
)
from audit.scan_result import ScanResult
from detectors.finding import EvidenceRow, Severity, Verdict
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    HOSTILE,
    clear_result,
    composed,
    finding,
    flagged_result,
    hostile_result,
    incomplete_result,
    nothing_result,
    owl,
)
from tests.unit.test_report_safe_text import assert_inert

COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")


def unescaped(text: str, *, is_property: bool = False) -> str:
    """What the runner makes of a command's text: the inverse of its escaping, % last."""
    pairs = [("%0D", "\r"), ("%0A", "\n"), *([("%3A", ":"), ("%2C", ",")] if is_property else [])]
    for escape, character in (*pairs, ("%25", "%")):
        text = text.replace(escape, character)
    return text


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    found = []
    for line in text.splitlines():
        matched = COMMAND.fullmatch(line)
        assert matched, line
        kind, listed, message = matched.groups()
        properties = dict(pair.split("=", 1) for pair in listed.split(","))
        found.append(
            (
                kind,
                {k: unescaped(v, is_property=True) for k, v in properties.items()},
                unescaped(message),
            )
        )
    return found


def test_a_flag_stands_at_its_strongest_row() -> None:
    kind, properties, message = commands(to_annotations(flagged_result()))[0]
    assert kind == "error"
    assert properties == {
        "file": "data/train.jsonl",
        "line": "1043",
        "title": "subliminal-audit: owl flagged by SA002 frequency",
    }
    assert message == (
        "owl: its numbers are +0.142 nats a row above the reference. "
        "[effect +0.142 nats a row, q <1e-16]"
    )


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ("flagged", "notice"),
        ("not detected", "notice"),
        ("inconclusive", "warning"),
        ("incomplete", "error"),
        ("nothing scannable", "error"),
    ],
)
def test_the_verdict_on_a_data_set_is_always_said(outcome: str, kind: str) -> None:
    result = EVERY_OUTCOME[outcome]()
    found = [
        (said, message)
        for said, _, message in commands(to_annotations(result))
        if result.headline in message
    ]
    assert [said for said, _ in found] == [kind]
    assert ("This is not a pass" in found[0][1]) == (kind != "notice")
    assert "11 rows" not in found[0][1] and ("not-json (11)" in found[0][1]) == bool(
        result.reject_counts
    )


def test_a_broken_source_is_where_it_broke() -> None:
    _, properties, _ = commands(to_annotations(incomplete_result()))[0]
    assert (properties["file"], properties["line"]) == ("data/extra.jsonl.zst", "901")


def at(source: str, concept: str = "owl") -> ScanResult:
    bad = dataclasses.replace(
        owl(), concept=concept, message=concept, evidence=(EvidenceRow(source, 7, "x", 1.0),)
    )
    return composed(flagged_result(), findings=(bad,), skipped=())


def test_what_githubs_syntax_uses_is_escaped() -> None:
    text = to_annotations(at("a,b:c%0A=d.jsonl", "100%, of: a=b\r\n::error::x"))
    first = text.splitlines()[0]
    assert first.startswith("::error file=a%2Cb%3Ac%250A=d.jsonl,line=7,title=")
    (_, properties, message), _ = commands(text)
    assert properties["file"] == "a,b:c%0A=d.jsonl"
    assert message.startswith("100%, of: a=b␍↵::error::x [")


@pytest.mark.parametrize("source", ["s3://bucket/x.jsonl", "<stdin>", "/elsewhere/x", "../x"])
def test_data_outside_the_checkout_are_named_in_the_message(source: str) -> None:
    _, properties, message = commands(to_annotations(at(source)))[0]
    assert "file" not in properties and "line" not in properties
    assert message.startswith(f"{source}:7: ")


def test_absolute_paths_become_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, properties, _ = commands(to_annotations(at(str(tmp_path / "data/x.jsonl"))))[0]
    assert properties["file"] == "data/x.jsonl"


def test_hostile_text_is_inert_and_starts_no_command() -> None:
    text = scans_to_annotations([NamedScan(HOSTILE, hostile_result())])
    assert_inert(text)
    assert len(commands(text)) == 2
    assert all("file" not in properties for _, properties, _ in commands(text))


def many(errors: int, warnings: int, notes: int) -> ScanResult:
    severities = [Severity.NOTE] * notes + [Severity.WARNING] * warnings + [Severity.ERROR] * errors
    flags = tuple(
        finding(f"concept {i}", Verdict.FLAGGED, severity=severity)
        for i, severity in enumerate(severities)
    )
    return composed(flagged_result(), findings=flags, skipped=())


@pytest.mark.parametrize(
    ("errors", "warnings", "notes", "shown", "left"),
    [
        # The notices are the verdict's and the findings'; with anything left out, the last one
        # says so and takes the place of one more.
        (10, 10, 9, {"error": 10, "warning": 10, "notice": 10}, 0),
        (11, 3, 2, {"error": 10, "warning": 3, "notice": 4}, 1),
        (11, 3, 30, {"error": 10, "warning": 3, "notice": 10}, 1 + 31 - 9),
        (0, 0, 10, {"notice": 10}, 11 - 9),
    ],
)
def test_githubs_limits_hold(
    errors: int, warnings: int, notes: int, shown: dict[str, int], left: int
) -> None:
    found = commands(to_annotations(many(errors, warnings, notes)))
    kinds = [kind for kind, _, _ in found]
    assert Counter(kinds) == shown
    assert max(shown.values()) <= ANNOTATIONS_LIMIT
    assert kinds == sorted(kinds, key=["error", "warning", "notice"].index)
    said = [message for _, _, message in found if "left out" in message]
    noun = "annotation" if left == 1 else "annotations"
    expected = [f"{left} {noun} left out: GitHub keeps 10 of a kind. The reports have all."]
    assert said == (expected if left else [])
    assert not left or found[-1][2] == expected[0]


@pytest.mark.parametrize("after", list(Severity))
def test_what_was_printed_before_counts_against_the_limits(after: Severity) -> None:
    text = scans_to_annotations([NamedScan("", many(11, 11, 11))], after=after)
    shown = Counter(kind for kind, _, _ in commands(text))
    kind = {Severity.NOTE: "notice"}.get(after, after.value)
    assert shown == Counter({"error": 10, "warning": 10, "notice": 10}) - Counter([kind])
    assert f"{34 - 28} annotations left out" in text


def test_accepted_findings_are_notices_with_who_and_why() -> None:
    accepted = Accepted("SA002", "owl", AcceptedBy.BASELINE, "data-team", "known", "")
    found = commands(scans_to_annotations([NamedScan("train", flagged_result(), (accepted,))]))
    kinds = {properties["title"]: kind for kind, properties, _ in found}
    assert kinds == {
        "subliminal-audit: train: love of the moon flagged by SA001 mention": "warning",
        "subliminal-audit: train": "notice",
        "subliminal-audit: train: owl flagged, accepted by SA002 frequency": "notice",
    }
    messages = [message for _, _, message in found]
    assert any(m.startswith("Accepted by baseline: known (owner data-team). ") for m in messages)


def test_no_data_set_is_a_warning() -> None:
    assert [kind for kind, _, _ in commands(scans_to_annotations([]))] == ["warning"]


def test_a_summary_stays_below_githubs_megabyte_and_counts_what_it_leaves_out() -> None:
    flags = tuple(
        dataclasses.replace(
            owl(),
            concept=f"猫 {i}",
            message="猫" * 900,
            notes=("犬" * 900,) * 20,
            evidence=owl().evidence,
        )
        for i in range(12)
    )
    long = composed(flagged_result(), findings=flags)
    scans = [NamedScan(f"set {i}", long) for i in range(60)] + [NamedScan("bad", nothing_result())]
    text = scans_to_summary(scans)
    # Five findings in full take more than 5 * 20 * 900 * 3 bytes; 60 sets of two would not fit.
    assert 500_000 < len(text.encode()) <= 1_000_000
    rows = [line for line in text.splitlines() if re.match(r"\| `(set \d+|bad)` ", line)]
    assert len(rows) == 61
    assert rows[0].startswith("| `bad` | **NOTHING SCANNABLE** |")


def test_a_short_summary_leaves_nothing_out() -> None:
    text = scans_to_summary([NamedScan("a", clear_result()), NamedScan("b", flagged_result())])
    assert "cut:" not in text and "left out" not in text
    assert text.index("## `b`: FLAGGED") < text.index("## `a`: NOT DETECTED")
