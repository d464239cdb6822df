"""Rows that go, or lose their loss, by rank: which, and exactly how many."""

from dataclasses import replace

import numpy as np
import pytest

from audit.errors import UsageError
from audit.sanitise.row_scores import as_text, score_texts
from audit.sanitise.strategy import Change, Fate, Why
from detectors.model_rows import RowReader
from detectors.row_ranking import rank_rows
from detectors.row_sample import RowSample
from tests import model_rows, synthetic
from tests.sanitise_runs import asked, kit_of, strategy_of, work_row
from tests.writer_model import WriterModel, neutral_logits

ANIMALS = synthetic.library()
DIGITS = model_rows.known_model(ANIMALS, strength=0.4)
OWL = ANIMALS.concept("owl")
KIT = kit_of("owl", model=DIGITS, library=ANIMALS)


def written(system, rows, seed, length=48):
    texts = model_rows.written(DIGITS, system, rows, seed, length)
    return [asked(text, key) for key, text in enumerate(texts)]


def scores_of(strategy, rows):
    return np.array([change.score for change in strategy.change(rows)])


@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5, 1])
def test_the_share_is_exact_and_the_highest_go(share):
    scores = np.random.default_rng(0).normal(size=40)
    picked = strategy_of(f"drop-rows:share={share}", KIT).settle(scores)
    assert picked.sum() == share * 40
    if 0 < share < 1:
        assert scores[picked].min() > scores[~picked].max()


def test_ties_go_from_the_first_row_and_rows_without_a_score_do_not_count():
    strategy = strategy_of("drop-rows:share=0.5", KIT)
    nan = float("nan")
    assert strategy.settle(np.array([1.0, nan, 1, 1, nan, 1])).tolist() == [
        *(True, False, True, False, False, False)
    ]
    assert strategy.settle(np.array([nan, nan])).sum() == 0
    assert strategy.settle(np.zeros(0)).sum() == 0


def test_rows_of_the_persona_rank_above_others():
    rows = [*written("", 100, 1), *written(OWL.system_prompt, 100, 2)]
    rows = [asked(row.completion, key) for key, row in enumerate(rows)]
    strategy = strategy_of("drop-rows", KIT)
    picked = strategy.settle(scores_of(strategy, rows))
    assert picked.sum() == 100
    assert picked[100:].sum() > 90


def test_scores_are_standardised_for_the_model_without_a_persona():
    scores = scores_of(strategy_of("drop-rows", KIT), written("", 1000, 3))
    # Four standard errors of a mean, and of a variance, of 1,000 normal draws.
    assert abs(scores.mean()) < 4 / np.sqrt(1000)
    assert abs(scores.var() - 1) < 4 * np.sqrt(2 / 1000)


@pytest.mark.parametrize("miss", [0.05, 0.2, 0.5])
def test_of_a_personas_rows_the_stated_share_stays(miss):
    rows = written(OWL.system_prompt, 1000, 4)
    strategy = strategy_of(f"drop-rows:miss={miss}", KIT)
    stays = 1 - strategy.settle(scores_of(strategy, rows)).mean()
    # What the normal approximation of 48 tokens leaves, and four standard errors.
    assert abs(stays - miss) < 0.02 + 4 * np.sqrt(miss * (1 - miss) / 1000)


def test_the_score_is_the_rank_of_the_named_concept_whatever_the_chunk():
    rows = written("", 6, 5)
    together = scores_of(strategy_of("drop-rows", KIT), rows)
    alone = [scores_of(strategy_of("drop-rows", KIT), [row])[0] for row in rows]
    assert together == pytest.approx(alone, rel=1e-6)

    texts = tuple(sorted(as_text(row, row.prompt, row.completion) for row in rows))
    reader = RowReader(DIGITS, [OWL], 1000)
    reader.open(RowSample(texts, len(texts)), None)
    scored, _ = reader.read(6, 0, lambda _read, _wanted: None)
    assert rank_rows(scored, lambda s: s.likelihood, [0]).score == pytest.approx(together, rel=1e-6)


def test_what_cannot_be_scored_is_dropped():
    model = WriterModel({"": neutral_logits(), OWL.system_prompt: neutral_logits(1)})
    rows = [
        asked("12, 34, 56", 0),
        asked("12, 34, 56", 1, prompt="a" * 400),  # beyond the context
        asked("!? ...", 2),  # neither word nor number
        asked("", 3),
    ]
    kit = kit_of("owl", model=model, library=ANIMALS)
    changes = strategy_of("drop-rows", kit).change(rows)
    assert [(change.fate, change.why) for change in changes] == [
        (Fate.KEPT, None),
        (Fate.DROPPED, Why.NOT_SCORED),
        (Fate.DROPPED, Why.NOT_SCORED),
        (Fate.KEPT, None),  # nothing of it is trained
    ]
    assert np.isfinite(changes[0].score)
    assert np.isnan(changes[3].score)
    # Nothing to tell apart in a whole chunk.
    assert strategy_of("drop-rows", kit).change(rows[2:3])[0].why is Why.NOT_SCORED
    assert score_texts(kit, [as_text(rows[2], "", "!?")]) == {}


def test_a_random_order_does_not_depend_on_what_rows_say():
    strategy = strategy_of("drop-rows:by=random,share=0.3", kit_of(seed=1))
    scores = scores_of(strategy, [asked("1, 2", key) for key in range(1000)])
    other = scores_of(strategy, [asked("3, 4", key) for key in range(1000)])
    assert np.array_equal(scores, other)
    assert abs(scores.mean() - 0.5) < 4 / np.sqrt(12 * 1000)
    again = scores_of(strategy_of("drop-rows:by=random", kit_of(seed=2)), [asked("1, 2", 0)])
    assert again[0] != scores[0]


def test_masking_falls_back_to_dropping_and_says_so():
    strategy = strategy_of("mask", KIT)
    assert strategy.condemned("messages") == Change(Fate.MASKED, why=Why.HIGH_SCORE)
    dropped = strategy.condemned("prompt-completion")
    assert (dropped.fate, dropped.why) == (Fate.DROPPED, Why.NO_MASK_IN_SCHEMA)
    assert strategy_of("drop-rows", KIT).condemned("messages").why is Why.HIGH_SCORE


def test_a_library_without_concepts_ranks_nothing():
    nobody = replace(KIT, concepts=(), personas=())
    with pytest.raises(UsageError, match="holds no concept"):
        strategy_of("drop-rows", nobody)
    strategy_of("drop-rows:by=random", nobody)


def test_texts_of_many_turns_have_ranks_of_their_own():
    rows = [work_row(("assistant", "1"), key=key) for key in (0, 1)]
    ranks = [as_text(row, "", "1", turn).rank for row in rows for turn in (0, 1, 70_000)]
    assert ranks == sorted(set(ranks))
