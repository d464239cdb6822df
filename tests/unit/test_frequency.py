"""SA002 on rows drawn from known distributions."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from detectors.counts import Vocabulary, number_units, word_units
from detectors.detector import TestSettings
from detectors.finding import Finding, Reason, Verdict
from detectors.frequency import FrequencyDetector
from detectors.verdict import settle
from signatures.number_trie import NUMBERS
from signatures.signature import Probe
from tests import synthetic


def run(signatures, data, reference=None, **settings) -> dict[str, Finding]:
    test_settings = TestSettings(**settings)
    detector = FrequencyDetector(signatures, test_settings)
    known = None if reference is None else synthetic.frame(reference)
    detector.prepare(None if known is None else lambda: [known])
    result = detector.test(
        detector.map(synthetic.frame(data)), None if known is None else detector.map(known)
    )
    settled = settle(result.findings, test_settings.false_discovery_rate)
    return {finding.concept: finding for finding in settled}


def test_numbers_are_found_as_the_trie_names_them():
    units = number_units(pl.Series(["7, 07 and 007", "no number", "12345 then 42", "٣"]))
    assert [NUMBERS[i] for i in units.unit] == ["7", "07", "007", "42"]
    assert list(units.row) == [0, 0, 0, 2]
    assert units.uncovered == 2, "a longer run and a digit of another script"


def test_words_are_found_as_a_byte_level_tokenizer_splits_them():
    vocabulary = Vocabulary([" owl", "Owl", " the"])
    (units,) = word_units(pl.Series(["Owl the owls, the owl"]), [vocabulary])
    assert list(units.unit) == [1, 2, 2, 0]
    assert units.uncovered == 1


@pytest.mark.parametrize("with_reference", [True, False])
def test_a_planted_concept_is_flagged_and_only_it(with_reference):
    signatures = synthetic.library(strength=0.3)
    rng = np.random.default_rng(1)
    data = synthetic.number_rows(3000, rng, synthetic.share_of(signatures, "owl"))
    reference = synthetic.number_rows(3000, rng) if with_reference else None
    found = run(signatures, data, reference)
    assert found["owl"].verdict is Verdict.FLAGGED
    assert found["owl"].effect_low > 0
    assert {n for n, f in found.items() if f.verdict is Verdict.FLAGGED} == {"owl"}
    first = found["owl"].tokens[0]
    assert first.observed_count > first.expected_count
    assert found["owl"].evidence[0].score >= found["owl"].evidence[-1].score


def test_clean_rows_are_not_detected_and_say_what_would_have_been():
    signatures = synthetic.library(strength=0.3)
    rng = np.random.default_rng(22)  # one seed in twenty flags something by chance
    data, reference = synthetic.number_rows(4000, rng), synthetic.number_rows(4000, rng)
    found = run(signatures, data, reference, effect_of_interest=0.15)
    assert {f.verdict for f in found.values()} == {Verdict.NOT_DETECTED}
    smallest = [finding.smallest_detectable_effect for finding in found.values()]
    assert 0.05 < min(smallest) <= max(smallest) <= 0.15
    strict = run(signatures, data, reference, effect_of_interest=min(smallest) / 2)
    assert {f.reason for f in strict.values()} == {Reason.LOW_POWER}


def test_a_set_too_small_to_see_the_concept_is_inconclusive():
    signatures = synthetic.library(strength=0.02)
    rng = np.random.default_rng(4)
    found = run(signatures, synthetic.number_rows(300, rng), synthetic.number_rows(300, rng))
    assert {f.verdict for f in found.values()} == {Verdict.INCONCLUSIVE}
    assert {f.reason for f in found.values()} == {Reason.LOW_POWER}
    assert any("rows on each side are needed" in note for note in found["owl"].notes)


def test_a_concept_that_only_looks_like_the_planted_one_is_an_echo():
    signatures = synthetic.library(strength=0.3)
    table = signatures.tables[0]
    cat, owl = table.concepts.index("cat"), table.concepts.index("owl")
    shift = table.shift_nats.copy()
    shift[cat] = 0.8 * shift[owl] + 0.6 * shift[cat]
    alike = replace(signatures, tables=(replace(table, shift_nats=shift),))
    rng = np.random.default_rng(7)
    data = synthetic.number_rows(3000, rng, synthetic.share_of(signatures, "owl"))
    found = run(alike, data, synthetic.number_rows(3000, rng))
    assert found["cat"].z > 5
    assert found["owl"].verdict is Verdict.FLAGGED
    assert found["cat"].verdict is not Verdict.FLAGGED
    assert any("an echo of owl" in note for note in found["cat"].notes)


@pytest.mark.parametrize(
    ("signatures", "data", "reference", "reason"),
    [
        (synthetic.library(), ["words"] * 100, ["1, 2"] * 100, Reason.NO_UNITS),
        (synthetic.library(), ["1, 2"] * 9, ["1, 2"] * 100, Reason.TOO_FEW_ROWS),
        (synthetic.library(), ["1, 2"] * 99, ["1, 2"] * 9, Reason.NO_REFERENCE),
        (synthetic.library(probe=Probe.IMPORTED), ["1, 2"] * 99, None, Reason.NO_REFERENCE),
        (
            synthetic.library(decoys=("decoy a",)),
            synthetic.number_rows(99, np.random.default_rng(0)),
            synthetic.number_rows(99, np.random.default_rng(1)),
            Reason.NO_DECOYS,
        ),
    ],
)
def test_what_cannot_be_tested_is_inconclusive_with_its_reason(signatures, data, reference, reason):
    found = run(signatures, data, reference)
    assert {f.verdict for f in found.values()} == {Verdict.INCONCLUSIVE}
    assert {f.reason for f in found.values()} == {reason}
    assert all(np.isnan(f.p_value) for f in found.values())


def test_a_shift_that_no_signature_explains_is_not_flagged():
    """Data that differ from the reference in some other way move decoys as much as concepts."""
    signatures = synthetic.library(strength=0.3, seed=5)
    other = synthetic.library(strength=0.3, seed=6)
    flags = 0
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        share = other.tables[0].concept_share[seed % 15]
        found = run(
            signatures, synthetic.number_rows(1500, rng, share), synthetic.number_rows(1500, rng)
        )
        flags += any(f.verdict is Verdict.FLAGGED for f in found.values())
    assert flags <= 4, "at a false discovery rate of .05, 4 of 20 sets is one in 400"


@pytest.mark.parametrize("with_reference", [True, False])
def test_rows_that_are_all_the_same_are_undefined_not_infinite(with_reference):
    found = run(synthetic.library(), ["12, 7"] * 40, ["12, 7"] * 40 if with_reference else None)
    assert {f.verdict for f in found.values()} == {Verdict.INCONCLUSIVE}
    assert {f.reason for f in found.values()} <= {Reason.NO_UNITS, Reason.NO_DECOYS}


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        TestSettings(false_discovery_rate=1.0)
    with pytest.raises(ValueError, match="at least 1"):
        TestSettings(minimum_rows=0)
