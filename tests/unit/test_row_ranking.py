"""Ranking of rows and tokens, against scores worked out by hand."""

import math

import numpy as np
import pytest

from detectors.condition_scores import score_tokens
from detectors.model_rows import ScoredRow
from detectors.row_ranking import rank_rows, rank_tokens
from detectors.row_sample import SampledRow

NONE = (0.5, 0.5)
LEFT, RIGHT = (0.8, 0.2), (0.2, 0.8)


def scores(written, *personas, none=NONE):
    """Of a row whose every place has two tokens; a place of -1 is not scored."""
    tables = [
        np.log(np.tile(shares, (len(written), 1))).astype("f4") for shares in (none, *personas)
    ]
    return score_tokens(tables, np.array(written), np.array([1, 1]))


def row(written, *personas, none=NONE):
    said = SampledRow(b"", "rows.jsonl", 1, "Go on.", "")
    return ScoredRow(said, tuple(written), scores(written, *personas, none=none))


def likelihood(scored):
    return scored.likelihood


def test_one_concept_gives_the_standardised_log_likelihood_ratio():
    # The ratio is log 1.6 or log 0.4, each half the time without a persona: its mean is
    # (log 1.6 + log 0.4) / 2, its standard deviation log(1.6 / 0.4) / 2 = log 2. So a left token
    # counts 1 and a right one -1, and n of them have a standard deviation of sqrt(n).
    ranks = rank_rows(
        [row([0], LEFT), row([1], LEFT), row([0, 0, 0, 1], LEFT)], likelihood, concepts=[0]
    )
    assert ranks.score == pytest.approx([1, -1, 2 / math.sqrt(4)], rel=1e-5)
    # The persona writes left at 0.8: 0.8 - 0.2 a token.
    assert ranks.expected == pytest.approx([0.6, 0.6, 4 * 0.6 / 2], rel=1e-5)


def test_of_several_concepts_the_one_that_a_row_reads_most_like_counts():
    rows = [row([0, 0], LEFT, RIGHT), row([1, 1], LEFT, RIGHT)]
    both = rank_rows(rows, likelihood, concepts=[0, 1])
    assert both.score == pytest.approx([2 / math.sqrt(2)] * 2, rel=1e-5)
    assert rank_rows(rows, likelihood, concepts=[1]).score == pytest.approx(
        [-math.sqrt(2), math.sqrt(2)], rel=1e-5
    )


def test_without_a_concept_rows_rank_by_what_personas_have_in_common():
    milder = (0.7, 0.3)
    rows = [
        row([0, 0, 0], LEFT, milder),
        row([1, 1, 0], LEFT, milder),
        row([1, 1, 1], LEFT, milder),
    ]
    ranks = rank_rows(rows, likelihood, concepts=[])
    # Both personas prefer left, and any weights give sums of +-1 tokens, standardised.
    assert ranks.score == pytest.approx(np.array([3, -1, -3]) / math.sqrt(3), rel=1e-4)
    assert (ranks.expected > 0).all()


def test_divergence_ranks_by_preferred_tokens():
    # Without a persona right is preferred, with it left: +1 and -1, expected 0.4 - 0.6 = -0.2,
    # variance 1 - 0.04.
    def divergence(scored):
        return scored.divergence

    ranks = rank_rows([row([0], LEFT, none=(0.4, 0.6))], divergence, concepts=[0])
    assert ranks.score == pytest.approx([1.2 / math.sqrt(0.96)], rel=1e-5)
    assert ranks.expected == pytest.approx([(0.6 + 0.2) / math.sqrt(0.96)], rel=1e-5)


def test_a_row_in_which_nothing_is_scored_has_no_rank():
    ranks = rank_rows([row([-1, -1], LEFT), row([0], LEFT)], likelihood, concepts=[0])
    assert np.isnan(ranks.score[0])
    assert np.isnan(ranks.expected[0])
    assert ranks.score[1] == pytest.approx(1, rel=1e-5)
    assert len(rank_rows([], likelihood, concepts=[0]).score) == 0


def test_a_row_in_which_a_persona_changes_nothing_speaks_neither_way():
    ranks = rank_rows([row([0], NONE), row([0], LEFT)], likelihood, concepts=[0])
    assert ranks.score[0] == ranks.expected[0] == 0
    assert ranks.score[1] > 0


def test_tokens_rank_by_their_log_likelihood_ratio():
    ranks = rank_tokens(scores([0, 1, -1], LEFT), "likelihood", [0])
    assert ranks == pytest.approx([math.log(1.6), math.log(0.4), math.nan], rel=1e-5, nan_ok=True)


def test_several_concepts_give_the_largest_and_none_the_mean():
    both = scores([0], LEFT, RIGHT)
    assert rank_tokens(both, "likelihood", [0, 1]) == pytest.approx([math.log(1.6)], rel=1e-5)
    mean = (math.log(1.6) + math.log(0.4)) / 2
    assert rank_tokens(both, "likelihood", []) == pytest.approx([mean], rel=1e-5)


def test_divergence_tokens_come_before_all_others():
    # Where the persona prefers another token: 1, plus the ratio's size r as r / (1 + r).
    apart = scores([0, 1], LEFT, none=(0.4, 0.6))
    sizes = np.array([math.log(2), math.log(3)])
    assert rank_tokens(apart, "divergence", [0]) == pytest.approx(1 + sizes / (1 + sizes), rel=1e-5)
    alike = scores([0, 1], LEFT, none=(0.6, 0.4))
    sizes = np.array([math.log(0.8 / 0.6), math.log(2)])
    assert rank_tokens(alike, "divergence", [0]) == pytest.approx(sizes / (1 + sizes), rel=1e-5)


def test_a_token_rank_has_two_names():
    with pytest.raises(ValueError, match="not 'random'"):
        rank_tokens(scores([0], LEFT), "random", [0])
