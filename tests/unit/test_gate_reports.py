"""What the reports of a gate say, and that text from data and settings stays inert in them."""

import dataclasses
import datetime
import json
from pathlib import Path

import jsonschema
import pytest

import audit.report
from audit.errors import UsageError
from audit.gate.acceptance import accept
from audit.gate.baseline import BaselineEntry
from audit.gate.config import Budgets, DataSet, GateConfig, Suppression, Undecided
from audit.gate.holds import holds
from audit.gate.result import GateResult, SetDecision
from audit.named_scan import NamedScan
from audit.report.gate_formats import GATE_FORMATS, gate_format_of
from audit.report.gate_github import to_annotations, to_summary
from audit.report.gate_json import to_json
from audit.report.gate_markdown import to_markdown
from audit.report.gate_terminal import to_text
from audit.report.safe_text import strip_unsafe
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    HOSTILE,
    clear_result,
    flagged_result,
    hostile_result,
    inconclusive_result,
)

FOLDER = Path(audit.report.__file__).parent
SCHEMA = json.loads((FOLDER / "gate.schema.json").read_text())
SCAN_SCHEMA = json.loads((FOLDER / "report.schema.json").read_text())
TODAY = datetime.date(2026, 11, 24)
OWL = Suppression("lists", "owl", "SA002", "data-team", "house numbers", datetime.date(2026, 12, 1))
OLD = Suppression("*", "cat", "", "nobody", "long ago", datetime.date(2026, 1, 1))
UNUSED = Suppression("none", "oak", "", "someone", "just in case", datetime.date(2027, 11, 1))
STALE = BaselineEntry("lists", "SA002", "lion", "0" * 64, 0.1, None, None, "nats", "me", "known")
LENIENT = Budgets(rejected_rows_share=1.0, inconclusive=Undecided.PASS)


def gate(scans, *, suppressions=(), budgets=LENIENT, folder=Path("/"), **changes):
    config = GateConfig(
        root=folder,
        file="audit.toml",
        data=tuple(DataSet(name, (f"{name}.jsonl",), ()) for name in scans),
        baseline="known.json",
        budgets=budgets,
        suppressions=suppressions,
    )
    sets = []
    for name, result in scans.items():
        if result is None:
            sets.append(SetDecision(name, (), None, not_scanned="none of its 1 file changed"))
            continue
        through = accept(name, result, suppressions, (), TODAY)
        named = NamedScan(name, result, through.accepted)
        sets.append(SetDecision(name, (), named, holds(named, through.notes, config)))
    made = GateResult("0.1.0", config, TODAY, None, tuple(sets), (), (), (), baseline_missing=False)
    return dataclasses.replace(made, **changes)


def busy(folder=Path("/")):
    return gate(
        {"lists": flagged_result(), "small": inconclusive_result(), "same": None},
        suppressions=(OWL, OLD, UNUSED),
        folder=folder,
        expired=(OLD,),
        unused=(UNUSED,),
        stale=(STALE,),
        changed_since="main",
        baseline_missing=True,
    )


def hostile(folder=Path("/")):
    suppression = Suppression("*", HOSTILE, "", HOSTILE, HOSTILE, datetime.date(2026, 12, 1))
    result = gate(
        {HOSTILE: hostile_result(), "same": None},
        suppressions=(suppression,),
        folder=folder,
        expired=(suppression,),
        unused=(suppression,),
        stale=(dataclasses.replace(STALE, data=HOSTILE, concept=HOSTILE),),
        changed_since=HOSTILE,
    )
    return dataclasses.replace(result, config=dataclasses.replace(result.config, file=HOSTILE))


@pytest.mark.parametrize("make", [busy, hostile, *EVERY_OUTCOME.values()])
def test_json_is_what_its_schema_says(make):
    made = make()
    result = made if isinstance(made, GateResult) else gate({"one": made})
    document = json.loads(to_json(result))
    jsonschema.validate(document, SCHEMA, format_checker=jsonschema.FormatChecker())
    for entry in document["sets"]:
        if entry["report"] is not None:
            jsonschema.validate(entry["report"], SCAN_SCHEMA)
    assert set(document) == set(SCHEMA["properties"]) == set(SCHEMA["required"])
    assert document["exit_code"] == result.exit_code


def test_json_holds_what_was_decided_and_not_when():
    document = json.loads(to_json(busy()))
    assert document["verdict"] == "held"
    assert document["counts"] == {
        "held": 1, "incomplete": 0, "not_scanned": 1, "nothing_scannable": 0, "passes": 1
    }  # fmt: skip
    lists, small, same = document["sets"]
    assert [hold["concept"] for hold in lists["holds"]] == ["love of the moon"]
    assert lists["accepted"] == [
        {"by": "suppression", "code": "SA002", "concept": "owl", "expires": "2026-12-01",
         "owner": "data-team", "reason": "house numbers"}
    ]  # fmt: skip
    assert (small["verdict"], small["undecided_concepts"]) == ("passes", 3)
    assert (same["report"], same["undecided_concepts"]) == (None, None)
    assert [s["expires"] for s in document["expired_suppressions"]] == ["2026-01-01"]
    later = dataclasses.replace(busy(), today=TODAY + datetime.timedelta(days=1))
    assert to_json(later) == to_json(busy())


def test_the_terminal_says_who_let_what_through_and_what_is_over():
    shown = " ".join(to_text(busy(), width=120).split())
    for part in (
        "▲ HELD",
        "Of 3 data sets: 1 held, 1 passed, 1 unchanged and not scanned. 1 flagged finding let "
        "through.",
        "love of the moon flagged by SA001 (warning)",
        "small: 3 of 3 concepts undecided: a test was skipped (2), too few rows (1)",
        'The settings let them pass (inconclusive = "pass").',
        "lists: owl flagged by SA002, accepted by suppression until 2026-12-01: house numbers "
        "(owner data-team)",
        "in 7 days: owl SA002 in lists, by data-team until 2026-12-01: house numbers",
        "cat in *, by nobody until 2026-01-01: long ago",
        "oak in none, by someone until 2027-11-01: just in case",
        "lists: lion flagged by SA002",
        "known.json is not there yet: audit baseline writes it",
        "same: none of its 1 file changed",
        "changed since main",
        "Effects on owl below 0.021 nats a row in 11,986 rows.",
    ):
        assert part in shown, part
    assert shown.count("Effects on owl below") == 1  # two scans have the same limits


def test_a_pass_that_leaves_something_open_says_so():
    small, clear = inconclusive_result(), clear_result()
    assert "○ PASSES, NOTHING DECIDED" in to_text(gate({"small": small}))
    both = to_text(gate({"small": small, "clear": clear, "same": None}))
    assert "○ PASSES, UNDECIDED IN PART" in both
    decided = to_text(gate({"clear": clear}))
    assert "○ PASSES" in decided
    assert "UNDECIDED" not in decided
    strict = to_text(gate({"small": inconclusive_result()}, budgets=Budgets()), width=120)
    assert "▲ HELD" in strict
    assert 'set inconclusive = "pass" in the budgets' in " ".join(strict.split())


def test_a_broken_set_shows_what_was_flagged_before_the_break():
    shown = to_text(gate({"broken": EVERY_OUTCOME["incomplete"]()}))
    assert "✗ INCOMPLETE, AND HELD" in shown
    rejected = dataclasses.replace(clear_result(), rows_rejected=1)
    nothing = EVERY_OUTCOME["nothing scannable"]()
    shown = to_text(
        gate(
            {"rejected": rejected, "nothing": nothing}, budgets=Budgets(inconclusive=Undecided.PASS)
        )
    )
    assert "✗ NOTHING SCANNABLE, AND HELD" in shown


@pytest.mark.parametrize("render", [to_text, to_markdown, to_annotations, to_summary])
def test_nothing_from_data_or_settings_can_act(render):
    shown = render(hostile())
    assert all(strip_unsafe(line) == line for line in shown.split("\n"))
    assert "\x1b" not in shown


def test_a_hostile_text_stays_in_its_fence():
    text = to_markdown(hostile())
    head = text[: text.index("\n# subliminal-audit: 1 data set")]
    before, fence, _rest = head.partition("`````text\n")
    assert fence
    assert "[x](https" not in before
    assert head.rstrip().endswith("\n`````")


def test_annotations_begin_with_the_gates_own():
    lines = to_annotations(busy()).splitlines()
    assert lines[0].startswith("::error title=subliminal-audit gate::HELD. Of 3 data sets")
    assert all(line.startswith("::") for line in lines)
    passes = to_annotations(gate({"small": inconclusive_result()}))
    assert passes.startswith("::warning title=subliminal-audit gate::PASSES, NOTHING DECIDED.")
    unchanged = to_annotations(gate({"same": None}))
    assert unchanged == (
        "::notice title=subliminal-audit gate::NOT SCANNED. Of 1 data set: 1 unchanged and not "
        "scanned.\n"
    )
    budget = to_annotations(gate({"lists": flagged_result()}, budgets=Budgets()))
    assert "lists: 14 of 12,000 rows could not be read (not-json, duplicate-key)" in budget


def test_markdown_fits_into_a_comment():
    many = {f"set {i:03d}": flagged_result() for i in range(200)}
    assert len(to_markdown(gate(many))) <= 60_000
    assert len(to_summary(gate(many)).encode()) <= 1_000_000


@pytest.mark.parametrize("name", GATE_FORMATS)
def test_every_format_renders_and_equal_results_give_equal_bytes(name, tmp_path):
    rendered = GATE_FORMATS[name].render(busy(tmp_path))
    assert rendered == GATE_FORMATS[name].render(busy(tmp_path))
    assert b"lists" in rendered
    GATE_FORMATS[name].render(gate({"same": None}, folder=tmp_path))


def test_an_ending_asks_for_a_format():
    assert gate_format_of(Path("a.SARIF.json")) is GATE_FORMATS["sarif"]
    assert gate_format_of(Path("a.json")) is GATE_FORMATS["json"]
    with pytest.raises(UsageError, match=r"cannot tell the format of 'a\.pdf'"):
        gate_format_of(Path("a.pdf"))
