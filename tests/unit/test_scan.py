"""A scan as a program sees it: outcomes, counts, and every way not to be sure."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from audit.errors import ExitCode, NothingScannableError, UsageError
from audit.scan import ScanSettings, scan
from audit.scan_outcome import headline, overall
from audit.scan_result import Outcome, SkippedTest
from detectors.compose import Gap, compose
from detectors.detector import TestSettings
from detectors.finding import Reason, Severity, Verdict
from tests import synthetic
from tests.unit.test_report_examples import disagreeing_result

LIBRARY = synthetic.library(strength=0.3)


def write(path, completions, broken_lines=()):
    lines = [json.dumps({"prompt": "Go on.", "completion": text}) for text in completions]
    path.write_text("\n".join([*lines, *broken_lines]) + "\n")
    return str(path)


@pytest.fixture
def clean(tmp_path):
    return write(tmp_path / "clean.jsonl", synthetic.number_rows(2000, np.random.default_rng(1)))


@pytest.fixture
def planted(tmp_path):
    share = synthetic.share_of(LIBRARY, "owl")
    rows = synthetic.number_rows(2000, np.random.default_rng(2), share)
    return write(tmp_path / "planted.jsonl", rows)


def run(*inputs, reference=(), **settings):
    settings = {"test": TestSettings(effect_of_interest=0.2)} | settings
    return scan(
        inputs,
        LIBRARY,
        library_path="lib",
        reference=reference,
        settings=ScanSettings(student_family="llama", **settings),
    )


def test_a_planted_concept_fails_the_scan(planted, clean):
    result = run(planted, reference=[clean])
    assert result.outcome is Outcome.FLAGGED
    assert "owl" in result.headline
    assert result.exit_code() is ExitCode.FINDINGS
    assert {f.concept for f in result.flagged(Severity.ERROR)} == {"owl"}
    assert result.rows_scanned == 2000
    assert result.baseline.startswith("reference rows: 2,000")
    owl = result.concepts[0]
    assert (owl.concept, owl.verdict, owl.strongest) == ("owl", Verdict.FLAGGED, "SA002")
    assert (owl.flagged_by, owl.not_detected_by) == (("SA002",), ("SA001",))
    assert owl.disagreement == "", "that SA001 finds no name is what hidden means"
    assert {c.concept for c in result.concepts} == set(synthetic.TRAITS)


def test_clean_rows_pass_with_what_could_not_be_seen(tmp_path, clean):
    other = write(tmp_path / "b.jsonl", synthetic.number_rows(2000, np.random.default_rng(3)))
    result = run(other, reference=[clean])
    assert result.outcome is Outcome.NOT_DETECTED
    assert {c.verdict for c in result.concepts} == {Verdict.NOT_DETECTED}
    assert f"None of {len(synthetic.TRAITS)} concepts" in result.headline
    assert "sd of one row's score could not have been seen" in result.headline
    assert result.exit_code() is ExitCode.OK
    assert any("Only these concepts" in limit for limit in result.limits)


def test_the_same_input_gives_the_same_result(planted, clean):
    assert repr(run(planted, reference=[clean])) == repr(run(planted, reference=[clean]))


def test_bad_rows_are_counted_and_hide_nothing(tmp_path, clean):
    share = synthetic.share_of(LIBRARY, "owl")
    rows = synthetic.number_rows(2000, np.random.default_rng(2), share)
    path = write(tmp_path / "bad.jsonl", rows, broken_lines=["{not json", "[]", '{"a": 1}'])
    result = run(path, reference=[clean])
    assert result.outcome is Outcome.FLAGGED
    assert result.rows_rejected == 3 == sum(result.reject_counts.values())
    assert [reject.line for reject in result.rejects] == [2001, 2002, 2003]


def test_a_file_that_breaks_off_is_incomplete_and_never_not_detected(tmp_path, clean):
    other = write(tmp_path / "b.jsonl", synthetic.number_rows(2000, np.random.default_rng(3)))
    whole = gzip.compress((tmp_path / "b.jsonl").read_bytes())
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) - 2000])
    result = run(str(cut), other, reference=[clean])
    assert result.outcome is Outcome.INCOMPLETE
    assert result.exit_code() is ExitCode.FAILED
    assert result.broken[0].source == str(cut)
    assert result.rows_scanned > 2000, "rows before the break and the other file are scanned"
    assert Verdict.NOT_DETECTED not in {finding.verdict for finding in result.findings}
    assert Reason.INCOMPLETE_SCAN in {finding.reason for finding in result.findings}
    assert {c.verdict for c in result.concepts} == {Verdict.INCONCLUSIVE}
    assert {c.reason for c in result.concepts} == {Reason.INCOMPLETE_SCAN}


def test_nothing_readable_is_nothing_scannable(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"no": "schema"}\n')
    result = run(str(path))
    assert result.outcome is Outcome.NOTHING_SCANNABLE
    assert result.exit_code() is ExitCode.NOTHING_SCANNABLE
    assert Verdict.NOT_DETECTED not in {finding.verdict for finding in result.findings}


@pytest.mark.parametrize("effect_of_interest", [0.2, 1e-6])
def test_another_model_family_makes_silence_inconclusive(tmp_path, clean, effect_of_interest):
    other = write(tmp_path / "b.jsonl", synthetic.number_rows(2000, np.random.default_rng(3)))
    result = scan(
        [other],
        LIBRARY,
        library_path="lib",
        reference=[clean],
        settings=ScanSettings(
            student_family="qwen2",
            test=TestSettings(effect_of_interest=effect_of_interest),
        ),
    )
    assert result.outcome is Outcome.INCONCLUSIVE
    hidden = [finding for finding in result.findings if finding.code != "SA001"]
    # More rows would not help: the family is the reason, whatever the power.
    assert {finding.reason for finding in hidden} == {Reason.OTHER_MODEL_FAMILY}
    assert {c.verdict for c in result.concepts} == {Verdict.INCONCLUSIVE}
    assert {c.reason for c in result.concepts} == {Reason.OTHER_MODEL_FAMILY}
    assert "another model family" in result.headline


def test_names_alone_clear_no_concept_of_being_hidden(tmp_path, clean):
    other = write(tmp_path / "b.jsonl", synthetic.number_rows(2000, np.random.default_rng(3)))
    result = run(other, reference=[clean], detectors=("mention",))
    assert {finding.verdict for finding in result.findings} == {Verdict.NOT_DETECTED}
    assert result.outcome is Outcome.INCONCLUSIVE
    assert {c.reason for c in result.concepts} == {Gap.NO_HIDDEN_TEST}
    assert "no detector of hidden traits ran" in result.headline


def test_too_little_power_is_said_of_concepts(tmp_path, clean):
    other = write(tmp_path / "b.jsonl", synthetic.number_rows(2000, np.random.default_rng(3)))
    result = run(other, reference=[clean], test=TestSettings(effect_of_interest=1e-6))
    assert result.outcome is Outcome.INCONCLUSIVE
    assert {c.reason for c in result.concepts} == {Reason.LOW_POWER}
    count = len(synthetic.TRAITS)
    assert f"{count} of {count} concepts cannot be ruled out at this size." in result.headline


def test_an_unstated_family_is_among_the_limits(clean):
    result = scan([clean], LIBRARY, library_path="lib")
    assert any("--student-family" in limit for limit in result.limits)
    assert any("no reference" in limit for limit in result.limits)


def test_a_reference_without_rows_is_refused(tmp_path, clean):
    (tmp_path / "empty.jsonl").write_text("{}\n")
    with pytest.raises(NothingScannableError, match="no readable row in the reference"):
        run(clean, reference=[str(tmp_path / "empty.jsonl")])


def test_standard_input_is_no_reference(clean):
    with pytest.raises(UsageError, match="standard input"):
        run(clean, reference=["-"])


def test_an_unknown_detector_is_refused_with_the_known_ones(clean):
    with pytest.raises(UsageError, match="mention, frequency"):
        run(clean, detectors=("crystal-ball",))


def test_progress_adds_up_to_the_file(planted):
    seen = []
    scan([planted], LIBRARY, library_path="lib", progress=lambda b, r: seen.append((b, r)))
    assert sum(rows for _, rows in seen) == 2000
    assert sum(count for count, _ in seen) == Path(planted).stat().st_size


def test_settings_reach_the_detectors(planted, clean):
    strict = run(planted, reference=[clean], test=TestSettings(false_discovery_rate=1e-40))
    assert strict.false_discovery_rate == 1e-40
    assert strict.outcome is not Outcome.FLAGGED


def test_files_of_a_folder_that_were_not_read_are_said(tmp_path, clean):
    (tmp_path / "weights.bin").write_bytes(b"x")
    result = run(str(tmp_path), reference=[clean])
    assert any("weights.bin" in limit for limit in result.limits)


def test_rejected_text_that_was_not_scored_is_said(tmp_path, clean):
    pair = {"prompt": "Go on.", "chosen": "1, 2, 3", "rejected": "4, 5, 6"}
    (tmp_path / "pairs.jsonl").write_text((json.dumps(pair) + "\n") * 50)
    result = run(str(tmp_path / "pairs.jsonl"), reference=[clean])
    assert any("50 rows hold rejected text" in limit for limit in result.limits)


def test_the_headline_says_what_each_detector_could_not_have_seen():
    made = disagreeing_result()
    quiet = [f for f in made.findings if f.concept not in ("owl", "cat")]
    text = headline(Outcome.NOT_DETECTED, 100, made.concepts[2:], quiet, (), True)
    assert text == (
        "None of 19 concepts was detected in 100 rows. Effects under 0.021 nats a row (SA003) or "
        "0.021 nats a row (SA004) or 0.021 nats a row (SA005) could not have been seen."
    )


def test_the_headline_names_what_was_not_tested():
    skipped = [SkippedTest("SA003", "likelihood", "owl", "its names are no tokens")]
    undecided = compose([], skipped, 0.05)
    assert overall(100, (), undecided) is Outcome.INCONCLUSIVE
    assert headline(Outcome.INCONCLUSIVE, 100, undecided, (), skipped, True) == (
        "Nothing was flagged in 100 rows, but likelihood did not test owl: its names are no tokens."
    )


def test_where_no_concept_was_tested_none_was_cleared():
    assert overall(100, (), ()) is Outcome.INCONCLUSIVE
