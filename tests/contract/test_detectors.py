"""What every registered detector promises, whatever it measures."""

import itertools
import json

import numpy as np
import pytest

from detectors.detector import TestSettings
from detectors.finding import Finding, Reason, Verdict
from detectors.model_access import ModelAccess, ModelSettings
from detectors.registry import (
    detector_factory,
    detector_names,
    model_detector_factory,
    model_detector_names,
)
from detectors.rows import empty_rows
from detectors.state_codec import decode_state, encode_state
from detectors.verdict import settle
from tests import softmax_student, synthetic
from tests.model_rows import access, frame_of, known_model

MODEL = known_model(synthetic.library(), strength=1.0)

ACCESS = {
    "likelihood": lambda **settings: access(MODEL, **settings),
    "divergence": lambda **settings: access(MODEL, **settings),
    "transfer": lambda **settings: softmax_access(**settings),
}
"""How to make what each model-based detector is given; the settings are those of the reading."""


def softmax_access(**settings):
    model = softmax_student.softmax_model()
    return ModelAccess(
        model,
        student=softmax_student.SoftmaxStudent(model),
        settings=ModelSettings(**{"most_rows": 1000, **settings}),
    )


def library_of(name):
    return softmax_student.library() if name == "transfer" else synthetic.library()


NAMES = (*detector_names(), *ACCESS)
every_detector = pytest.mark.parametrize("name", NAMES)
every_model_based_detector = pytest.mark.parametrize("name", ACCESS)


def prepared(name, reference=None, **settings):
    library = library_of(name)
    if name in ACCESS:
        given = ACCESS[name](**settings)
        # What 120 rows of the known model can see.
        settings = TestSettings(teacher_share_of_interest=0.5)
        detector = model_detector_factory(name)(library, settings, given)
    else:
        # 6,000 rows can see this much.
        detector = detector_factory(name)(library, TestSettings(effect_of_interest=0.1))
    detector.prepare(None if reference is None else lambda: [reference])
    return detector


def rows(name, count: int, seed: int, source: str = "data.jsonl"):
    """Rows that the detector can read: some of a trait, one without text."""
    if name == "transfer":
        texts = softmax_student.number_rows(count, seed)
        texts[::7] = softmax_student.number_rows(
            len(texts[::7]), seed, softmax_student.taught("owl", 1.0)
        )
    elif name in ACCESS:
        texts = frame_of(MODEL, synthetic.library(), "", count, seed)["completion"].to_list()
        trait = frame_of(MODEL, synthetic.library(), "owl", count, seed)["completion"]
        texts[::7] = trait[::7].to_list()
    else:
        texts = synthetic.number_rows(count, np.random.default_rng(seed))
        texts[::7] = [f"An owl and {text}" for text in texts[::7]]
    texts[3] = ""
    return synthetic.frame(texts, source)


def clean_rows(name, seed: int):
    """Rows without a trait, enough of them for the detector to say so."""
    if name == "transfer":
        return synthetic.frame(softmax_student.number_rows(600, seed))
    if name in ACCESS:
        return frame_of(MODEL, synthetic.library(), "", 120, seed)
    return synthetic.frame(synthetic.number_rows(6000, np.random.default_rng(seed)))


def text_of(findings: tuple[Finding, ...]) -> str:
    """Findings as text: NaN is not equal to itself, its text is."""
    return repr(findings)


def verdicts_of(findings: tuple[Finding, ...]) -> set[Verdict]:
    return {finding.verdict for finding in settle(findings, 0.05)}


def test_every_registered_detector_is_held_to_this_contract():
    assert (*detector_names(), *model_detector_names()) == NAMES


@every_detector
def test_says_what_its_numbers_mean(name):
    info = prepared(name).info
    assert info.name == name
    assert info.code.startswith("SA")
    for field in ("summary", "null_hypothesis", "score_range", "direction", "source"):
        assert len(getattr(info, field)) > 10, field


def test_codes_are_unique():
    codes = [prepared(name).info.code for name in NAMES]
    assert len(set(codes)) == len(codes)


@every_detector
def test_states_survive_a_file_to_the_last_bit(name):
    reference = rows(name, 80, 1, "reference.jsonl")
    detector = prepared(name, reference)
    for frame in (rows(name, 90, 2), empty_rows()):
        state = detector.map(frame)
        text = json.dumps(encode_state(state, detector.state_types))
        again = decode_state(json.loads(text), detector.state_types)
        assert repr(again) == repr(state)
        assert json.dumps(encode_state(again, detector.state_types)) == text
    merged = detector.merge(detector.identity(), again)
    assert repr(merged) == repr(detector.merge(detector.identity(), state))


def assert_commutative_monoid(name, **settings):
    reference = rows(name, 80, 1, "reference.jsonl")
    detector = prepared(name, reference, **settings)
    data = rows(name, 90, 2)
    parts = [data[:1], data[1:40], data[40:40], data[40:]]
    states = [detector.map(part) for part in parts]
    known = detector.map(reference)
    whole = text_of(detector.test(detector.map(data), known).findings)
    for order in itertools.permutations(states):
        merged = detector.identity()
        for state in order:
            merged = detector.merge(merged, state)
        assert text_of(detector.test(merged, known).findings) == whole
    left = detector.merge(detector.merge(states[0], states[1]), states[3])
    right = detector.merge(states[0], detector.merge(states[1], states[3]))
    assert text_of(detector.test(left, known).findings) == whole
    assert text_of(detector.test(right, known).findings) == whole
    # Another process, which has read nothing yet, finds the same.
    fresh = prepared(name, reference, **settings)
    assert text_of(fresh.test(right, fresh.map(reference)).findings) == whole
    return left


@every_detector
def test_merge_is_a_commutative_monoid_to_the_last_bit(name):
    assert_commutative_monoid(name)


@every_model_based_detector
@pytest.mark.parametrize("sequential", [True, False])
def test_samples_smaller_than_the_data_merge_to_the_last_bit(name, sequential):
    sample = assert_commutative_monoid(name, most_rows=40, sequential=sequential)
    assert (len(sample.rows), sample.seen_rows) == (40, 89), "one row of 90 has no completion"
    assert not sample.is_whole


@every_detector
def test_no_rows_are_never_called_clean(name):
    detector = prepared(name)
    empty = detector.merge(detector.identity(), detector.map(empty_rows()))
    result = detector.test(empty, None)
    settled = settle(result.findings, 0.05)
    assert settled
    assert {finding.verdict for finding in settled} == {Verdict.INCONCLUSIVE}
    assert all(finding.reason is not None for finding in settled)


@every_detector
def test_every_trait_gets_a_finding_or_a_reason(name):
    detector = prepared(name)
    result = detector.test(detector.map(rows(name, 60, 3)), None)
    spoken_of = {f.concept for f in result.findings} | {s.concept for s in result.skipped}
    assert {concept.name for concept in library_of(name).traits()} <= spoken_of
    decoys = {concept.name for concept in library_of(name).decoys()}
    assert not decoys & spoken_of, "decoys calibrate, they are not reported"


@every_detector
def test_too_few_rows_are_inconclusive(name):
    reference = rows(name, 80, 1)
    detector = prepared(name, reference)
    result = detector.test(detector.map(rows(name, 8, 3)), detector.map(reference))
    assert verdicts_of(result.findings) == {Verdict.INCONCLUSIVE}


@every_model_based_detector
@pytest.mark.parametrize("short", ["data", "reference"])
def test_rows_that_the_model_cannot_read_do_not_count(name, short):
    """The known models' contexts hold fewer than 600 tokens; 5 rows of 60 fit into them."""
    text = " 100" if name == "transfer" else "1"
    long = synthetic.frame([text * 600] * 55 + rows(name, 5, 3)["completion"].to_list())
    data, reference = (long, rows(name, 80, 1)) if short == "data" else (rows(name, 80, 1), long)
    detector = prepared(name, reference, most_tokens=500)
    result = detector.test(detector.map(data), detector.map(reference))
    wanted = Reason.TOO_FEW_ROWS if short == "data" else Reason.NO_REFERENCE
    assert verdicts_of(result.findings) == {Verdict.INCONCLUSIVE}
    assert {finding.reason for finding in result.findings} == {wanted}


@every_detector
def test_a_set_against_itself_flags_nothing(name):
    same = rows(name, 100 if name in ACCESS else 300, 4)
    detector = prepared(name, same)
    state = detector.map(same)
    assert Verdict.FLAGGED not in verdicts_of(detector.test(state, state).findings)


@every_detector
def test_what_is_not_detected_says_what_it_could_have_seen(name):
    reference, data = clean_rows(name, 5), clean_rows(name, 6)
    detector = prepared(name, reference)
    settled = settle(detector.test(detector.map(data), detector.map(reference)).findings, 0.05)
    assert {finding.verdict for finding in settled} <= {Verdict.NOT_DETECTED, Verdict.INCONCLUSIVE}
    quiet = [finding for finding in settled if finding.verdict is Verdict.NOT_DETECTED]
    assert quiet
    for finding in quiet:
        assert finding.smallest_detectable_effect > 0
        assert np.isfinite(finding.p_value)
        assert np.isfinite(finding.q_value)
