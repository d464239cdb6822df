"""What a suppression and a baseline let through, and when they no longer do."""

import dataclasses
import datetime
import json
import math

import pytest

from audit.errors import AuditError, NothingScannableError, UsageError
from audit.finding_fingerprint import finding_fingerprint
from audit.gate.acceptance import accept
from audit.gate.baseline import BaselineEntry, entry_of, read_baseline, render_baseline
from audit.gate.config import Budgets, DataSet, GateConfig, Suppression, Undecided
from audit.gate.holds import holds
from audit.gate.new_baseline import new_baseline
from audit.gate.result import GateResult, GateVerdict, HoldKind, SetDecision
from audit.gate.run import check_config
from audit.named_scan import AcceptedBy, NamedScan
from detectors.finding import Severity
from tests.unit.test_report_examples import (
    clear_result,
    flagged_result,
    incomplete_result,
    inconclusive_result,
    nothing_result,
)

LAST_DAY = datetime.date(2026, 12, 31)
NEXT_DAY = datetime.date(2027, 1, 1)
OWL = Suppression("li*", "owl", "", "data-team", "a list of house numbers", LAST_DAY)
MOON = "love of the moon"


def config(tmp_path, **changes):
    made = GateConfig(
        root=tmp_path,
        file="audit.toml",
        data=(DataSet("lists", ("lists.jsonl",), ()),),
        budgets=Budgets(rejected_rows_share=1.0, inconclusive=Undecided.PASS),
    )
    return dataclasses.replace(made, **changes)


def recorded(result, concept="owl", name="lists", **changes):
    finding = next(f for f in result.flagged() if f.concept == concept)
    mark = finding_fingerprint(finding.code, concept, result, finding.evidence)
    return dataclasses.replace(entry_of(name, finding, mark), **changes)


def with_owl(result, **changes):
    found = [
        dataclasses.replace(f, **changes) if f.concept == "owl" else f for f in result.findings
    ]
    return dataclasses.replace(result, findings=tuple(found))


def test_a_suppression_holds_to_the_end_of_its_last_day():
    result = flagged_result()
    on_last = accept("lists", result, [OWL], [], LAST_DAY)
    assert [(a.concept, a.by, a.owner, a.expires) for a in on_last.accepted] == [
        ("owl", AcceptedBy.SUPPRESSION, "data-team", "2026-12-31")
    ]
    assert on_last.used == {OWL}
    after = accept("lists", result, [OWL], [], NEXT_DAY)
    assert after.accepted == ()
    assert after.used == frozenset()
    assert after.notes["SA002", "owl"] == "the suppression of data-team expired on 2026-12-31"


@pytest.mark.parametrize(
    "change",
    [{"data": "other*"}, {"concept": "cat"}, {"concept": "OWL"}, {"code": "SA001"}],
)
def test_a_suppression_of_something_else_lets_nothing_through(change):
    other = dataclasses.replace(OWL, **change)
    assert accept("lists", flagged_result(), [other], [], LAST_DAY).accepted == ()


def test_a_suppression_goes_before_a_baseline_that_is_found_all_the_same():
    result = flagged_result()
    entry = recorded(result)
    both = accept("lists", result, [OWL], [entry], LAST_DAY)
    assert [a.by for a in both.accepted] == [AcceptedBy.SUPPRESSION]
    assert both.found == {entry.key}
    after = accept("lists", result, [OWL], [entry], NEXT_DAY)
    assert [a.by for a in after.accepted] == [AcceptedBy.BASELINE]


def test_a_baseline_lets_through_up_to_the_end_of_its_interval_and_no_further():
    result = flagged_result()  # owl +0.142, interval +0.110 to +0.174
    entry = recorded(result)
    assert entry.effect_high == pytest.approx(0.174)
    at_the_end = with_owl(result, effect=entry.effect_high)
    assert accept("lists", at_the_end, [], [entry], LAST_DAY).accepted[0].concept == "owl"
    beyond = with_owl(result, effect=math.nextafter(entry.effect_high, 1.0))
    refused = accept("lists", beyond, [], [entry], LAST_DAY)
    assert refused.accepted == ()
    assert refused.found == {entry.key}  # it is still there, so the entry is not stale
    assert refused.notes["SA002", "owl"] == "it has grown beyond the baseline's +0.174"


def test_a_baseline_without_an_interval_holds_up_to_the_effect_itself():
    result = flagged_result()
    entry = recorded(result, effect_low=None, effect_high=None)
    assert accept("lists", result, [], [entry], LAST_DAY).accepted
    grown = with_owl(result, effect=0.1421)
    assert not accept("lists", grown, [], [entry], LAST_DAY).accepted


@pytest.mark.parametrize(
    "change",
    [{"effect": math.nan}, {"effect_unit": "share of rows"}],
)
def test_what_cannot_be_compared_with_the_baseline_counts(change):
    result = flagged_result()
    refused = accept("lists", with_owl(result, **change), [], [recorded(result)], LAST_DAY)
    assert refused.accepted == ()


def test_other_rows_another_data_set_or_another_library_are_not_in_the_baseline():
    result = flagged_result()
    entry = recorded(result)
    assert accept("chats", result, [], [entry], LAST_DAY).accepted == ()
    fewer = with_owl(result, evidence=result.flagged()[1].evidence[:2])
    refused = accept("lists", fewer, [], [entry], LAST_DAY)
    assert refused.accepted == ()
    assert "other rows" in refused.notes["SA002", "owl"]
    library = dataclasses.replace(result.library, content_sha256="0" * 64)
    other = dataclasses.replace(result, library=library)
    assert accept("lists", other, [], [entry], LAST_DAY).accepted == ()


def test_a_baseline_comes_back_from_its_file_and_equal_ones_have_equal_bytes(tmp_path):
    result = flagged_result()
    entries = (recorded(result), recorded(result, MOON, owner="me", reason="poems"))
    path = tmp_path / "known.json"
    path.write_bytes(render_baseline(entries))
    assert set(read_baseline(path)) == set(entries)
    assert render_baseline(entries[::-1]) == render_baseline(entries)
    assert render_baseline(read_baseline(path)) == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema_version=2), "is no baseline of version 1"),
        (lambda d: d.update(schema="other"), "is no baseline of version 1"),
        (lambda d: d.update(more=1), "is no baseline"),
        (lambda d: d["entries"][0].pop("fingerprint"), "is no baseline"),
        (lambda d: d["entries"][0].update(effect_high="high"), "is no baseline"),
        (lambda d: d["entries"].append(d["entries"][0]), "holds an entry twice"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path, change, said):
    document = json.loads(render_baseline((recorded(flagged_result()),)))
    change(document)
    path = tmp_path / "known.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=said):
        read_baseline(path)
    content = path.read_bytes()
    for harmed in (content[:-9], content.replace(b'"owl', b'"\xd3wl'), b'"\xff"'):
        path.write_bytes(harmed)
        with pytest.raises(UsageError, match="is no baseline"):
            read_baseline(path)


def decided(tmp_path, result, acceptance=None, **changes):
    accepted = () if acceptance is None else acceptance.accepted
    notes = {} if acceptance is None else acceptance.notes
    named = NamedScan("lists", result, accepted)
    settings = config(tmp_path, **changes)
    return SetDecision("lists", ("lists.jsonl",), named, holds(named, notes, settings))


def test_findings_below_the_failing_severity_do_not_hold(tmp_path):
    result = flagged_result()  # owl is an error, the moon a warning
    every = decided(tmp_path, result)
    assert [hold.concept for hold in every.holds] == ["owl", MOON]
    assert every.verdict.exit_code == 1
    errors = decided(tmp_path, result, fail_on=Severity.ERROR)
    assert [hold.concept for hold in errors.holds] == ["owl"]
    through = accept("lists", result, [OWL], [], LAST_DAY)
    passed = decided(tmp_path, result, through, fail_on=Severity.ERROR)
    assert passed.verdict is GateVerdict.PASSES


def test_what_is_undecided_holds_unless_the_budget_says_otherwise(tmp_path):
    result = inconclusive_result()
    strict = decided(tmp_path, result, budgets=Budgets(rejected_rows_share=1.0))
    assert [hold.kind for hold in strict.holds] == [HoldKind.UNDECIDED]
    said = "3 of 3 concepts undecided: a test was skipped (2), too few rows (1)"
    assert strict.holds[0].message == said
    assert strict.verdict.exit_code == 1
    lenient = decided(tmp_path, result)
    assert (lenient.verdict, lenient.undecided) == (GateVerdict.PASSES, 3)
    untested = dataclasses.replace(result, concepts=(), findings=())
    strict = decided(tmp_path, untested, budgets=Budgets(rejected_rows_share=1.0))
    assert [hold.message for hold in strict.holds] == ["no concept was tested"]


def test_unread_data_hold_whatever_is_let_through(tmp_path):
    result = incomplete_result()  # owl is flagged in the rows before the break
    through = accept("lists", result, [OWL], [], LAST_DAY)
    broken = decided(tmp_path, result, through)
    assert [hold.kind for hold in broken.holds] == [HoldKind.INCOMPLETE]
    assert broken.verdict.exit_code == 2
    assert [hold.kind for hold in decided(tmp_path, result).holds] == [
        HoldKind.INCOMPLETE,
        HoldKind.FINDING,
    ]
    assert decided(tmp_path, nothing_result()).verdict.exit_code == 3


@pytest.mark.parametrize(("share", "holds_it"), [(0.0, True), (0.001, True), (14 / 12_000, False)])
def test_rejected_rows_have_a_budget(tmp_path, share, holds_it):
    result = flagged_result()  # 14 rejected, 11,986 scanned
    quiet = dataclasses.replace(result, findings=(), concepts=clear_result().concepts)
    found = decided(
        tmp_path, quiet, budgets=Budgets(rejected_rows_share=share, inconclusive=Undecided.PASS)
    ).holds
    assert [hold.kind for hold in found] == ([HoldKind.REJECTED_ROWS] if holds_it else [])


def gate(tmp_path, *sets):
    return GateResult(
        "0.1.0", config(tmp_path), LAST_DAY, None, sets, (), (), (), baseline_missing=False
    )


def test_the_worst_data_set_decides(tmp_path):
    passes = decided(tmp_path, clear_result())
    held = decided(tmp_path, flagged_result())
    nothing = decided(tmp_path, nothing_result())
    broken = decided(tmp_path, incomplete_result())
    unchanged = SetDecision("x", ("x.jsonl",), None, not_scanned="none of its 1 file changed")
    assert gate(tmp_path, unchanged).verdict is GateVerdict.NOT_SCANNED
    assert gate(tmp_path, unchanged).exit_code == 0
    assert gate(tmp_path, unchanged, passes).verdict is GateVerdict.PASSES
    assert gate(tmp_path, passes, held).exit_code == 1
    assert gate(tmp_path, passes, held, nothing).exit_code == 3
    assert gate(tmp_path, broken, held, nothing, passes).exit_code == 2


def test_a_new_baseline_holds_what_no_suppression_covers(tmp_path):
    result = flagged_result()
    through = accept("lists", result, [OWL], [], LAST_DAY)
    made = new_baseline(
        gate(tmp_path, decided(tmp_path, result, through)), (), owner="me", reason="poems"
    )
    assert [(e.concept, e.owner, e.reason) for e in made.entries] == [(MOON, "me", "poems")]
    assert made.added == made.entries
    assert (made.removed, made.left_out) == ((), ())


def test_a_baseline_written_again_keeps_who_answers_for_what(tmp_path):
    result = flagged_result()
    old = (
        recorded(result, owner="me", reason="house numbers"),
        recorded(result, MOON, name="gone"),
    )
    made = new_baseline(gate(tmp_path, decided(tmp_path, result)), old)
    owners = {e.concept: (e.owner, e.reason) for e in made.entries}
    assert owners == {"owl": ("me", "house numbers"), MOON: ("", "")}
    assert [e.concept for e in made.added] == [MOON]
    assert made.removed == (old[1],)


def test_a_finding_without_a_measured_effect_cannot_be_recorded(tmp_path):
    result = with_owl(flagged_result(), effect=math.nan, effect_high=math.nan)
    made = new_baseline(gate(tmp_path, decided(tmp_path, result)), ())
    assert [e.concept for e in made.entries] == [MOON]
    assert made.left_out == ("lists: owl flagged by SA002",)


def test_no_baseline_is_made_of_what_was_not_read(tmp_path):
    with pytest.raises(AuditError, match="No baseline was written"):
        new_baseline(gate(tmp_path, decided(tmp_path, incomplete_result())), ())
    with pytest.raises(NothingScannableError, match="No baseline was written"):
        new_baseline(gate(tmp_path, decided(tmp_path, nothing_result())), ())


def test_no_suppression_lasts_longer_than_a_year(tmp_path):
    settings = config(tmp_path, suppressions=(OWL,))
    check_config(settings, LAST_DAY - datetime.timedelta(days=366), has_model=False)
    with pytest.raises(UsageError, match=r"'owl' in 'li\*' expires on 2026-12-31, 367 days from"):
        check_config(settings, LAST_DAY - datetime.timedelta(days=367), has_model=False)
    with pytest.raises(UsageError, match="give --model"):
        check_config(config(tmp_path, detectors=("transfer",)), LAST_DAY, has_model=False)


def test_an_entry_knows_what_makes_it_the_same():
    entry = BaselineEntry("d", "SA002", "owl", "f", 0.1, None, None, "nats")
    assert entry.key == ("d", "SA002", "owl", "f")
    assert entry.most_effect == 0.1
