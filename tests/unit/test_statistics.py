"""Row-level statistics: exactness, hand-worked values, and calibration by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors.statistics import (
    SCORE_QUANTUM,
    benjamini_hochberg,
    compare_with_expectation,
    compare_with_reference,
    condition_on,
    empirical_null,
    empty_moments,
    log_ratio_interval,
    merge_moments,
    row_moments,
)


def same(left, right) -> bool:
    return (
        left.rows == right.rows
        and (left.total == right.total).all()
        and (left.cross == right.cross).all()
    )


def test_moments_agree_with_numpy():
    scores = np.random.default_rng(0).normal(size=(500, 3))
    moments = row_moments(scores)
    np.testing.assert_allclose(moments.mean(), scores.mean(axis=0), atol=SCORE_QUANTUM)
    np.testing.assert_allclose(moments.covariance(), np.cov(scores.T), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9000), min_size=2, max_size=4))
def test_moments_merge_to_the_last_bit_in_any_order(seed, sizes):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(scale=9, size=(size, 2)) for size in sizes]
    whole = row_moments(np.concatenate(parts))
    states = [row_moments(part) for part in parts]
    forwards, backwards = empty_moments(2), empty_moments(2)
    for state in states:
        forwards = merge_moments(forwards, state)
    for state in reversed(states):
        backwards = merge_moments(state, backwards)
    assert same(whole, forwards)
    assert same(whole, backwards)


def test_no_rows_are_undefined_not_zero():
    moments = empty_moments(2)
    assert np.isnan(moments.mean()).all()
    assert np.isnan(moments.covariance()).all()


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        row_moments(np.array([[np.nan]]))


def test_comparison_is_welch():
    rng = np.random.default_rng(1)
    data, reference = rng.normal(0.2, 1, (400, 1)), rng.normal(0, 2, (300, 1))
    comparison = compare_with_reference(row_moments(data), row_moments(reference))
    welch = stats.ttest_ind(data[:, 0], reference[:, 0], equal_var=False)
    assert comparison.z[0] == pytest.approx(welch.statistic, abs=1e-3)
    assert comparison.degrees_of_freedom[0] == pytest.approx(welch.df, abs=0.1)


def test_comparison_with_an_expectation_is_the_one_sample_t():
    data = np.random.default_rng(2).normal(0.1, 1, (400, 1))
    comparison = compare_with_expectation(row_moments(data), np.zeros(1))
    assert comparison.z[0] == pytest.approx(stats.ttest_1samp(data[:, 0], 0).statistic, abs=1e-3)


def test_agrees_with_a_row_permutation():
    rng = np.random.default_rng(3)
    data, reference = rng.exponential(1.15, 150), rng.exponential(1.0, 150)
    comparison = compare_with_reference(row_moments(data[:, None]), row_moments(reference[:, None]))
    pooled = np.concatenate([data, reference])
    observed = data.mean() - reference.mean()
    draws = np.array([rng.permutation(pooled)[:150].mean() for _ in range(4000)])
    above = (2 * draws - 2 * pooled.mean() >= observed).sum()
    permutation_p = (1 + above) / 4001
    welch_p = stats.t.sf(comparison.z[0], comparison.degrees_of_freedom[0])
    assert welch_p == pytest.approx(permutation_p, abs=0.02)


def test_empirical_null_by_hand_for_independent_decoys():
    z = np.array([9.0, 1.0, -2.0, 2.0])
    null = empirical_null(z, np.eye(4), 0, np.array([1, 2, 3]))
    assert null.degrees_of_freedom == 3
    assert null.dispersion == pytest.approx(np.sqrt((1 + 4 + 4) / 3))
    assert null.upper_p(np.array(9.0)) == pytest.approx(stats.t.sf(9 / np.sqrt(3), 3))


def test_what_the_tested_concept_carries_does_not_widen_its_own_null():
    # Three centred concepts: each one's score is minus the others', so a signal in one leaks.
    correlation = np.array([[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]])
    quiet, loud = np.array([0.0, 1.0, -1.0]), np.array([10.0, 1.0 - 5.0, -1.0 - 5.0])
    others = np.array([1, 2])
    assert empirical_null(loud, correlation, 0, others).dispersion == pytest.approx(
        empirical_null(quiet, correlation, 0, others).dispersion
    )


@pytest.mark.parametrize("dispersion", [1.0, 2.0])
def test_p_values_are_uniform_under_correlated_and_overdispersed_nulls(dispersion):
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(12, 12))
    covariance = mixing @ mixing.T + 6 * np.eye(12)
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    root = np.linalg.cholesky(correlation) * dispersion
    p_values = []
    for _ in range(4000):
        z = root @ rng.normal(size=12)
        null = empirical_null(z, correlation, 0, np.arange(1, 12))
        p_values.append(null.upper_p(z[:1])[0])
    assert stats.kstest(p_values, "uniform").pvalue > 0.001
    for alpha in (0.05, 0.01):
        low, high = stats.binom.interval(0.999, 4000, alpha)
        assert low <= np.sum(np.array(p_values) <= alpha) <= high


def test_no_decoys_give_no_null():
    null = empirical_null(np.array([1.0]), np.eye(1), 0, np.array([], dtype=np.int64))
    assert np.isnan(null.dispersion)
    assert null.degrees_of_freedom == 0


def test_benjamini_hochberg_by_hand_and_nan_kept():
    q_values = benjamini_hochberg(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(q_values, [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(benjamini_hochberg(np.array([np.nan]))).all()


def test_log_ratio_interval_by_hand():
    # Three rows: unit counts x = 1, 0, 2 of k = 2, 2, 4 units: share 3/8.
    share, variance = log_ratio_interval(
        np.array([3]), np.array([5.0]), np.array([2.0 + 8.0]), 8, 24.0
    )
    assert share[0] == pytest.approx(3 / 8)
    residuals = np.array([1 - 0.75, 0 - 0.75, 2 - 1.5])
    assert variance[0] == pytest.approx((residuals**2).sum() / 64 / (3 / 8) ** 2)


def test_a_unit_never_seen_has_no_variance():
    share, variance = log_ratio_interval(np.array([0]), np.zeros(1), np.zeros(1), 8, 24.0)
    assert share[0] == 0.0
    assert np.isnan(variance[0])


def test_conditioning_is_partial_correlation():
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(4, 4))
    covariance = mixing @ mixing.T
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    precision = np.linalg.inv(correlation)
    z, partial = condition_on(np.array([3.0, 1.0, -1.0, 0.5]), correlation, 0)
    # With one variable known, the partial correlations are those of the others' own inverse block.
    left = np.linalg.inv(precision[1:, 1:])
    root = np.sqrt(np.diag(left))
    np.testing.assert_allclose(partial[1:, 1:], left / np.outer(root, root), atol=1e-9)
    by_hand = (1.0 - correlation[1, 0] * 3.0) / np.sqrt(1 - correlation[1, 0] ** 2)
    assert z[1] == pytest.approx(by_hand)
    assert np.isnan(z[0])
