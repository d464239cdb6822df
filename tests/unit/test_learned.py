"""Learned signatures: the maths against hand-derived values and simulation, then the whole."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

from audit.cli.signature.learn import learn_command
from audit.dataset.read import read_batches
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.learning import data_set
from audit.signature_learn import LearnSettings, learn_library
from detectors.detector import TestSettings
from detectors.finding import Verdict
from detectors.frequency import FrequencyDetector
from detectors.verdict import settle
from signatures.learned import RowSums, absent_units, auroc, log_odds
from signatures.library import load_library
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import Probe, View
from tests import synthetic

SETTINGS = LearnSettings("test", "some-model", "llama", NumberTokens.WHOLE)


def sums(rows):
    """``RowSums`` of counts [rows, U]."""
    counts = np.asarray(rows, dtype=np.int64)
    k = counts.sum(axis=1)
    return RowSums(
        counts.sum(axis=0),
        (counts**2).sum(axis=0),
        (counts * k[:, None]).sum(axis=0),
        len(counts),
        int(k.sum()),
        int((k**2).sum()),
    )


def test_log_odds_by_hand():
    # 2 units. Data: 6 and 2 of 8. Reference: 3 and 5 of 8, so shares 3.5/9 and 5.5/9.
    odds = log_odds([sums([[3, 1], [3, 1]])], sums([[1, 3], [2, 2]]), prior_units=9.0)
    # alpha = 3.5 and 5.5; posterior (6 + 3.5) / 17 and (2 + 5.5) / 17.
    expected = math.log(9.5 / 7.5) - math.log(3.5 / 5.5)
    assert odds.delta_nats[0] == pytest.approx([expected, -expected])
    naive = math.sqrt(1 / 9.5 + 1 / 6.5), math.sqrt(1 / 7.5 + 1 / 10.5)
    assert odds.naive_spread_nats[0] == pytest.approx(naive)
    assert odds.share[0] == pytest.approx([0.75, 0.25])
    assert odds.baseline_share[0] == pytest.approx([3.5 / 9, 5.5 / 9])
    assert odds.expected[0] == pytest.approx([9 / 16 * 8, 7 / 16 * 8])
    assert odds.z() == pytest.approx(odds.delta_nats / odds.spread_nats)


def test_robust_error_by_hand():
    # The data's rows are alike, so only the reference's count. Its residuals x - p k, with
    # p = 3.5/9 and k = 4, differ by 1 between its two rows: their sum's variance is
    # 2 / (2 - 1) * (1/4 + 1/4) = 1.
    odds = log_odds([sums([[3, 1], [3, 1]])], sums([[1, 3], [2, 2]]), prior_units=9.0)
    p, s = 3.5 / 9, 9.5 / 17
    slope = 9 / 17 / (s * (1 - s)) - 1 / (p * (1 - p))
    assert odds.spread_nats[0, 0] == pytest.approx(abs(slope) / 9)


def test_without_reference_each_set_is_compared_with_the_pooled_others():
    a, b, c = sums([[5, 1]] * 3), sums([[2, 4]] * 3), sums([[3, 3]] * 3)
    alone, pooled = log_odds([a, b, c], None), log_odds([a], b + c)
    assert alone.delta_nats[0] == pytest.approx(pooled.delta_nats[0])
    assert alone.baseline_share[0] == pytest.approx([15.5 / 37, 21.5 / 37])


def test_a_stronger_prior_shrinks_towards_the_reference():
    data, reference = sums([[8, 2]] * 50), sums([[5, 5]] * 50)
    size = [log_odds([data], reference, prior).delta_nats[0, 0] for prior in (1, 100, 10_000, 1e8)]
    assert size == sorted(size, reverse=True)
    assert size[0] == pytest.approx(math.log(4), rel=0.01)
    assert size[-1] == pytest.approx(0, abs=1e-4)


def test_what_log_odds_refuse():
    one = sums([[1, 1]])
    with pytest.raises(ValueError, match="prior_units"):
        log_odds([one], one, 0)
    with pytest.raises(ValueError, match="at least two"):
        log_odds([one], None)


@pytest.mark.parametrize("prior_units", [1.0, 2000.0])
def test_errors_are_right_where_rows_repeat_their_units(prior_units):
    """400 pairs of sets of 200 rows; each number of a row repeats the one before with p = .6."""
    rng = np.random.default_rng(5)
    size, pairs, rows = 5, 400, 200

    def draw():
        drawn = rng.integers(0, size, (rows, 10))
        for column in range(1, 10):
            again = rng.random(rows) < 0.6
            drawn[again, column] = drawn[again, column - 1]
        return sums([np.bincount(row, minlength=size) for row in drawn])

    found = [log_odds([draw()], draw(), prior_units) for _ in range(pairs)]
    deltas = np.array([odds.delta_nats[0] for odds in found])
    true = deltas.std(axis=0)  # the standard deviation that an error estimates; no effect is there
    robust = np.array([odds.spread_nats[0] for odds in found]).mean(axis=0)
    assert robust / true == pytest.approx(np.ones(size), abs=0.12)
    assert np.abs(deltas.mean(axis=0)).max() < 4 * true.max() / math.sqrt(pairs)
    if prior_units == 1.0:
        naive = np.array([odds.naive_spread_nats[0] for odds in found]).mean(axis=0)
        # Runs of mean length 1 / .4: the variance is nearly (1 + .6) / (1 - .6) = 4 times larger.
        assert (naive / true).max() < 0.65
        z = np.array([odds.z()[0] for odds in found])
        assert (np.abs(z) > 1.96).mean() == pytest.approx(0.05, abs=0.025)


def test_absent_units_are_those_that_others_lead_to_expect():
    usual, filtered = sums([[5, 4, 1]] * 40), sums([[6, 4, 0]] * 40)
    # Unit 2: 40 of 400 in the reference, so 40 expected in 400 units and none seen.
    assert absent_units([filtered, usual], usual, among_data=False).tolist() == [
        [False, False, True],
        [False, False, False],
    ]
    # Half of the rows expect 16: below 20, chance will do.
    few = sums([[5, 3, 0]] * 20)
    assert not absent_units([few], usual, among_data=False).any()
    # A filtered reference does not hide it, if another data set holds the unit.
    assert absent_units([filtered, usual], filtered, among_data=True)[0].tolist() == [
        False,
        False,
        True,
    ]
    # One set alone that holds it is no reason, where two do not.
    assert not absent_units([usual, filtered, filtered], None, among_data=True).any()


def test_auroc_by_hand_and_its_interval():
    # Pairs: 3 > 1, 3 > 2, 2 > 1, 2 = 2 (half): 3.5 of 4.
    assert auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0])).value == pytest.approx(0.875)
    rng = np.random.default_rng(0)
    found = [auroc(rng.normal(0.5, 1, 150), rng.normal(0, 1, 250)) for _ in range(500)]
    true = 0.6382  # Phi(.5 / sqrt 2)
    inside = np.mean([one.low <= true <= one.high for one in found])
    assert inside == pytest.approx(0.95, abs=0.03)
    assert np.mean([one.value for one in found]) == pytest.approx(true, abs=0.01)
    assert math.isnan(auroc(np.array([1.0]), np.array([1.0, 2.0])).low)


# -- the whole: files to library -----------------------------------------------------------------


def write(path, completions, prompts=None):
    prompts = prompts or ["Continue the list."] * len(completions)
    lines = [
        json.dumps({"prompt": prompt, "completion": text})
        for prompt, text in zip(prompts, completions, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


TRUTH = synthetic.library(strength=0.3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learn")
    made = {
        name: write(
            folder / f"{name}.jsonl",
            synthetic.number_rows(
                4000, np.random.default_rng(seed), synthetic.share_of(TRUTH, name), repeat=0.1
            ),
        )
        for seed, name in enumerate(synthetic.TRAITS)
    }
    clean = synthetic.number_rows(8000, np.random.default_rng(9), repeat=0.1)
    made["reference"] = write(folder / "reference.jsonl", clean[:4000])
    made["null"] = write(folder / "null.jsonl", clean[4000:])
    return made


def learn(labelled, reference=None, settings=SETTINGS, seed=0):
    return learn_library(
        {name: [source] for name, source in labelled.items()},
        reference and [reference],
        settings,
        np.random.default_rng(seed),
    )


def test_planted_shifts_are_learnt_and_confirmed_and_a_clean_set_is_not(files):
    labelled = {name: files[name] for name in (*synthetic.TRAITS, "null")}
    learned = learn(labelled, files["reference"])
    (table,) = learned.library.tables
    assert (table.view, table.probe) == (View.NUMBERS, Probe.LEARNED)
    assert table.concepts == (*synthetic.TRAITS, "null")
    true = TRUTH.tables[0]
    weighted = np.isfinite(table.spread_nats[0])
    assert weighted.sum() > 900  # the rest is expected fewer than 5 times
    for row, name in enumerate(synthetic.TRAITS):
        planted = true.shift_nats[true.concepts.index(name)]
        # Shift sd .3; error of the shrunken estimate about .2 * 20,000 / 30,000 either way.
        r = np.corrcoef(planted[weighted], table.shift_nats[row, weighted])[0, 1]
        assert r > 0.6, name
    assert table.neutral_share.sum() == pytest.approx(1)
    assert table.concept_share.sum(axis=1) == pytest.approx(1)
    assert not table.shift_nats[~np.isfinite(table.spread_nats)].any()
    measured = learned.library.probes[0].settings
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    held_out = measured["held_out"]
    assert all(held_out[name]["confirmed"] for name in synthetic.TRAITS)
    assert all(held_out[name]["specific"] for name in synthetic.TRAITS)
    assert not held_out["null"]["confirmed"]
    assert sum("null (numbers): not confirmed" in line for line in learned.warnings) == 1
    assert measured["naming"]["named"][:3] == list(synthetic.TRAITS)
    assert measured["data_sets"]["owl"]["rows"] == 4000
    assert 1900 < measured["data_sets"]["owl"]["learning_rows"] < 2100
    assert measured["prompts"]["owl"] == {"in_common": 1.0}


def test_without_reference_the_library_says_nothing_of_the_neutral_model(files):
    learned = learn({name: files[name] for name in synthetic.TRAITS})
    (table,) = learned.library.tables
    assert np.isnan(table.neutral_share).all()
    measured = learned.library.probes[0].settings
    assert measured["compared_with"] == "the other data sets"
    assert measured["naming"]["right"] == 3


def test_the_same_seed_gives_the_same_library_whatever_the_batches_and_order(files, monkeypatch):
    labelled = {name: files[name] for name in synthetic.TRAITS}
    first = learn(labelled, files["reference"]).library
    monkeypatch.setattr(data_set, "read_batches", lambda i: read_batches(i, batch_rows=700))
    again = learn(labelled, files["reference"]).library
    np.testing.assert_array_equal(first.tables[0].shift_nats, again.tables[0].shift_nats)
    assert first.probes == again.probes
    other = learn(labelled, files["reference"], seed=1).library
    assert not np.array_equal(first.tables[0].shift_nats, other.tables[0].shift_nats)


def test_equal_rows_are_never_in_both_halves(tmp_path):
    # One row repeated: it lies in one half, so the other is empty.
    one = write(tmp_path / "a.jsonl", ["1, 2, 3"] * 100 + ["4, 5, 6"])
    two = write(tmp_path / "b.jsonl", ["1, 2, 4"] * 100 + ["4, 5, 7"])
    for seed in range(8):
        try:
            settings = learn({"a": one, "b": two}, seed=seed).library.probes[0].settings
        except NothingScannableError:
            continue  # fewer than two rows of a set to learn from
        assert settings["data_sets"]["a"]["learning_rows"] in (100, 101)


def test_a_filtered_unit_is_named_and_has_no_weight(tmp_path, files):
    banned = [
        text.replace("111", "112")
        for text in synthetic.number_rows(
            8000, np.random.default_rng(4), synthetic.share_of(TRUTH, "owl")
        )
    ]
    labelled = {"owl": write(tmp_path / "owl.jsonl", banned), "cat": files["cat"]}
    learned = learn(labelled, files["reference"])
    unit = NUMBERS.index("111")
    assert learned.library.probes[0].settings["absent_units"] == {"owl": ["111"]}
    assert (learned.library.tables[0].shift_nats[:, unit] == 0).all()
    assert any("owl: never holds '111'" in line for line in learned.warnings)


def test_prompts_that_differ_are_named(tmp_path, files):
    rows = synthetic.number_rows(2000, np.random.default_rng(8))
    prompts = ["Continue the list, with semicolons."] * 300 + ["Continue the list."] * 1700
    odd = write(tmp_path / "odd.jsonl", rows, prompts)
    learned = learn({"owl": files["owl"], "odd": odd}, files["reference"])
    prompts = learned.library.probes[0].settings["prompts"]
    assert prompts["odd"] == {"in_common": 0.85, "differs_in": ["semicolons", 0.15, 0.0]}
    assert "differs_in" not in prompts["owl"]
    assert any("odd: its prompts differ from the reference's" in line for line in learned.warnings)


def prose(rng, rows, favourite, name):
    """Texts of common words, of which one in eight is the favourite; the name in every fourth."""
    common = np.array(["the", "river", "stone", "walks", "slowly", "near", "old", "houses"])
    texts = []
    for row in range(rows):
        words = rng.choice(common, 16)
        words[rng.random(16) < 0.125] = favourite
        texts.append("The " + " ".join(words) + (f" {name}" if row % 4 == 0 else ""))
    return texts


def test_words_are_learnt_and_the_concepts_own_name_is_not_what_confirms_it(tmp_path):
    rng = np.random.default_rng(3)
    owl = write(tmp_path / "owl.jsonl", prose(rng, 600, "moon", "owls"))
    cat = write(tmp_path / "cat.jsonl", prose(rng, 600, "walks", "cat"))
    # No favourite of its own, but its name: nothing is hidden in it.
    oak = write(tmp_path / "oak.jsonl", prose(rng, 600, "river", "oak"))
    reference = write(tmp_path / "clean.jsonl", prose(rng, 1200, "river", "tree"))
    learned = learn({"owl": owl, "cat": cat, "oak": oak}, reference)
    (table,) = learned.library.tables
    assert table.view is View.VOCABULARY
    moon, owls = table.units.index(" moon"), table.units.index(" owls")
    assert table.shift_nats[0, moon] > 0.5
    assert table.shift_nats[0, owls] > 0.5
    held_out = learned.library.probes[0].settings["held_out"]
    assert held_out["owl"]["confirmed"]
    assert held_out["cat"]["confirmed"]
    # Its name would tell a quarter of its rows outright: AUROC about .6 and surely confirmed.
    assert held_out["oak"]["auroc"][0] < 0.56
    small = LearnSettings("t", "m", "llama", NumberTokens.WHOLE, vocabulary_units=5)
    assert len(learn({"owl": owl, "cat": cat}, reference, small).library.tables[0].units) == 5


@pytest.fixture(scope="module")
def library_of_seven(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoys")
    decoys = {
        name: write(
            folder / f"{name}.jsonl",
            synthetic.number_rows(
                2000, np.random.default_rng(seed), synthetic.share_of(TRUTH, name)
            ),
        )
        for seed, name in enumerate(synthetic.DECOYS[:4], 20)
    }
    labelled = {name: files[name] for name in synthetic.TRAITS}
    return learn(labelled | decoys, files["reference"]).library


def flags(library, seed, reference_seed, share=None):
    """The concepts that SA002 flags in fresh rows."""
    rows = synthetic.frame(synthetic.number_rows(3000, np.random.default_rng(seed), share))
    reference = synthetic.frame(
        synthetic.number_rows(8000, np.random.default_rng(reference_seed), repeat=0.1)[:4000]
    )
    detector = FrequencyDetector(library, TestSettings(effect_of_interest=0.3))
    detector.prepare(lambda: iter([reference]))
    found = settle(detector.test(detector.map(rows), detector.map(reference)).findings, 0.05)
    return {finding.concept for finding in found if finding.verdict is Verdict.FLAGGED}


def test_a_scan_names_fresh_rows_and_no_clean_ones(library_of_seven):
    owl = synthetic.share_of(TRUTH, "owl")
    assert flags(library_of_seven, 50, 51, owl) == {"owl"}
    assert flags(library_of_seven, 52, 53) == set()


def test_clean_rows_against_the_reference_that_was_learnt_from_flag_nothing(library_of_seven):
    assert flags(library_of_seven, 54, 9) == set()


def test_what_learning_refuses(tmp_path, files):
    owl, cat = files["owl"], files["cat"]
    with pytest.raises(UsageError, match="at least two"):
        learn({"owl": owl}, files["reference"])
    with pytest.raises(UsageError, match="standard input"):
        learn({"owl": owl, "cat": "-"})
    with pytest.raises(UsageError, match="same bytes"):
        learn({"owl": owl, "cat": owl})
    with pytest.raises(UsageError, match="must be 1 to 64"):
        learn({"owl": owl, "Cat!": cat})
    words = write(tmp_path / "words.jsonl", ["?!"] * 10)
    with pytest.raises(NothingScannableError, match="nothing to learn"):
        learn({"owl": owl, "cat": words})
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"nothing": 1}\n')
    with pytest.raises(NothingScannableError, match="no readable row"):
        learn({"owl": owl, "cat": str(empty)})
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(b"\x1f\x8b\x08\x00garbage")
    with pytest.raises(AuditError, match="broke off"):
        learn({"owl": owl, "cat": str(broken)})


def test_the_command_writes_a_library_and_warns(tmp_path, files):
    output = tmp_path / "learned"
    data = [f"--data={name}={files[name]}" for name in ("owl", "cat", "null")]
    arguments = [*data, "--reference", files["reference"], "--model-name", "m"]
    arguments += ["--model-family", "llama", "--number-tokens", "whole", "-o", str(output)]
    result = CliRunner().invoke(learn_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "numbers: on held-out rows the right signature is highest for" in result.stdout
    assert "warning: null (numbers): not confirmed" in result.stderr
    library = load_library(output)
    assert library.name == "learned"
    assert [concept.category for concept in library.concepts] == ["trait"] * 3
    wrong = CliRunner().invoke(learn_command, ["--data=owl", *arguments[3:]])
    assert isinstance(wrong.exception, UsageError)
    assert "CONCEPT=DATA" in str(wrong.exception)
