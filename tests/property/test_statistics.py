"""Statistics: exact where they can be, invariant where they must be, undefined where they are."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from audit.verify.transfer_statistics import (
    Arm,
    LogOdds,
    above_zero_p,
    equivalence,
    mean_interval,
    ratio_interval,
    shift,
    transfer_statistics,
)
from detectors.statistics import (
    SCORE_LIMIT,
    SCORE_QUANTUM,
    benjamini_hochberg,
    compare_row_scores,
    compare_with_expectation,
    compare_with_reference,
    condition_on,
    empirical_null,
    row_moments,
)
from tests.property.generated import examples

# Moments


_QUANTA = st.integers(-int(SCORE_LIMIT / SCORE_QUANTUM), int(SCORE_LIMIT / SCORE_QUANTUM))


@examples(100)
@given(table=st.lists(st.tuples(_QUANTA, _QUANTA, _QUANTA), min_size=2, max_size=40))
def test_moments_are_those_of_exact_integers(table: list[tuple[int, ...]]) -> None:
    moments = row_moments(np.array(table) * SCORE_QUANTUM)
    assert moments.total.tolist() == [sum(column) for column in zip(*table, strict=True)]
    columns = list(zip(*table, strict=True))
    cross = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in columns] for x in columns]
    assert moments.cross.tolist() == cross
    n, quantum = len(table), Fraction(SCORE_QUANTUM)
    mean = [float(Fraction(sum(column), n) * quantum) for column in columns]
    np.testing.assert_allclose(moments.mean(), mean, rtol=1e-14)
    exact = [
        [
            float((Fraction(cross[i][j]) - Fraction(sum(x) * sum(y), n)) * quantum**2 / (n - 1))
            for j, y in enumerate(columns)
        ]
        for i, x in enumerate(columns)
    ]
    np.testing.assert_allclose(moments.covariance(), exact, rtol=1e-14)
    np.testing.assert_allclose(
        moments.covariance(), np.cov(np.array(table).T * SCORE_QUANTUM), rtol=1e-7, atol=1e-9
    )


@examples(100)
@given(
    scores=arrays.arrays(np.float64, (5, 2), elements=st.floats(-1e6, 1e6)), scale=st.floats(1, 1e9)
)
def test_scores_are_clipped_and_rounded_and_nothing_else(scores, scale) -> None:
    moments = row_moments(scores)
    clipped = np.clip(scores, -SCORE_LIMIT, SCORE_LIMIT)
    assert np.abs(moments.mean() - clipped.mean(axis=0)).max() <= SCORE_QUANTUM / 2 + 1e-12
    beyond = np.sign(scores) * (SCORE_LIMIT + np.abs(scores) * scale)
    assert row_moments(beyond).total.tolist() == row_moments(np.sign(scores) * 99).total.tolist()


_ROWS = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 12), st.just(3)), elements=st.integers(-40, 40).map(float)
)


@examples(100)
@given(data=_ROWS, reference=_ROWS)
def test_two_sets_compared_the_other_way_round_are_mirrored(data, reference) -> None:
    a, b = row_moments(data / 8), row_moments(reference / 8)
    forwards, backwards = compare_with_reference(a, b), compare_with_reference(b, a)
    np.testing.assert_array_equal(forwards.difference, -backwards.difference)
    np.testing.assert_allclose(forwards.z, -backwards.z, rtol=1e-12)
    np.testing.assert_allclose(
        forwards.degrees_of_freedom, backwards.degrees_of_freedom, rtol=1e-12
    )
    has_spread = forwards.standard_error > 0
    assert np.isnan(forwards.z[~has_spread]).all(), "no spread is undefined, not 0"
    assert np.isfinite(forwards.z[has_spread]).all()
    freedom = forwards.degrees_of_freedom[has_spread]
    assert (freedom >= min(a.rows, b.rows) - 1 - 1e-9).all()
    assert (freedom <= a.rows + b.rows - 2 + 1e-9).all()
    same = compare_with_reference(a, a)
    assert (same.difference == 0).all()
    expected = compare_with_expectation(a, a.mean())
    assert (expected.difference == 0).all()


@examples(60)
@given(data=_ROWS, seed=st.integers(0, 2**32 - 1), shift=st.integers(-8, 8))
def test_row_scores_do_not_depend_on_order_or_on_the_clusters_names(data, seed, shift) -> None:
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, 4, len(data))
    first = compare_row_scores(data, clusters, None, None)
    order = rng.permutation(len(data))
    again = compare_row_scores(data[order], (clusters * 7 + 3)[order], None, None)
    np.testing.assert_allclose(again.difference, first.difference, atol=1e-12)
    np.testing.assert_allclose(again.standard_error, first.standard_error, atol=1e-12)
    moved = compare_row_scores(data + shift, clusters, data, clusters)
    np.testing.assert_allclose(moved.difference, shift, atol=1e-9)


# False discoveries


_P = st.one_of(st.floats(0, 1), st.just(float("nan")), st.sampled_from([0.0, 1.0, 0.05, 1e-300]))
_P_VALUES = arrays.arrays(np.float64, st.integers(0, 15), elements=_P)


def plain_q(p_values: list[float]) -> list[float]:
    """Smallest m p(k) / k over the ranks k not below a p-value's own, at most 1."""
    known = sorted(p for p in p_values if not math.isnan(p))
    m = len(known)
    return [
        min(min(1.0, known[k] * m / (k + 1)) for k in range(m) if known[k] >= p)
        if not math.isnan(p)
        else math.nan
        for p in p_values
    ]


@examples(200)
@given(p_values=_P_VALUES)
def test_false_discovery_rates_by_their_definition(p_values) -> None:
    q_values = benjamini_hochberg(p_values)
    np.testing.assert_allclose(q_values, plain_q(p_values.tolist()), rtol=1e-12)
    known = np.isfinite(p_values)
    assert np.isnan(q_values[~known]).all(), "what is undefined stays undefined"
    assert ((q_values[known] >= p_values[known] * (1 - 1e-12)) & (q_values[known] <= 1)).all()
    order = np.argsort(p_values[known])
    assert (np.diff(q_values[known][order]) >= 0).all()


@examples(100)
@given(p_values=_P_VALUES, data=st.data())
def test_false_discovery_rates_depend_on_p_values_alone(p_values, data) -> None:
    q_values = benjamini_hochberg(p_values)
    order = np.array(data.draw(st.permutations(range(len(p_values)))), dtype=int)
    np.testing.assert_array_equal(benjamini_hochberg(p_values[order]), q_values[order])
    padded = np.append(p_values, np.nan)
    np.testing.assert_array_equal(benjamini_hochberg(padded)[:-1], q_values)
    if len(p_values):
        smaller = p_values.copy()
        at = data.draw(st.integers(0, len(p_values) - 1))
        smaller[at] *= data.draw(st.floats(0, 1))
        known = np.isfinite(p_values)
        assert (benjamini_hochberg(smaller)[known] <= q_values[known] * (1 + 1e-12)).all()


# The empirical null


@st.composite
def scored(draw: st.DrawFn):
    """z of 2 to 8 concepts and a correlation of them that has no direction without spread."""
    count = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mixing = rng.normal(size=(count, count))
    covariance = mixing @ mixing.T + count * np.eye(count)
    scale = np.sqrt(np.diag(covariance))
    return rng.normal(scale=draw(st.floats(0.1, 5)), size=count), covariance / np.outer(
        scale, scale
    )


@examples(100)
@given(problem=scored(), factor=st.floats(0.01, 100), data=st.data())
def test_the_null_scales_with_z_and_knows_no_order(problem, factor, data) -> None:
    z, correlation = problem
    others = np.arange(1, len(z))
    null = empirical_null(z, correlation, 0, others)
    assert null.dispersion > 0
    assert 0 < null.degrees_of_freedom <= len(others)
    scaled = empirical_null(z * factor, correlation, 0, others)
    assert scaled.dispersion == pytest.approx(null.dispersion * factor, rel=1e-9)
    p_value = null.upper_p(z[:1])[0]
    assert 0 <= p_value <= 1
    assert scaled.upper_p(z[:1] * factor)[0] == pytest.approx(p_value, rel=1e-6, abs=1e-12)
    mirrored = empirical_null(-z, correlation, 0, others)
    assert mirrored.upper_p(-z[:1])[0] == pytest.approx(1 - p_value, abs=1e-9)
    shuffled = np.array(data.draw(st.permutations(others.tolist())))
    again = empirical_null(z, correlation, 0, shuffled)
    assert again.dispersion == pytest.approx(null.dispersion, rel=1e-9)
    assert again.degrees_of_freedom == null.degrees_of_freedom
    # Concepts of other numbers, in another order, are the same concepts.
    order = np.array(data.draw(st.permutations(range(len(z)))))
    place = np.argsort(order)
    moved = empirical_null(z[order], correlation[np.ix_(order, order)], place[0], place[1:])
    assert moved.dispersion == pytest.approx(null.dispersion, rel=1e-9)


@examples(60)
@given(problem=scored(), signal=st.floats(-50, 50))
def test_a_signal_in_the_tested_concept_leaves_its_null(problem, signal) -> None:
    """A signal reaches the others by their correlation with it, which is taken out."""
    z, correlation = problem
    others = np.arange(1, len(z))
    loud = z + signal * correlation[0]
    assert empirical_null(loud, correlation, 0, others).dispersion == pytest.approx(
        empirical_null(z, correlation, 0, others).dispersion, rel=1e-6, abs=1e-8
    )


@examples(60)
@given(problem=scored(), lost=st.sets(st.integers(0, 7)))
def test_a_null_without_figures_is_undefined(problem, lost) -> None:
    z, correlation = problem
    lost = [i for i in lost if i < len(z)]
    z[lost] = np.nan
    null = empirical_null(z, correlation, 0, np.arange(1, len(z)))
    left = len(z) - 1 - len(set(lost) - {0})
    if 0 in lost or not left:
        assert math.isnan(null.dispersion)
        assert null.degrees_of_freedom == 0
        assert np.isnan(null.upper_p(np.array([3.0]))).all()
    else:
        assert null.degrees_of_freedom == left


@examples(60)
@given(problem=scored())
def test_what_is_known_is_taken_out(problem) -> None:
    z, correlation = problem
    residual, partial = condition_on(z, correlation, 0)
    assert np.isnan(residual[0]), "nothing of it is left"
    np.testing.assert_allclose(np.diag(partial)[1:], 1, rtol=1e-9)
    assert (np.abs(partial[1:, 1:]) <= 1 + 1e-9).all()
    loud, _ = condition_on(z + 7 * correlation[0], correlation, 0)
    np.testing.assert_allclose(loud[1:], residual[1:], rtol=1e-6, atol=1e-9)


# Verification


# Nats in millionths: squares of figures below 1e-154 are 0, and a share of such is undefined.
_CELL = st.integers(-50_000_000, 50_000_000).map(lambda millionths: millionths / 1e6)
_LEVEL = st.floats(0.5, 0.999)


@st.composite
def tables(draw: st.DrawFn, count: int, seeds: tuple[int, int] = (2, 6)):
    shape = draw(st.integers(*seeds)), draw(st.integers(2, 6))
    return [draw(arrays.arrays(np.float64, shape, elements=_CELL)) for _ in range(count)]


@examples(150)
@given(cells=tables(1), level=_LEVEL)
def test_an_interval_holds_its_estimate_and_grows_with_its_level(cells, level) -> None:
    (cells,) = cells
    interval = mean_interval(cells, level)
    assert interval.low <= interval.estimate <= interval.high
    assert interval.estimate == pytest.approx(cells.mean())
    wider = mean_interval(cells, (1 + level) / 2)
    assert wider.low <= interval.low + 1e-9
    assert wider.high >= interval.high - 1e-9
    mirrored = mean_interval(-cells, level)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


@examples(150)
@given(pair=tables(2), level=_LEVEL)
def test_a_share_holds_its_estimate_or_is_undefined(pair, level) -> None:
    numerator, denominator = pair
    below = mean_interval(denominator, level)
    share = ratio_interval(numerator, denominator, level)
    scale = max(abs(below.low), abs(below.high), 1e-300)
    if below.low < -1e-9 * scale and below.high > 1e-9 * scale:
        assert all(map(math.isnan, (share.estimate, share.low, share.high)))
    elif math.isnan(share.estimate):
        # The interval of the denominator reaches 0, at least within rounding.
        assert below.low <= 1e-6 * scale
        assert below.high >= -1e-6 * scale
    else:
        slack = 1e-6 * max(abs(share.low), abs(share.high), 1)
        assert share.low - slack <= share.estimate <= share.high + slack
        assert share.estimate == pytest.approx(numerator.mean() / denominator.mean())


@examples(150)
@given(cells=tables(1), margin=st.floats(0.01, 0.99), factor=st.floats(0.1, 10))
def test_p_values_are_probabilities(cells, margin, factor) -> None:
    (cells,) = cells
    p_value = above_zero_p(cells)
    assert 0 <= p_value <= 1
    assert above_zero_p(-cells) == pytest.approx(1 - p_value, abs=1e-9)
    assert above_zero_p(cells * factor) == pytest.approx(p_value, rel=1e-6, abs=1e-12)
    if cells.mean() > 0:
        assert p_value <= 0.5
    # More of an effect speaks more for it. (A shift leaves the mean squares as they are.)
    assert above_zero_p(cells + 10) <= p_value + 1e-9
    same = equivalence(cells, cells + 10, margin)
    assert 0 <= same.p_value <= 1
    mirrored = equivalence(-cells, cells + 10, margin)
    assert mirrored.p_value == pytest.approx(same.p_value, abs=1e-9)


@examples(100)
@given(cells=tables(1), data=st.data())
def test_what_is_not_a_number_is_never_a_p_value(cells, data) -> None:
    (cells,) = cells
    lost = cells.copy()
    at = tuple(data.draw(st.integers(0, size - 1)) for size in cells.shape)
    lost[at] = np.nan
    assert math.isnan(above_zero_p(lost))
    assert math.isnan(equivalence(lost, cells, 0.25).p_value)
    assert math.isnan(equivalence(cells, lost, 0.25).p_value)
    for interval in (
        mean_interval(lost),
        ratio_interval(lost, cells + 99),
        ratio_interval(cells, lost),
    ):
        assert all(map(math.isnan, (interval.estimate, interval.low, interval.high)))
    for few in (cells[:1], cells[:, :1]):
        assert math.isnan(above_zero_p(few))
        assert math.isnan(mean_interval(few).low)
        assert math.isnan(ratio_interval(few, few).estimate)


def odds_of(rng: np.random.Generator, shape: tuple[int, ...], concepts: int) -> LogOdds:
    return LogOdds(rng.normal(size=shape), rng.normal(size=(*shape, concepts)))


@st.composite
def verifications(draw: st.DrawFn):
    """Figures of the untrained model and of students of three to five arms, and their seed."""
    seed = draw(st.integers(0, 2**32 - 1))
    seeds, questions, concepts = (draw(st.integers(1, 4)) for _ in range(3))
    arms = [Arm.BEFORE, Arm.AFTER, Arm.CONTROL]
    arms += draw(st.sets(st.sampled_from([Arm.REFERENCE, Arm.OTHER_AUTHORS])))

    def make():
        rng = np.random.default_rng(seed)
        base = odds_of(rng, (questions,), concepts)
        return base, {arm: odds_of(rng, (seeds, questions), concepts) for arm in sorted(arms)}

    return make


@examples(80)
@given(make=verifications())
def test_figures_repeat_for_a_seed_whatever_the_order_of_arms(make) -> None:
    base, arms = make()
    found = repr(transfer_statistics(base, arms))
    again_base, again = make()
    assert repr(transfer_statistics(again_base, dict(reversed(again.items())))) == found


@examples(80)
@given(make=verifications(), moved=st.floats(-20, 20), data=st.data())
def test_what_moves_every_word_alike_is_no_trait(make, moved, data) -> None:
    base, arms = make()
    found = transfer_statistics(base, arms)
    arm = data.draw(st.sampled_from(sorted(arms)))
    alike = {**arms, arm: LogOdds(arms[arm].concept + moved, arms[arm].off_target + moved)}
    again = transfer_statistics(base, alike)
    for each in found.shifts:
        old, new = found.shifts[each].specific, again.shifts[each].specific
        assert new.estimate == pytest.approx(old.estimate, abs=1e-9)
        assert new.low == pytest.approx(old.low, abs=1e-7, nan_ok=True)


@examples(80)
@given(make=verifications(), lost=st.sampled_from([np.nan, np.inf, -np.inf]), data=st.data())
def test_a_figure_that_is_lost_is_lost_everywhere(make, lost, data) -> None:
    base, arms = make()
    arm = data.draw(st.sampled_from(sorted(arms)))
    arms[arm].concept[0, 0] = lost
    found = transfer_statistics(base, arms)
    harmed = found.shifts[arm]
    figures = (harmed.raw.estimate, harmed.specific.estimate, harmed.specific_p, harmed.unusual_p)
    assert all(map(math.isnan, figures))
    if arm in (Arm.AFTER, Arm.CONTROL):
        assert math.isnan(found.control_equivalence.p_value)
    if arm in (Arm.BEFORE, Arm.AFTER):
        assert math.isnan(found.effects.share_left.estimate)
    others = [found.shifts[other] for other in arms if other is not arm]
    assert all(math.isfinite(other.specific.estimate) for other in others)


@examples(60)
@given(seed=st.integers(0, 2**32 - 1), seeds=st.integers(2, 4), concepts=st.integers(2, 5))
def test_the_tested_word_among_others_like_it_is_not_unusual(seed, seeds, concepts) -> None:
    """The mean of the off-target shifts itself, as a concept, has p 0.5 exactly."""
    rng = np.random.default_rng(seed)
    off_target = rng.normal(size=(seeds, 3, concepts))
    found = shift(LogOdds(off_target.mean(axis=-1), off_target))
    assume(found.off_target_spread > 1e-6)
    assert found.unusual_p == pytest.approx(0.5, abs=1e-6)
    assert found.specific.estimate == pytest.approx(0, abs=1e-9)
