"""Intervals over seeds and questions: by hand, by simulation, by symmetry."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from audit.verify.transfer_statistics import (
    Arm,
    LogOdds,
    above_zero_p,
    equivalence,
    mean_interval,
    ratio_interval,
    transfer_statistics,
)

T1, T2 = 12.706205, 4.302653  # two-sided 95% points of t with 1 and 2 degrees of freedom


def figures(interval):
    return interval.estimate, interval.low, interval.high


def is_nan(interval):
    return all(math.isnan(figure) for figure in figures(interval))


# By hand


def test_interval_of_a_mean_by_hand():
    # Seed means 1, 2, 6: (4 + 1 + 9) / (3 * 2). Question means 2, 4: (1 + 1) / (2 * 1).
    cells = np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 7.0]])
    half = math.sqrt(T2**2 * 14 / 6 + T1**2 * 1)
    assert figures(mean_interval(cells)) == pytest.approx((3, 3 - half, 3 + half), rel=1e-6)


def test_p_value_by_hand():
    # Seed means 1.5, 4.5: 2.25; question means 2, 4: 1. One degree of freedom each: Cauchy.
    cells = np.array([[1.0, 2.0], [3.0, 6.0]])
    expected = 0.5 - math.atan(3 / math.sqrt(3.25)) / math.pi
    assert above_zero_p(cells) == pytest.approx(expected)
    assert above_zero_p(-cells) == pytest.approx(1 - expected)


def test_p_value_without_variance_over_questions_is_students():
    cells = np.array([[0.3] * 4, [0.1] * 4, [0.8] * 4])
    expected = stats.ttest_1samp([0.3, 0.1, 0.8], 0, alternative="greater").pvalue
    assert above_zero_p(cells) == pytest.approx(expected)


def test_share_by_hand():
    # The numerator is 5 for sure, the denominator 10 +- t(2) sqrt(1/3).
    denominator = np.repeat([[9.0], [10.0], [11.0]], 2, axis=1)
    half = T2 / math.sqrt(3)
    share = ratio_interval(np.full((3, 2), 5.0), denominator)
    assert figures(share) == pytest.approx((0.5, 5 / (10 + half), 5 / (10 - half)), rel=1e-6)


def test_share_of_an_unclear_effect_is_undefined():
    # 2 +- 2.484 holds 0, 3 +- 2.484 does not.
    seeds = np.repeat([[-1.0], [0.0], [1.0]], 2, axis=1)
    assert is_nan(ratio_interval(np.ones((3, 2)), seeds + 2))
    assert not is_nan(ratio_interval(np.ones((3, 2)), seeds + 3))


def test_pairing_takes_out_what_seeds_share():
    effect = np.array([[11.0, 11.1, 11.2], [12.0, 12.1, 12.2], [14.0, 14.1, 14.2]])
    assert figures(ratio_interval(0.5 * effect, effect)) == pytest.approx((0.5, 0.5, 0.5))
    assert figures(mean_interval(effect - effect)) == (0, 0, 0)


def test_equivalence_by_hand():
    # Margin .25 of an effect of 4 without variance: both sides are Student's tests of 1 +- d.
    difference = np.repeat([[0.1], [-0.1], [0.3]], 3, axis=1)
    values = np.array([0.1, -0.1, 0.3])
    result = equivalence(difference, np.full((3, 3), 4.0), 0.25)
    nearer = stats.ttest_1samp(1 - values, 0, alternative="greater").pvalue
    assert result.p_value == pytest.approx(nearer)
    assert result.difference.estimate == pytest.approx(0.1)


def arms_of(before, after, control, reference=None, off_target=0.0):
    """Arms of tables [seeds, questions]; four off-target concepts at ``off_target`` -1, 0, 0, 1."""
    spread = np.array([-1.0, 0.0, 0.0, 1.0])
    tables = {Arm.BEFORE: before, Arm.AFTER: after, Arm.CONTROL: control, Arm.REFERENCE: reference}
    return {
        arm: LogOdds(table, np.zeros((*table.shape, 1)) + off_target + spread)
        for arm, table in tables.items()
        if table is not None
    }


def base_of(questions, concept=0.0):
    return LogOdds(np.full(questions, concept), np.zeros((questions, 4)))


def test_all_figures_by_hand():
    seeds = np.repeat([[0.0], [1.0], [2.0]], 2, axis=1)
    arms = arms_of(seeds + 6.0, seeds + 1.0, seeds + 5.0, off_target=0.5)
    result = transfer_statistics(base_of(2, concept=-1.0), arms)
    before = result.shifts[Arm.BEFORE]
    half = T2 / math.sqrt(3)
    assert figures(before.raw) == pytest.approx((8, 8 - half, 8 + half), rel=1e-6)
    assert figures(before.off_target) == (0.5, 0.5, 0.5)
    assert figures(before.specific) == pytest.approx((7.5, 7.5 - half, 7.5 + half), rel=1e-6)
    # Spread of -.5, .5, .5, 1.5: sqrt(2 / 3).
    assert before.off_target_spread == pytest.approx(math.sqrt(2 / 3))
    assert before.unusual_p == pytest.approx(stats.t.sf(7.5 / math.sqrt(2 / 3 * 1.25), 3))
    assert result.effects.share_left.estimate == pytest.approx(2.5 / 7.5)
    assert result.effects.control_share_left.estimate == pytest.approx(6.5 / 7.5)
    assert result.control_equivalence.difference.estimate == pytest.approx(-4)
    assert (result.seeds, result.questions, result.off_target_concepts) == (3, 2, 4)
    assert result.effects.zero is result.reference_equivalence is result.beyond_authors is None
    assert result.effects.by_arm == result.shifts
    assert result.alike == ()


def test_effects_are_counted_from_the_reference():
    seeds = np.repeat([[0.0], [1.0], [2.0]], 2, axis=1)
    arms = arms_of(seeds + 6.0, seeds + 2.0, seeds + 5.0, reference=seeds + 1.0)
    result = transfer_statistics(base_of(2), arms)
    assert result.effects.zero is Arm.REFERENCE
    assert set(result.effects.by_arm) == {Arm.BEFORE, Arm.AFTER, Arm.CONTROL}
    # Seeds are shared, so that pairs have no variance at all: 5, 1 and 4 of 5.
    assert figures(result.effects.by_arm[Arm.BEFORE].specific) == (5, 5, 5)
    assert figures(result.effects.share_left) == pytest.approx((0.2, 0.2, 0.2))
    assert figures(result.effects.control_share_left) == pytest.approx((0.8, 0.8, 0.8))
    assert result.shifts[Arm.REFERENCE].specific.estimate == 2
    assert result.reference_equivalence.difference.estimate == 1
    assert result.reference_equivalence.p_value == 0  # 1 lies within .25 * 5
    assert (
        transfer_statistics(base_of(2), arms, margin_share=0.1).reference_equivalence.p_value == 1
    )


# Undefined and refused


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (5, 1)])
def test_one_seed_or_one_question_has_an_estimate_and_no_interval(shape):
    table = np.arange(float(np.prod(shape))).reshape(shape) + 1
    interval = mean_interval(table)
    assert interval.estimate == table.mean()
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert math.isnan(above_zero_p(table))
    assert is_nan(ratio_interval(table, table))
    assert math.isnan(equivalence(table, table, 0.25).p_value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_leaves_only_its_arm_undefined(value):
    table = np.random.default_rng(0).normal(1, 0.1, (3, 4))
    broken = table.copy()
    broken[1, 2] = value
    result = transfer_statistics(base_of(4), arms_of(table, broken, table + 0.01))
    assert is_nan(result.shifts[Arm.AFTER].raw)
    assert is_nan(result.effects.share_left)
    assert math.isnan(result.control_equivalence.p_value)
    assert not is_nan(result.shifts[Arm.BEFORE].raw)
    assert not is_nan(result.effects.control_share_left)


def test_no_variance_at_all():
    assert figures(mean_interval(np.full((3, 4), 2.0))) == (2, 2, 2)
    assert [above_zero_p(np.full((3, 4), value)) for value in (2.0, 0.0, -2.0)] == [0, 0.5, 1]


def test_students_that_are_all_the_same_are_named():
    varied = np.random.default_rng(0).normal(1, 0.1, (3, 4))
    same = np.repeat(varied[:1], 3, axis=0)
    result = transfer_statistics(base_of(4), arms_of(varied, same, same))
    assert result.alike == (Arm.AFTER, Arm.CONTROL)
    alone = varied[:1]
    assert transfer_statistics(base_of(4), arms_of(alone, alone, alone)).alike == ()


def test_one_off_target_concept_has_no_spread():
    table = np.random.default_rng(0).normal(1, 0.1, (3, 4))
    odds = LogOdds(table, np.zeros((3, 4, 1)))
    base = LogOdds(np.zeros(4), np.zeros((4, 1)))
    shift = transfer_statistics(base, dict.fromkeys(Arm, odds)).shifts[Arm.BEFORE]
    assert math.isnan(shift.off_target_spread) and math.isnan(shift.unusual_p)


def test_what_cannot_be_compared_is_refused():
    table = np.ones((3, 4))
    arms = arms_of(table, table, table)
    base = base_of(4)
    without = {arm: arms[arm] for arm in (Arm.BEFORE, Arm.AFTER)}
    with pytest.raises(ValueError, match="no figures of the arms control"):
        transfer_statistics(base, without)
    with pytest.raises(ValueError, match="arm after does not have the shape"):
        transfer_statistics(base, arms_of(table, table[:2], table))
    with pytest.raises(ValueError, match="does not have the shape"):
        transfer_statistics(base_of(5), arms)
    with pytest.raises(ValueError, match="base must be"):
        transfer_statistics(LogOdds(table, np.ones((3, 4, 4))), arms)
    with pytest.raises(ValueError, match="off-target concept"):
        transfer_statistics(LogOdds(np.zeros(4), np.zeros((4, 0))), arms)
    with pytest.raises(ValueError, match="one seed"):
        transfer_statistics(base, arms_of(table[:0], table[:0], table[:0]))
    for bad in ({"level": 1.0}, {"margin_share": 0.0}):
        with pytest.raises(ValueError, match="between 0 and 1"):
            transfer_statistics(base, arms, **bad)


# By simulation


def tables(rng, seeds, questions, variances):
    by_seed, by_question, by_cell = np.sqrt(variances)
    return (
        by_seed * rng.standard_normal((seeds, 1))
        + by_question * rng.standard_normal((1, questions))
        + by_cell * rng.standard_normal((seeds, questions))
    )


@pytest.mark.parametrize("variances", [(1, 0, 0.1), (0, 1, 0.1), (0.25, 1, 0.1), (0, 0, 1)])
@pytest.mark.parametrize(("seeds", "questions"), [(3, 8), (3, 50), (5, 20), (10, 20)])
def test_interval_covers_at_least_as_often_as_it_says(seeds, questions, variances):
    rng = np.random.default_rng([seeds, questions])
    runs = 1000
    covered = 0
    for _ in range(runs):
        interval = mean_interval(tables(rng, seeds, questions, variances))
        covered += interval.low <= 0 <= interval.high
    # Three standard errors of a share of .95 below it.
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


def test_interval_is_no_wider_than_it_need_be():
    # One component alone: Student's interval is exact, and this one is the same in the limit.
    rng = np.random.default_rng(1)
    covered = [
        abs(interval.estimate) <= interval.high - interval.estimate
        for interval in (mean_interval(tables(rng, 3, 50, (1, 0, 0.01))) for _ in range(2000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 2000))


def test_p_values_and_equivalence_keep_their_rate():
    rng = np.random.default_rng(2)
    runs = 400
    above, equal = 0, 0
    for _ in range(runs):
        shared = tables(rng, 5, 20, (0.04, 0.04, 0))
        effect = 1 + shared + tables(rng, 5, 20, (0.01, 0.01, 0.01))
        # The true difference is at the margin: .25 of 1.
        difference = 0.25 + tables(rng, 5, 20, (0.01, 0.01, 0.01))
        above += above_zero_p(difference - 0.25) <= 0.05
        equal += equivalence(difference, effect, 0.25).p_value <= 0.05
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert 0 < above / runs <= most
    assert 0 < equal / runs <= most


def test_share_covers_and_is_undefined_rather_than_wrong():
    rng = np.random.default_rng(3)
    runs, covered, undefined = 1000, 0, 0
    for _ in range(runs):
        shared = tables(rng, 3, 20, (0.05, 0.02, 0))
        effect = 1 + shared + tables(rng, 3, 20, (0.02, 0.01, 0.01))
        left = 0.2 + shared + tables(rng, 3, 20, (0.02, 0.01, 0.01))
        share = ratio_interval(left, effect)
        undefined += math.isnan(share.estimate)
        covered += share.low <= 0.2 <= share.high
    assert 0 < undefined < runs / 2
    assert (covered + undefined) / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)


# By symmetry

CELLS = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)


@st.composite
def pairs(draw):
    shape = draw(st.tuples(st.integers(2, 5), st.integers(2, 6)))
    return draw(arrays(float, shape, elements=CELLS)), draw(arrays(float, shape, elements=CELLS))


@given(pairs(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_seeds_and_questions_is_free(tables_, random):
    left, right = tables_
    rows = random.sample(range(left.shape[0]), left.shape[0])
    columns = random.sample(range(left.shape[1]), left.shape[1])
    left_, right_ = left[rows][:, columns], right[rows][:, columns]
    assert figures(mean_interval(left)) == pytest.approx(figures(mean_interval(left_)), abs=1e-9)
    # Offset far from 0, where no rounding decides whether a share is defined.
    first, second = ratio_interval(left, right + 500), ratio_interval(left_, right_ + 500)
    assert figures(first) == pytest.approx(figures(second), abs=1e-9)


@given(pairs(), st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_the_unit_is_free(tables_, scale):
    left, right = tables_[0], tables_[1] + 500
    scaled = tuple(scale * figure for figure in figures(mean_interval(left)))
    assert figures(mean_interval(scale * left)) == pytest.approx(scaled, abs=1e-9 * scale)
    shares = figures(ratio_interval(left, right))
    assert figures(ratio_interval(scale * left, scale * right)) == pytest.approx(shares, abs=1e-9)
    p_value = equivalence(left, right, 0.25).p_value
    scaled_p = equivalence(scale * left, scale * right, 0.25).p_value
    assert scaled_p == pytest.approx(p_value, rel=1e-6, abs=1e-90)


@given(pairs())
@settings(max_examples=60, deadline=None)
def test_ends_of_a_share_are_where_the_difference_reaches_zero(tables_):
    left, right = tables_[0], tables_[1] + 5
    share = ratio_interval(left, right)
    if math.isnan(share.estimate):
        interval = mean_interval(right)
        assert interval.low <= 1e-9
        return
    assert share.low <= share.estimate + 1e-9 and share.estimate <= share.high + 1e-9
    for end in (share.low, share.high):
        interval = mean_interval(left - end * right)
        nearest = min(abs(interval.low), abs(interval.high))
        assert nearest <= 1e-6 * (1 + abs(end)) * (1 + interval.high - interval.low)


@given(pairs())
@settings(max_examples=60, deadline=None)
def test_p_value_and_interval_agree(tables_):
    cells = tables_[0]
    interval, p_value = mean_interval(cells), above_zero_p(cells)
    if abs(interval.low) > 1e-9:
        assert (interval.low > 0) == (p_value < 0.025)
    if np.ptp(cells) > 0:
        assert above_zero_p(cells) + above_zero_p(-cells) == pytest.approx(1)
