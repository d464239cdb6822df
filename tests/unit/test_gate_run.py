"""Gates of small data sets, from the settings to the result."""

import dataclasses
import datetime
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from audit.errors import UsageError
from audit.gate.changes import Changes
from audit.gate.config_file import load_config
from audit.gate.new_baseline import new_baseline
from audit.gate.result import GateVerdict, HoldKind
from audit.gate.run import Scanning, run_gate
from audit.report.junit import scans_to_junit
from audit.report.sarif import scans_to_sarif
from audit.scan_result import Outcome
from detectors.finding import Verdict
from tests import synthetic
from tests.synthetic import number_rows, share_of

LIBRARY = synthetic.library(strength=0.3)
TODAY = datetime.date(2026, 11, 24)
SETTINGS = """
reference = "reference.jsonl"
student-family = "llama"
effect-of-interest = 0.9
baseline = "known.json"

[[data]]
name = "lists"
paths = "lists/*.jsonl"

[[data]]
name = "clean"
paths = "clean.jsonl"
"""
OWL = """
[[suppressions]]
data = "lists"
concept = "owl"
owner = "me"
reason = "wanted"
expires = 2026-12-01
"""


def write(path, completions):
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps({"prompt": "Go on.", "completion": text}) for text in completions)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "clean.jsonl", number_rows(1500, np.random.default_rng(2)))
    write(tmp_path / "reference.jsonl", number_rows(1500, np.random.default_rng(3)))
    plant(tmp_path, "owl", 1)
    (tmp_path / "audit.toml").write_text(SETTINGS)
    return tmp_path


def plant(folder, concept, seed, name="a"):
    share = share_of(LIBRARY, concept)
    rows = number_rows(1500, np.random.default_rng(seed), share)
    write(folder / "lists" / f"{name}.jsonl", rows)


def gate(folder, more="", **options):
    if more:
        (folder / "audit.toml").write_text(SETTINGS + more)
    options = {"today": TODAY, **options}
    return run_gate(load_config(folder / "audit.toml"), Scanning(LIBRARY, "lib"), **options)


def test_a_planted_set_is_held_and_a_clean_one_passes(folder):
    result = gate(folder)
    held, passes = result.sets
    assert (held.verdict, passes.verdict) == (GateVerdict.HELD, GateVerdict.PASSES)
    assert {(hold.kind, hold.concept) for hold in held.holds} == {(HoldKind.FINDING, "owl")}
    assert result.exit_code == 1
    assert held.scan.result.sources[0].source == "lists/a.jsonl"
    assert held.scan.result.library.path == "lib"
    assert result.baseline_missing


def test_a_baseline_lets_through_what_was_there_and_holds_another_trait(folder):
    known = new_baseline(gate(folder), ()).entries
    assert [(e.data, e.concept) for e in known] == [("lists", "owl")]
    assert gate(folder, baseline=known).exit_code == 0
    plant(folder, "oak", 5, name="b")
    worse = gate(folder, baseline=known)
    assert worse.exit_code == 1
    assert "oak" in {hold.concept for hold in worse.sets[0].holds}
    plant(folder, "cat", 5)
    (folder / "lists" / "b.jsonl").unlink()
    other = gate(folder, baseline=known)
    assert [hold.concept for hold in other.sets[0].holds] == ["cat"]
    assert other.stale == known


def test_a_suppression_ends_and_an_unused_one_is_reported(folder):
    unused = OWL.replace('"owl"', '"oak"')
    result = gate(folder, OWL + unused)
    assert result.exit_code == 0
    assert [s.concept for s in result.unused] == ["oak"]
    after = gate(folder, today=datetime.date(2026, 12, 2))
    assert after.exit_code == 1
    assert "the suppression of me expired on 2026-12-01" in after.sets[0].holds[0].message
    assert [s.concept for s in after.expired] == ["owl", "oak"]
    assert after.unused == ()


def test_a_suppression_that_is_about_no_data_set_is_unused(folder):
    result = gate(folder, OWL.replace('"lists"', '"misspelt"'))
    assert [s.data for s in result.unused] == ["misspelt"]
    assert result.exit_code == 1


def test_a_broken_file_fails_the_gate_and_the_others_are_scanned(folder):
    text = (folder / "clean.jsonl").read_text()
    (folder / "clean.jsonl").write_text(text[: len(text) - 20])
    result = gate(folder, OWL)
    assert [d.verdict for d in result.sets] == [GateVerdict.PASSES, GateVerdict.INCOMPLETE]
    assert result.exit_code == 2
    # Of what was not read nobody knows what is gone.
    about_clean = OWL.replace('"lists"', '"cl*"')
    assert gate(folder, about_clean).unused == ()


def test_a_glob_that_matches_nothing_is_no_pass(folder):
    (folder / "lists" / "a.jsonl").unlink()
    result = gate(folder)
    nothing = result.sets[0]
    assert nothing.verdict is GateVerdict.NOTHING_SCANNABLE
    assert nothing.scan.result.outcome is Outcome.NOTHING_SCANNABLE
    assert nothing.holds[0].message == "lists/*.jsonl matches no file"
    assert [d.verdict for d in result.sets[1:]] == [GateVerdict.PASSES]
    assert result.exit_code == 3


def test_rows_that_cannot_be_read_hold_the_gate(folder):
    with (folder / "clean.jsonl").open("a") as stream:
        stream.write("nonsense\n")
    result = gate(folder, OWL)
    hold, undecided = result.sets[1].holds
    assert hold.kind is HoldKind.REJECTED_ROWS
    assert undecided.kind is HoldKind.UNDECIDED and "unread rows" in undecided.message
    assert hold.message.startswith("1 of 1,501 rows could not be read (bad_json)")
    assert result.exit_code == 1
    lenient = "[budgets]\nrejected-rows-share = 0.001\n"
    assert gate(folder, OWL + lenient).exit_code == 0


def test_sarif_and_junit_know_the_budget_of_rejected_rows(folder):
    with (folder / "clean.jsonl").open("a") as stream:
        stream.write('{"prompt": "p"}\n')  # hides nothing, and is not in the budget all the same
    result = gate(folder, OWL)
    assert [hold.kind for hold in result.sets[1].holds] == [HoldKind.REJECTED_ROWS]
    assert {c.verdict for c in result.sets[1].scan.result.concepts} == {Verdict.NOT_DETECTED}
    said = "1 of 1,501 rows could not be read (prompt_only); the budget is a share of 0"
    (alert,) = [
        found
        for found in json.loads(scans_to_sarif(result.scans))["runs"][0]["results"]
        if found["ruleId"] == "SA000"
    ]
    assert said in alert["message"]["text"]
    suite = ElementTree.fromstring(scans_to_junit(result.scans)).findall("testsuite")[1]
    assert suite.find("testcase[@name='decided']/error").attrib["message"] == said
    lenient = gate(folder, OWL + "[budgets]\nrejected-rows-share = 0.001\n")
    assert lenient.exit_code == 0
    assert b"SA000" not in scans_to_sarif(lenient.scans)
    assert b"<error" not in scans_to_junit(lenient.scans)


def test_a_small_set_is_undecided_which_holds_unless_it_is_let_pass(folder):
    write(folder / "clean.jsonl", number_rows(40, np.random.default_rng(2)))
    result = gate(folder, OWL)
    (hold,) = result.sets[1].holds
    assert hold.kind is HoldKind.UNDECIDED
    assert result.exit_code == 1
    lenient = gate(folder, OWL + '[budgets]\ninconclusive = "pass"\n')
    assert lenient.exit_code == 0
    assert lenient.sets[1].undecided > 0


def test_an_unreadable_reference_is_no_pass(folder):
    (folder / "reference.jsonl").write_text('{"a": 1}\n')
    result = gate(folder)
    assert [d.verdict for d in result.sets] == [GateVerdict.NOTHING_SCANNABLE] * 2
    (folder / "reference.jsonl").unlink()
    with pytest.raises(UsageError, match="the reference of the data set 'lists'"):
        gate(folder)


def test_what_did_not_change_is_not_scanned_and_its_entries_are_not_stale(folder):
    known = new_baseline(gate(folder), ()).entries
    (folder / "known.json").write_text("{}")
    files = {
        "audit.toml", "known.json", "reference.jsonl", "clean.jsonl", "lists/a.jsonl"
    }  # fmt: skip
    changes = Changes("main", folder, frozenset({"clean.jsonl"}), frozenset(files))
    (folder / "audit.toml").write_text(SETTINGS + OWL)
    result = gate(folder, changes=changes, baseline=known)
    assert [d.verdict for d in result.sets] == [GateVerdict.NOT_SCANNED, GateVerdict.PASSES]
    assert [scan.name for scan in result.scans] == ["clean"]
    assert result.stale == result.unused == ()
    assert result.changed_since == "main"
    still = dataclasses.replace(changes, changed=frozenset())
    nothing = gate(folder, changes=still, baseline=known)
    assert nothing.verdict is GateVerdict.NOT_SCANNED
    assert nothing.exit_code == 0
