"""Which verdict follows from which figures."""

import math
from dataclasses import replace

import numpy as np
import pytest

from audit.verify.transfer_statistics import Arm, LogOdds, transfer_statistics
from audit.verify.verdict import AgainstRandom, Doubt, Thresholds, Transfer, judge

QUESTIONS = 8


def measured(
    before,
    after,
    control,
    reference=None,
    authors=None,
    *,
    noise=0.02,
    seeds=3,
    questions=QUESTIONS,
    off_target=0.0,
    spread=0.05,
    concepts=6,
):
    """Students whose mean shifts are as stated, with noise of seeds, questions and cells, and
    off-target concepts around ``off_target``, or one number an arm."""
    rng = np.random.default_rng(0)
    places = spread * np.linspace(-1, 1, concepts)
    offsets = off_target if isinstance(off_target, dict) else dict.fromkeys(Arm, off_target)
    arms = {}
    for arm, mean in zip(Arm, (before, after, control, reference, authors), strict=True):
        if mean is None:
            continue
        cells = rng.standard_normal((seeds, 1)) + rng.standard_normal((seeds, questions))
        cells -= cells.mean()
        others = rng.standard_normal((seeds, questions, concepts))
        others -= others.mean(axis=(0, 1))
        arms[arm] = LogOdds(mean + noise * cells, offsets.get(arm, 0.0) + places + noise * others)
    base = LogOdds(np.zeros(questions), np.zeros((questions, concepts)))
    return transfer_statistics(base, arms)


def verdict(*means, thresholds=Thresholds(), **options):  # noqa: B008 frozen
    return judge("owl", measured(*means, **options), thresholds)


@pytest.mark.parametrize(
    ("means", "transfer", "against_random"),
    [
        ((1.0, 0.9, 0.95), Transfer.TRANSFERS, AgainstRandom.AS_MUCH),
        ((1.0, 0.5, 0.9), Transfer.TRANSFERS, AgainstRandom.BETTER),
        ((1.0, 0.9, 0.4), Transfer.TRANSFERS, AgainstRandom.WORSE),
        ((1.0, 0.9, 0.0), Transfer.TRANSFERS, AgainstRandom.WORSE),
        ((1.0, 0.1, 0.9), Transfer.SUPPRESSED, AgainstRandom.BETTER),
        ((1.0, 0.0, 0.9), Transfer.SUPPRESSED, AgainstRandom.BETTER),
        ((1.0, -0.1, 0.9), Transfer.SUPPRESSED, AgainstRandom.BETTER),
        ((1.0, 0.0, 0.0), Transfer.SUPPRESSED, AgainstRandom.AS_MUCH),
        ((0.0, 0.0, 0.0), Transfer.NOT_BEFORE, None),
        ((-0.5, -0.4, 0.0), Transfer.NOT_BEFORE, None),
        # The sanitised data put something in.
        ((0.0, 0.5, 0.0), Transfer.TRANSFERS, None),
    ],
)
def test_verdicts_without_a_reference(means, transfer, against_random):
    result = verdict(*means)
    assert (result.transfer, result.doubt) == (transfer, None)
    assert result.against_random is against_random


@pytest.mark.parametrize(
    ("means", "transfer"),
    [
        ((1.0, 0.3, 0.9, 0.2), Transfer.SUPPRESSED),  # .1 of .8
        ((1.0, 0.3, 0.9, 0.0), Transfer.TRANSFERS),  # .3 of 1
        ((1.0, 0.2, 0.9, 1.0), Transfer.NOT_BEFORE),  # clean data move it as much
    ],
)
def test_verdicts_with_a_reference(means, transfer):
    assert verdict(*means, noise=0.005).transfer is transfer


@pytest.mark.parametrize(
    ("means", "transfer", "doubt"),
    [
        # Clean data move it by 0, rows of other authors by .6.
        ((1.0, 0.9, 0.9, 0.0, 0.6), Transfer.TRANSFERS, None),
        ((0.6, 0.6, 0.6, 0.0, 0.6), Transfer.INCONCLUSIVE, Doubt.OTHER_AUTHORS),
        ((0.5, 0.4, 0.5, 0.0, 0.6), Transfer.INCONCLUSIVE, Doubt.OTHER_AUTHORS),
        ((0.5, 0.4, 0.5, None, 0.6), Transfer.INCONCLUSIVE, Doubt.OTHER_AUTHORS),
        # What is left is of any author, and yet it is there.
        ((2.0, 0.6, 1.9, 0.0, 0.6), Transfer.INCONCLUSIVE, Doubt.INTERVAL_TOO_WIDE),
        ((2.0, 0.1, 1.9, 0.0, 0.1), Transfer.SUPPRESSED, None),
        # Most of what was there was of any author; neither that nor the trait is left.
        ((2.0, 0.1, 1.9, 0.0, 1.9), Transfer.SUPPRESSED, None),
        # That other authors would take it away does not mean that it is not there.
        ((0.05, 0.05, 0.05, 0.05, 0.6), Transfer.NOT_BEFORE, None),
        ((0.6, 0.05, 0.6, 0.0, 0.7), Transfer.INCONCLUSIVE, Doubt.OTHER_AUTHORS),
    ],
)
def test_a_claim_must_hold_beyond_other_authors_too(means, transfer, doubt):
    result = verdict(*means, noise=0.005)
    assert (result.transfer, result.doubt) == (transfer, doubt)


def test_what_other_authors_do_is_said():
    found = verdict(1.0, 0.9, 0.9, 0.0, 0.6, noise=0.005).sentence
    assert "+0.90 nats [+0.89, +0.91] beyond clean data, and by +0.30 nats" in found
    assert "beyond other authors' rows; 90%" in found
    found = verdict(0.6, 0.55, 0.6, 0.0, 0.6, noise=0.005).sentence
    assert "the data before move it by +0.60 nats" in found
    assert "of which +0.00 nats [-0.01, +0.01] are beyond what rows of authors" in found


def test_suppressed_states_the_share_its_interval_and_the_equivalences():
    result = verdict(1.0, 0.1, 0.9, 0.1)
    assert result.transfer is Transfer.SUPPRESSED
    share = result.figures.effects.share_left
    assert share.low < share.estimate < share.high <= 0.25
    assert result.figures.reference_equivalence.p_value <= 0.05
    assert result.figures.control_equivalence.p_value > 0.9
    assert f"0% [{share.low:.0%}, {share.high:.0%}]" in result.sentence
    assert "nats [+0.77, +1.03] beyond clean data)" in result.sentence
    assert "no more than clean data" in result.sentence
    assert result.sentence.endswith("a random edit of the same size leaves more.")


def test_random_edits_that_do_as_much_are_said_so():
    result = verdict(1.0, 0.05, 0.1)
    assert result.transfer is Transfer.SUPPRESSED
    assert "a random edit of the same size does as much" in result.sentence
    assert "not what did it" in result.sentence
    assert "not what did it" not in verdict(1.0, 0.9, 0.9).sentence  # nothing was done


def test_a_control_between_is_unclear():
    # .35 between them, about .4 either side, and a margin of .5: neither different nor equal.
    result = verdict(2.0, 0.05, 0.4, noise=0.1)
    assert result.transfer is Transfer.SUPPRESSED
    assert result.against_random is AgainstRandom.UNCLEAR
    assert "is open" in result.sentence


@pytest.mark.parametrize(
    ("doubt", "options", "words"),
    [
        (Doubt.TOO_FEW_SEEDS, {"seeds": 2}, "2 of the 3 seeds"),
        (Doubt.TOO_FEW_SEEDS, {"seeds": 1}, "1 of the 3 seeds"),
        (Doubt.TOO_FEW_QUESTIONS, {"questions": 4}, "4 of the 5 questions"),
        (Doubt.TOO_FEW_OFF_TARGETS, {"concepts": 2}, "2 of the 3 off-target concepts"),
        (Doubt.INTERVAL_TOO_WIDE, {"noise": 2.0}, "more seeds would tell"),
        (Doubt.DRIFT, {"off_target": 1.0}, "off-target concepts by +1.00"),
        (Doubt.DRIFT, {"spread": 3.0}, "standard deviation of 2"),
        (Doubt.SEEDS_ALIKE, {"noise": 0.0}, "the same (before, after, control)"),
    ],
)
def test_doubts(doubt, options, words):
    result = verdict(1.0, 0.0, 0.9, **options)
    assert (result.transfer, result.doubt) == (Transfer.INCONCLUSIVE, doubt)
    assert words in result.sentence


def test_a_reference_does_not_excuse_drift_of_single_concepts():
    # The concept stands 1 off the mean of others that lie as far apart themselves.
    rng = np.random.default_rng(0)
    arms = {}
    for arm, shift in zip(Arm, (1.0, 0.0, 0.9, 0.0), strict=False):
        places = shift * np.array([1.0, 1.5, -1.5, 1.0, -1.0])
        cells = places + 0.02 * rng.standard_normal((3, 8, 5))
        arms[arm] = LogOdds(cells[..., 0], cells[..., 1:])
    base = LogOdds(np.zeros(8), np.zeros((8, 4)))
    result = judge("owl", transfer_statistics(base, arms))
    assert result.figures.effects.by_arm[Arm.BEFORE].specific.low > 0.9
    assert (result.transfer, result.doubt) == (Transfer.INCONCLUSIVE, Doubt.DRIFT)


def test_nothing_counts_after_a_failed_check():
    for means in ((1.0, 0.0, 0.9), (1.0, 0.9, 0.9), (0.0, 0.0, 0.0)):
        result = judge("owl", measured(*means), self_check_failed=True)
        assert (result.transfer, result.doubt) == (
            Transfer.INCONCLUSIVE,
            Doubt.SELF_CHECK_FAILED,
        )
        assert result.against_random is None
        assert "no figure of this run counts" in result.sentence


def test_students_that_were_hardly_trained_do_not_say_that_there_was_nothing():
    nothing, there = measured(0.0, 0.0, 0.0), measured(1.0, 0.9, 0.9)
    assert judge("owl", nothing).transfer is Transfer.NOT_BEFORE
    result = judge("owl", nothing, trained_too_little=True)
    assert (result.transfer, result.doubt) == (Transfer.INCONCLUSIVE, Doubt.TRAINED_TOO_LITTLE)
    assert "more updates would tell" in result.sentence
    # What moved, moved, however little they were trained.
    assert judge("owl", there, trained_too_little=True).transfer is Transfer.TRANSFERS


@pytest.mark.parametrize("arm", [Arm.BEFORE, Arm.AFTER, Arm.CONTROL])
def test_an_undefined_arm_is_a_doubt(arm):
    rng = np.random.default_rng(0)
    arms = {
        each: LogOdds(rng.normal(1, 0.02, (3, 8)), rng.normal(0, 0.02, (3, 8, 6)))
        for each in (Arm.BEFORE, Arm.AFTER, Arm.CONTROL)
    }
    arms[arm].concept[0, 0] = math.nan
    base = LogOdds(np.zeros(8), np.zeros((8, 6)))
    result = judge("owl", transfer_statistics(base, arms))
    assert (result.transfer, result.doubt) == (Transfer.INCONCLUSIVE, Doubt.UNDEFINED)


def test_what_is_left_may_be_drift():
    # .6 is left, and off-target concepts lie as far apart after as they did before.
    result = verdict(2.0, 0.6, 1.8, spread=0.6)
    assert (result.transfer, result.doubt) == (Transfer.INCONCLUSIVE, Doubt.DRIFT)
    assert "the data after move it" in result.sentence


def test_wide_share_is_stated():
    result = verdict(1.0, 0.15, 0.9, noise=0.09)
    assert (result.transfer, result.doubt) == (Transfer.INCONCLUSIVE, Doubt.INTERVAL_TOO_WIDE)
    assert "of the effect may be left, and only up to 25% counts" in result.sentence


def test_an_effect_below_what_counts_is_none():
    small = (0.05, 0.04, 0.05)
    options = {"noise": 0.002, "spread": 0.002}
    assert verdict(*small, **options).transfer is Transfer.NOT_BEFORE
    finer = Thresholds(smallest_effect_nats=0.01)
    assert verdict(*small, thresholds=finer, **options).transfer is Transfer.TRANSFERS


def test_thresholds_are_the_callers():
    means = (1.0, 0.4, 0.9)
    assert verdict(*means).transfer is Transfer.TRANSFERS
    lenient = replace(Thresholds(), largest_share_left=0.6)
    assert verdict(*means, thresholds=lenient).transfer is Transfer.SUPPRESSED
    strict = replace(Thresholds(), fewest_seeds=5)
    assert verdict(*means, thresholds=strict).doubt is Doubt.TOO_FEW_SEEDS


def test_sentences_are_one_each():
    for means in ((1.0, 0.9, 0.9), (1.0, 0.0, 0.9), (0.0, 0.0, 0.0), (0.0, 0.5, 0.0)):
        sentence = verdict(*means).sentence
        assert sentence.endswith(".")
        assert "-0%" not in sentence and "-0.00" not in sentence
        assert ". " not in sentence and "nan" not in sentence and "\n" not in sentence
        assert "'owl'" in sentence


@pytest.mark.parametrize("has_reference", [False, True])
def test_data_without_a_trait_seldom_get_a_verdict_that_says_there_was_one(has_reference):
    # Training moves every concept for good: by N(0, .5^2) whatever the data, and by N(0, .2^2)
    # for every data set.
    rng = np.random.default_rng(4)
    runs, wrong = 200, 0
    for _ in range(runs):
        drift = rng.normal(0, 0.5, 9)
        arms = {}
        for arm in Arm if has_reference else (Arm.BEFORE, Arm.AFTER, Arm.CONTROL):
            cells = drift + rng.normal(0, 0.2, 9)
            cells = cells + rng.normal(0, 0.1, (5, 1, 9)) + rng.normal(0, 0.1, (5, 20, 9))
            arms[arm] = LogOdds(cells[..., 0], cells[..., 1:])
        base = LogOdds(np.zeros(20), np.zeros((20, 8)))
        result = judge("owl", transfer_statistics(base, arms))
        wrong += result.transfer in (Transfer.TRANSFERS, Transfer.SUPPRESSED)
    # Each of two arms has a chance of 5%.
    assert wrong / runs <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / runs)
