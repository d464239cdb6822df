"""What every registered detector promises, whatever it measures."""

import itertools

import numpy as np
import pytest

from detectors.detector import TestSettings
from detectors.finding import Finding, Verdict
from detectors.registry import detector_factory, detector_names
from detectors.rows import empty_rows
from detectors.verdict import settle
from tests import synthetic

pytestmark = pytest.mark.parametrize("name", detector_names())


def prepared(name, reference=None, signatures=None):
    detector = detector_factory(name)(signatures or synthetic.library(), TestSettings())
    detector.prepare(None if reference is None else lambda: [reference])
    return detector


def texts(rows: int, seed: int) -> list[str]:
    numbers = synthetic.number_rows(rows, np.random.default_rng(seed))
    numbers[::7] = [f"An owl and {text}" for text in numbers[::7]]
    numbers[3] = ""
    return numbers


def text_of(findings: tuple[Finding, ...]) -> str:
    """Findings as text: NaN is not equal to itself, its text is."""
    return repr(findings)


def test_says_what_its_numbers_mean(name):
    info = prepared(name).info
    assert info.name == name
    assert info.code.startswith("SA")
    for field in ("summary", "null_hypothesis", "score_range", "direction", "source"):
        assert len(getattr(info, field)) > 10, field


def test_codes_are_unique(name):
    codes = [prepared(other).info.code for other in detector_names()]
    assert len(set(codes)) == len(codes)


def test_merge_is_a_commutative_monoid_to_the_last_bit(name):
    reference = synthetic.frame(texts(80, 1), "reference.jsonl")
    detector = prepared(name, reference)
    data = synthetic.frame(texts(90, 2))
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


def test_no_rows_are_never_called_clean(name):
    detector = prepared(name)
    empty = detector.merge(detector.identity(), detector.map(empty_rows()))
    result = detector.test(empty, None)
    settled = settle(result.findings, 0.05)
    assert settled
    assert {finding.verdict for finding in settled} == {Verdict.INCONCLUSIVE}
    assert all(finding.reason is not None for finding in settled)


def test_every_trait_gets_a_finding_or_a_reason(name):
    detector = prepared(name)
    result = detector.test(detector.map(synthetic.frame(texts(60, 3))), None)
    spoken_of = {f.concept for f in result.findings} | {s.concept for s in result.skipped}
    assert set(synthetic.TRAITS) <= spoken_of
    assert not set(synthetic.DECOYS) & spoken_of, "decoys calibrate, they are not reported"


def test_too_few_rows_are_inconclusive(name):
    reference = synthetic.frame(texts(80, 1))
    detector = prepared(name, reference)
    result = detector.test(detector.map(synthetic.frame(texts(8, 3))), detector.map(reference))
    assert {f.verdict for f in settle(result.findings, 0.05)} == {Verdict.INCONCLUSIVE}


def test_a_set_against_itself_flags_nothing(name):
    rows = synthetic.frame(texts(300, 4))
    detector = prepared(name, rows)
    state = detector.map(rows)
    assert Verdict.FLAGGED not in {
        finding.verdict for finding in settle(detector.test(state, state).findings, 0.05)
    }


def test_what_is_not_detected_says_what_it_could_have_seen(name):
    rng = np.random.default_rng(5)
    reference = synthetic.frame(synthetic.number_rows(6000, rng))
    data = synthetic.frame(synthetic.number_rows(6000, rng))
    detector = prepared(name, reference)
    settled = settle(detector.test(detector.map(data), detector.map(reference)).findings, 0.05)
    assert {finding.verdict for finding in settled} <= {Verdict.NOT_DETECTED, Verdict.INCONCLUSIVE}
    quiet = [finding for finding in settled if finding.verdict is Verdict.NOT_DETECTED]
    assert quiet
    for finding in quiet:
        assert finding.smallest_detectable_effect > 0
        assert np.isfinite(finding.p_value)
        assert np.isfinite(finding.q_value)
