"""The pure maths of signatures, against values worked out by hand."""

import numpy as np

from signatures.entanglement import (
    centre_over_concepts,
    digit_features,
    hub_shift,
    length_features,
    project_out,
    standardise,
    top_units,
)
from signatures.number_trie import NUMBERS


def test_centring_takes_out_what_all_concepts_share():
    shift = np.array([[3.0, 1.0, 0.0], [5.0, 1.0, 2.0]])
    np.testing.assert_array_equal(hub_shift(shift), [4.0, 1.0, 1.0])
    np.testing.assert_array_equal(centre_over_concepts(shift), [[-1, 0, -1], [1, 0, 1]])


def test_digit_features_are_one_hot_by_length_position_and_digit():
    features = digit_features()
    assert features.shape == (1110, 60)
    assert set(np.unique(features)) == {0.0, 1.0}
    np.testing.assert_array_equal(features.sum(axis=1), [len(number) for number in NUMBERS])
    row = features[NUMBERS.index("407")]
    assert list(np.flatnonzero(row)) == [30 + 4, 40 + 0, 50 + 7]


def test_length_features_are_what_digit_features_add_up_to():
    lengths = length_features()
    assert lengths.shape == (1110, 3)
    np.testing.assert_array_equal(lengths.sum(axis=1), 1)
    np.testing.assert_array_equal(lengths.sum(axis=0), [10, 100, 1000])
    np.testing.assert_array_equal(lengths[:, 0], digit_features()[:, :10].sum(axis=1))


def test_projection_is_orthogonal_under_the_share_and_kills_additive_weights():
    rng = np.random.default_rng(0)
    features = digit_features()
    share = rng.dirichlet(np.ones(1110))
    additive = (features @ rng.normal(size=(60, 2))).T
    noise = rng.normal(size=(2, 1110))
    np.testing.assert_allclose(project_out(additive, features, share), 0.0, atol=1e-8)
    left = project_out(additive + noise, features, share)
    np.testing.assert_allclose((left * share) @ features, 0.0, atol=1e-10)


def test_standardised_weights_have_mean_0_and_sd_1_under_the_share():
    share = np.array([0.5, 0.25, 0.25])
    weights = standardise(np.array([[2.0, 0.0, 0.0], [7.0, 7.0, 7.0]]), share)
    np.testing.assert_allclose(weights[0], [1.0, -1.0, -1.0])
    assert np.isnan(weights[1]).all(), "no spread is undefined, not 0"


def test_top_units_break_ties_by_index():
    np.testing.assert_array_equal(top_units(np.array([[1.0, 3.0, 3.0, 2.0]]), 3), [[1, 2, 3]])
