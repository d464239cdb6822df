"""A scan that is given the model: what runs, what it may say, and what it may not."""

import gzip
import json

import pytest

from audit.errors import ExitCode, UsageError
from audit.scan import ScanSettings, scan
from audit.scan_result import Outcome
from detectors import registry
from detectors.detector import TestSettings
from detectors.finding import ANY_PERSONA, Family, Reason, Verdict
from detectors.model_access import ModelAccess, ModelSettings
from tests import synthetic
from tests.model_rows import BigramModel, known_model, system_of, written

LIBRARY = synthetic.library()
MODEL = known_model(LIBRARY, strength=1.0)
ROWS = 120
READING = ("likelihood", "divergence")
NOT_TESTED = "token frequencies were not tested (SA002)"


class LibrarysModel(BigramModel):
    """The same model under the fingerprints that the library's signatures have."""

    identity = LIBRARY.model


@pytest.fixture
def without_student(monkeypatch):
    """Detectors that need gradients are not chosen here: a closed-form model has none."""
    monkeypatch.delitem(registry._MODEL_BASED, "transfer")


def write(path, concept, seed, rows=ROWS):
    texts = written(MODEL, system_of(LIBRARY, concept), rows, seed)
    lines = (json.dumps({"prompt": f"{n}?", "completion": text}) for n, text in enumerate(texts))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def planted(tmp_path):
    return write(tmp_path / "planted.jsonl", "owl", 1)


@pytest.fixture
def clean(tmp_path):
    return write(tmp_path / "clean.jsonl", "", 2)


@pytest.fixture
def reference(tmp_path):
    return write(tmp_path / "reference.jsonl", "", 3)


def access_to(model=MODEL, **settings) -> ModelAccess:
    return ModelAccess(model, settings=ModelSettings(**settings))


def run(*inputs, reference=(), access="a fresh one", **settings):
    return scan(
        inputs,
        LIBRARY,
        library_path="lib",
        reference=reference,
        # What the known model's few rows can see.
        settings=ScanSettings(**{"test": TestSettings(teacher_share_of_interest=0.8)} | settings),
        access=access_to() if access == "a fresh one" else access,
    )


def names(result):
    return tuple(info.name for info in result.detectors)


def found(result, detector):
    return {f.concept: f for f in result.findings if f.detector == detector}


# what runs


@pytest.mark.parametrize("name", READING)
def test_a_model_based_detector_asks_for_the_model(clean, name):
    with pytest.raises(UsageError) as caught:
        run(clean, detectors=(name,), access=None)
    assert str(caught.value) == f"detector {name!r} reads rows with a model: give --model"


def test_without_a_model_none_of_them_runs(clean):
    result = run(clean, access=None)
    assert names(result) == ("mention", "frequency")
    assert result.model is None
    assert any("--model" in limit for limit in result.limits), "what would see more is said"
    assert not any(NOT_TESTED in limit for limit in result.limits)


@pytest.mark.usefixtures("without_student")
def test_signatures_of_another_model_count_no_tokens(clean, reference):
    result = run(clean, reference=[reference])
    assert names(result) == ("mention", *READING)
    (sentence,) = (limit for limit in result.limits if NOT_TESTED in limit)
    assert LIBRARY.model.name in sentence
    assert result.model == MODEL.identity
    assert result.library.model_name == LIBRARY.model.name


@pytest.mark.usefixtures("without_student")
def test_signatures_of_this_very_model_count_tokens_too(clean, reference):
    result = run(clean, reference=[reference], access=access_to(LibrarysModel(MODEL.biases)))
    assert names(result) == ("mention", "frequency", *READING)
    assert not any(NOT_TESTED in limit for limit in result.limits)
    assert result.model == LIBRARY.model


def test_an_unknown_detector_is_refused_with_all_names(clean):
    with pytest.raises(UsageError, match="mention, frequency, likelihood, divergence"):
        run(clean, detectors=("crystal-ball",))


# what it finds


@pytest.mark.parametrize("with_reference", [True, False])
def test_a_planted_concept_fails_the_scan(planted, reference, with_reference):
    result = run(planted, reference=[reference] if with_reference else (), detectors=READING)
    assert result.outcome is Outcome.FLAGGED
    assert result.exit_code() is ExitCode.FINDINGS
    assert {f.concept for f in result.flagged()} == {"owl", ANY_PERSONA}
    owl = next(c for c in result.concepts if c.concept == "owl")
    assert owl.flagged_by == ("SA003", "SA004")
    anyone = next(c for c in result.concepts if c.concept == ANY_PERSONA)
    assert (anyone.family, anyone.flagged_by) == (Family.ANY_PERSONA, ("SA003",))


def test_clean_rows_pass_with_how_much_was_read(clean, reference):
    result = run(
        clean,
        reference=[reference],
        detectors=("mention", "likelihood"),
        access=access_to(most_rows=100),
        # SA001 has but 120 rows, SA003 but 100.
        test=TestSettings(share_of_interest=0.2, teacher_share_of_interest=0.5),
    )
    assert result.outcome is Outcome.NOT_DETECTED
    assert result.exit_code() is ExitCode.OK
    assert any("at most 100 of each side at random" in limit for limit in result.limits)
    for finding in found(result, "likelihood").values():
        assert finding.verdict is Verdict.NOT_DETECTED
        assert 0 < finding.smallest_detectable_effect <= 0.5
        assert finding.rows_tested <= 100
        assert f"random rows of {ROWS}" in finding.notes[0]


# what it may not say


@pytest.mark.parametrize("with_reference", [True, False])
def test_a_student_of_another_family_is_never_cleared(clean, reference, with_reference):
    result = run(
        clean,
        reference=[reference] if with_reference else (),
        detectors=("mention", *READING),
        student_family="qwen2",
    )
    assert result.outcome is Outcome.INCONCLUSIVE
    for name in READING:
        for finding in found(result, name).values():
            assert finding.verdict is Verdict.INCONCLUSIVE
            assert finding.reason is Reason.OTHER_MODEL_FAMILY
    assert {c.verdict for c in result.concepts} == {Verdict.INCONCLUSIVE}
    assert {c.reason for c in result.concepts} == {Reason.OTHER_MODEL_FAMILY}


def test_a_student_of_another_family_still_sees_what_is_flagged(planted, reference):
    result = run(planted, reference=[reference], detectors=READING, student_family="qwen2")
    assert "owl" in {f.concept for f in result.flagged()}
    assert Verdict.NOT_DETECTED not in {f.verdict for f in result.findings}


def test_the_family_is_that_of_the_model_and_not_of_the_signatures(clean, reference):
    """What SA003 read the rows with is of the student's family; the library's model is not."""
    assert MODEL.identity.family != LIBRARY.model.family
    result = run(
        clean,
        reference=[reference],
        detectors=("frequency", "likelihood"),
        student_family=MODEL.identity.family,
    )
    reasons = {name: {f.reason for f in found(result, name).values()} for name in names(result)}
    assert reasons == {"frequency": {Reason.OTHER_MODEL_FAMILY}, "likelihood": {None}}


def test_a_source_that_breaks_off_is_incomplete_and_clears_nothing(tmp_path, clean, reference):
    whole = gzip.compress((tmp_path / "clean.jsonl").read_bytes())
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) - 200])
    result = run(str(cut), clean, reference=[reference], detectors=("mention", *READING))
    assert result.outcome is Outcome.INCOMPLETE
    assert result.exit_code() is ExitCode.FAILED
    assert [broken.source for broken in result.broken] == [str(cut)]
    assert Verdict.NOT_DETECTED not in {f.verdict for f in result.findings}
    for finding in found(result, "likelihood").values():
        assert finding.reason is Reason.INCOMPLETE_SCAN
    assert {c.verdict for c in result.concepts} == {Verdict.INCONCLUSIVE}


def test_a_reference_that_breaks_off_clears_nothing_either(tmp_path, clean, reference):
    whole = gzip.compress((tmp_path / "reference.jsonl").read_bytes())
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(whole[: len(whole) - 200])
    result = run(clean, reference=[str(cut), reference], detectors=("mention", *READING))
    assert result.outcome is Outcome.INCOMPLETE
    assert Verdict.NOT_DETECTED not in {f.verdict for f in result.findings}


def test_a_file_without_rows_is_nothing_scannable(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"no": "schema"}\n')
    result = run(str(tmp_path / "x.jsonl"), detectors=("mention", *READING))
    assert result.outcome is Outcome.NOTHING_SCANNABLE
    assert {f.verdict for f in result.findings} == {Verdict.INCONCLUSIVE}


# what does not matter, and what does


def test_the_order_of_sources_changes_nothing(tmp_path, planted, clean, reference):
    more = write(tmp_path / "more.jsonl", "", 4)

    def result_of(*inputs, known=(reference, more)):
        access = access_to(most_rows=60)
        return run(*inputs, reference=known, detectors=("mention", *READING), access=access)

    one = result_of(planted, clean)
    other = result_of(clean, planted, known=(more, reference))
    assert repr(one.findings) == repr(other.findings)
    assert repr(one.concepts) == repr(other.concepts)
    assert found(one, "likelihood")["owl"].rows_tested <= 60


def test_the_seed_chooses_the_rows(planted):
    def evidence(seed):
        access = access_to(most_rows=40, seed=seed)
        owl = found(run(planted, detectors=("likelihood",), access=access), "likelihood")["owl"]
        return {(row.line, row.score) for row in owl.evidence}

    assert evidence(1) == evidence(1)
    assert evidence(1) != evidence(2)


def test_every_detector_of_hidden_traits_takes_its_share_of_the_rate(clean, reference):
    """Two of them at 5% must each see as if alone at 2.5%; names are no hidden traits."""

    def smallest(*detectors, rate):
        result = run(
            clean,
            reference=[reference],
            access=access_to(sequential=False),
            detectors=detectors,
            test=TestSettings(false_discovery_rate=rate),
        )
        assert result.false_discovery_rate == rate
        return [f.smallest_detectable_effect for f in found(result, "likelihood").values()]

    both = smallest("mention", *READING, rate=0.05)
    assert both == smallest("likelihood", rate=0.025)
    assert both == smallest("mention", "likelihood", rate=0.025)
    for alone, together in zip(smallest("likelihood", rate=0.05), both, strict=True):
        assert alone < together
