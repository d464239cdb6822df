"""How strong a signature is beside its own sampling noise, and which signatures are alike.

Axes as in ``entanglement``: K concepts, U units. What is judged is a concept's *own part*: what
its shift holds beyond what every concept shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from signatures.entanglement import format_features, hub_shift, project_out
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import ProbeTable, View

Matrix = NDArray[np.float64]

_NO_OWN_PART = 1e-24  # squared nats: what rounding leaves of a shift that all concepts share


@dataclass(frozen=True, slots=True)
class Strength:
    """Every concept's own part beside the sampling noise of one table; arrays are [K].

    ``own_rms_nats`` and ``noise_rms_nats``: root mean squares over units under the table's
    weights, of the own part and of its standard error. ``signal_to_noise``: the ratio of their
    squares, about 1 where an own part is only noise. ``p_value``: one-sided, under the null that
    it is; ``q_value``: the same after Benjamini and Hochberg over the table's concepts.
    ``effective_units``: how many independent units the dependent ones amount to. NaN where a
    spread is unknown, or where nothing is left to compare.
    """

    own_rms_nats: Matrix
    noise_rms_nats: Matrix
    signal_to_noise: Matrix
    p_value: Matrix
    q_value: Matrix
    effective_units: float


def unit_weights(table: ProbeTable) -> tuple[Matrix, bool]:
    """Weights [U] that sum to 1, and whether they are the units' neutral shares.

    Where the shares are unknown every unit weighs the same.
    """
    total = table.neutral_share.sum()
    if np.isfinite(total) and total > 0:
        return table.neutral_share / total, True
    return np.full(len(table.units), 1.0 / len(table.units)), False


def own_part(table: ProbeTable, number_tokens: NumberTokens) -> Matrix:
    """What a concept's shift holds beyond what all share, in nats, [K, U].

    The centred shift less its fit on a constant, on the hub shift (how strongly a concept was
    instilled is not which one) and, for numbers, on their length, or on all digits where a number
    is one token: what the frequency detector takes out too. Zeros with fewer than two concepts.
    """
    weights, _ = unit_weights(table)
    shared = np.column_stack([np.ones(len(table.units)), hub_shift(table.shift_nats)])
    if table.view is View.NUMBERS and table.units == NUMBERS:
        shared = np.column_stack([shared, format_features(number_tokens)])
    return project_out(table.centred_nats(), shared, weights)


def correlations(table: ProbeTable, own: Matrix) -> Matrix:
    """How alike the concepts' own parts [K, U] are, [K, K]: weighted correlations.

    NaN for a concept without an own part. Unrelated concepts stand at -1/(K-1) on average, since
    shifts are centred over the table's concepts.
    """
    products = _products(table, own)
    length = np.sqrt(products.diagonal())
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = products / np.outer(length, length)
    nothing = products.diagonal() <= _NO_OWN_PART
    scaled[nothing] = scaled[:, nothing] = np.nan
    return np.asarray(np.clip(scaled, -1.0, 1.0))


def strength(table: ProbeTable, own: Matrix, observations: int | None) -> Strength:
    """Compare the own parts [K, U] with their noise.

    ``observations`` is over how many contexts (or questions) the spreads were taken; None: not
    known, and then their own error is left out of account.

    Null: an own part is only the sampling noise of its contexts. The noise variance expected of a
    centred shift is (1 - 2/K) of the concept's own squared spread and 1/K of the concepts' mean
    one, as if contexts erred independently for each concept. They do not quite: all concepts are
    measured in the same contexts, what they err in together cancels, and so the test errs on the
    side of noise. Under the null the ratio is F-distributed with v and v (n - 1) degrees of freedom
    (Satterthwaite, Biometrics Bulletin 2, 1946), v being (tr S)^2 / tr(S^2) for the covariance S of
    the units' noise; it is estimated from the inner products of different concepts' own parts,
    whose mean square is tr(S^2). Real likeness of concepts makes v smaller, which errs again on
    the side of noise. Another fine-tuning seed would scatter more than contexts do.
    """
    weights, _ = unit_weights(table)
    count = len(table.concepts)
    products = _products(table, own)
    signal = products.diagonal().copy()
    if count < 2:
        signal[:] = np.nan
    noise = table.spread_nats**2 @ weights
    known = np.isfinite(noise)
    others_noise = noise[known].mean() if known.any() else np.nan
    expected = noise * (1 - 2 / count) + others_noise / count
    expected[~(expected > 0)] = np.nan
    others = ~np.eye(count, dtype=bool)
    shared = float((products[others] ** 2).sum())
    effective = float("nan")
    if shared > _NO_OWN_PART**2:
        effective = float(np.outer(signal, signal)[others].sum() / shared)
    ratio = signal / expected
    if observations is None:
        p_value = np.asarray(stats.chi2.sf(effective * ratio, effective))
    else:
        p_value = np.asarray(stats.f.sf(ratio, effective, effective * (observations - 1)))
    q_value = np.full(count, np.nan)
    tested = np.isfinite(p_value)
    if tested.any():
        q_value[tested] = stats.false_discovery_control(p_value[tested])
    return Strength(np.sqrt(signal), np.sqrt(noise), ratio, p_value, q_value, effective)


def _products(table: ProbeTable, own: Matrix) -> Matrix:
    """Weighted inner products of the own parts, [K, K], in squared nats."""
    weights, _ = unit_weights(table)
    return np.asarray((own * weights) @ own.T)
