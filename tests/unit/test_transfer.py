"""SA005 on the softmax model of tests/softmax_student.py."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from detectors.detector import DetectorResult, TestSettings
from detectors.finding import ANY_PERSONA, Family, Finding, Reason, Verdict
from detectors.first_order import ReadingOrder
from detectors.model_access import ModelAccess, ModelSettings
from detectors.transfer import TransferDetector, relabelled, row_scores
from detectors.verdict import settle
from signatures.language_model import SequenceRequest
from signatures.library import SignatureLibrary
from tests import synthetic
from tests.softmax_student import (
    DECOYS,
    NUMBERS,
    OUTSIDE,
    TRAITS,
    SoftmaxStudent,
    library,
    number_rows,
    softmax_model,
    taught,
)


def scan(
    data: Sequence[str],
    reference: Sequence[str] | None,
    *,
    student: bool = True,
    concepts: SignatureLibrary | None = None,
    **settings: float,
) -> DetectorResult:
    model = softmax_model()
    access = ModelAccess(
        model,  # type: ignore[arg-type]
        student=SoftmaxStudent(model) if student else None,
        settings=ModelSettings(most_rows=3000),
    )
    detector = TransferDetector(concepts or library(), TestSettings(**settings), access)  # type: ignore[arg-type]
    detector.prepare(None)
    return detector.test(
        detector.map(synthetic.frame(data)),
        None if reference is None else detector.map(synthetic.frame(reference)),
    )


def settled(result: DetectorResult) -> dict[str, Finding]:
    return {finding.concept: finding for finding in settle(result.findings, 0.05)}


@pytest.fixture(scope="module")
def clean() -> list[str]:
    return number_rows(600, seed=1)


@pytest.fixture(scope="module")
def planted() -> dict[str, Finding]:
    return settled(scan(number_rows(600, 2, taught("owl", 1.0)), number_rows(600, 1)))


def test_numbers_of_a_teacher_move_the_student_to_the_teachers_concept(planted):
    owl = planted["owl"]
    assert owl.verdict is Verdict.FLAGGED
    assert 0 < owl.effect_low < owl.effect < owl.effect_high
    assert owl.effect_unit == "nats of log-odds"
    assert {name for name, f in planted.items() if f.verdict is Verdict.FLAGGED} <= {
        "owl",
        ANY_PERSONA,
    }
    assert len(owl.evidence) == 5
    assert owl.evidence[0].score >= owl.evidence[-1].score > 0


def test_there_is_one_finding_a_trait_and_one_of_what_all_share(planted):
    assert list(planted) == [*TRAITS, ANY_PERSONA]
    assert planted[ANY_PERSONA].family is Family.ANY_PERSONA
    assert planted[ANY_PERSONA].category == "persona"


def test_clean_rows_are_not_flagged(clean):
    found = settled(scan(number_rows(600, 3), clean))
    assert all(finding.verdict is not Verdict.FLAGGED for finding in found.values())
    assert all(np.isfinite(finding.smallest_detectable_effect) for finding in found.values())


def test_not_detected_takes_power():
    few = settled(scan(number_rows(60, 5), number_rows(60, 6)))
    assert {finding.reason for name, finding in few.items() if name != ANY_PERSONA} == {
        Reason.LOW_POWER
    }
    assert any("rows on each side are needed" in note for note in few["owl"].notes)


def test_p_values_of_clean_rows_are_not_too_small():
    """30 null comparisons of 3 traits: at most a binomial's share of them below .1."""
    p_values = [
        finding.p_value
        for seed in range(30)
        for finding in scan(number_rows(40, 100 + seed), number_rows(40, 200 + seed)).findings
        if finding.concept != ANY_PERSONA
    ]
    below = sum(p < 0.1 for p in p_values)
    assert below <= stats.binom.ppf(0.999, len(p_values), 0.1)


def test_swapping_data_and_reference_turns_every_effect_around(clean):
    other = number_rows(200, 7, taught("cat", 1.0))
    one, two = scan(other, clean[:200]), scan(clean[:200], other)
    for left, right in zip(one.findings, two.findings, strict=True):
        assert left.z == pytest.approx(-right.z, rel=1e-6)


def test_a_word_outside_the_library_is_named(clean):
    result = scan(number_rows(600, 8, taught(OUTSIDE, 1.0)), clean)
    (note,) = [n for n in settled(result)[ANY_PERSONA].notes if "answers that" in n]
    assert re.search(r" crows? \(p = 0\.00\d+\)", note, re.IGNORECASE), note
    assert "none of them stands out" not in note


def test_no_word_is_named_for_clean_rows(clean):
    result = scan(number_rows(600, 10), clean)
    assert any("none of them stands out" in note for note in settled(result)[ANY_PERSONA].notes)


def test_without_gradients_the_detector_is_skipped(clean):
    result = scan(clean, clean, student=False)
    assert result.findings == ()
    assert "no gradients" in result.skipped[0].reason


@pytest.mark.parametrize(
    ("data", "reference", "reason"),
    [
        (29, 40, Reason.TOO_FEW_ROWS),
        (40, None, Reason.NO_REFERENCE),
        (40, 29, Reason.NO_REFERENCE),
    ],
)
def test_what_cannot_be_tested_is_inconclusive(clean, data, reference, reason):
    found = settled(scan(clean[:data], None if reference is None else clean[:reference]))
    assert {finding.verdict for finding in found.values()} == {Verdict.INCONCLUSIVE}
    assert {finding.reason for finding in found.values()} == {reason}


def test_too_few_other_concepts_cannot_calibrate(clean):
    found = settled(scan(clean[:40], clean[40:80], concepts=library(TRAITS, DECOYS[:1])))
    assert {finding.reason for finding in found.values()} == {Reason.NO_DECOYS}


def test_rows_beyond_the_models_context_are_left_out_and_counted(clean):
    long = " ".join(["", *NUMBERS, *NUMBERS])
    found = settled(scan([*clean[:40], long], clean[40:80]))
    assert found["owl"].rows_tested == 40
    assert "1 rows exceed the model's context" in found["owl"].notes


def test_results_repeat_and_do_not_depend_on_batches(clean):
    model = softmax_model()
    access = ModelAccess(
        model,  # type: ignore[arg-type]
        student=SoftmaxStudent(model),
        settings=ModelSettings(most_rows=50),
    )
    detector = TransferDetector(library(), TestSettings(), access)
    rows = synthetic.frame(clean)
    whole = detector.map(rows)
    parts = detector.merge(
        detector.map(rows[300:]), detector.merge(detector.identity(), detector.map(rows[:300]))
    )
    assert parts == whole
    reference = detector.map(synthetic.frame(number_rows(60, 11)))
    assert detector.test(whole, reference) == detector.test(parts, reference)


def test_what_a_ridge_regression_on_the_others_foretells_is_taken_out():
    rng = np.random.default_rng(0)
    pulls = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    scores = row_scores(tuple("abcd"), pulls, rate=2.0)
    standard = (pulls - pulls.mean(axis=0)) / pulls.std(axis=0)
    others = standard[:, 1:]
    slope = np.linalg.solve(
        others.T @ others / 50 + 0.03 * np.eye(3), others.T @ standard[:, 0] / 50
    )
    left = standard[:, 0] - others @ slope
    np.testing.assert_allclose(scores.of_rows[:, 0], left / left.std(), rtol=1e-9)
    # One standard deviation of what is left, of a step of rate 2.
    assert scores.nats[0] == pytest.approx(2.0 * left.std() * pulls[:, 0].std())


def test_any_persona_is_the_weighted_mean_of_all_pulls():
    pulls = np.random.default_rng(1).normal(size=(40, 2)) * [1.0, 100.0]
    scores = row_scores(("a", "b"), pulls, rate=2.0)
    assert scores.names == ("a", "b", ANY_PERSONA)
    weights = 1.0 / pulls.std(axis=0)
    mean = (pulls - pulls.mean(axis=0)) @ weights / weights.sum()
    np.testing.assert_allclose(scores.of_rows[:, 2] * scores.nats[2], 2.0 * mean)


def test_a_target_that_no_row_moves_has_no_score():
    pulls = np.random.default_rng(2).normal(size=(20, 3))
    pulls[:, 1] = 5.0
    assert row_scores(("a", "b", "c"), pulls, 1.0).names == ("a", "c", ANY_PERSONA)


def test_relabelled_t_is_students():
    values = np.random.default_rng(3).normal(size=(12, 5))
    t, _ = relabelled(values, np.random.default_rng(0), 9)
    np.testing.assert_allclose(t, stats.ttest_ind(values[:6], values[6:]).statistic)


def test_family_wise_p_counts_the_largest_t_of_every_relabelling():
    values = np.random.default_rng(4).normal(size=(16, 200))
    values[:8, 7] += 5.0
    values[:, 9] = 1.0  # no spread
    t, p = relabelled(values, np.random.default_rng(0), 199)
    assert np.argmax(t) == 7
    assert p[7] == 1 / 200
    assert t[9] == 0.0
    assert p[9] == 1.0
    assert np.all(np.diff(p[np.argsort(-t)]) >= 0)


def test_family_wise_p_is_right_under_the_null():
    rng = np.random.default_rng(5)
    smallest = [relabelled(rng.normal(size=(16, 40)), rng, 99)[1].min() for _ in range(200)]
    assert sum(p <= 0.1 for p in smallest) <= stats.binom.ppf(0.999, 200, 0.1)
    assert sum(p <= 0.1 for p in smallest) >= stats.binom.ppf(0.001, 200, 0.1)


@pytest.mark.parametrize(
    ("rows", "targets", "blocks"),
    [
        ([], [(SequenceRequest((1,), (2,)),)], []),
        ([SequenceRequest((1,), ())], [(SequenceRequest((1,), (2,)),)], [0]),
        ([SequenceRequest((1,), (2,))], [()], [0]),
        ([SequenceRequest((1,), (2,))], [(SequenceRequest((1,), (2,)),)], [1]),
        ([SequenceRequest((1,), (2,))], [(SequenceRequest((1,), (2,)),)], [0, 0]),
    ],
)
def test_an_order_that_cannot_be_read_is_refused(rows, targets, blocks):
    with pytest.raises(ValueError, match=r"needs|gradient|block"):
        ReadingOrder(rows, targets, np.array(blocks, dtype=np.int64))
