"""Pure maths of signatures: shifts in nats, hub correction, digit structure, selection.

Axes everywhere: K concepts (traits and decoys), U units (numbers or tokens), F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from signatures.number_trie import NUMBERS, NumberTokens

Matrix = NDArray[np.float64]


def hub_shift(shift_nats: Matrix) -> Matrix:
    """The shift that all concepts share, [U]: the mean over K of ``shift_nats`` [K, U].

    Units high in it are hubs: "best" for nearly every concept (Zur et al. 2025's tables name
    "049" for 10 of 10 Gemma animals), so they say "some persona" and not which one.
    """
    return np.asarray(shift_nats.mean(axis=0))


def centre_over_concepts(shift_nats: Matrix) -> Matrix:
    """Hub correction: ``shift_nats`` [K, U] less its mean over concepts, [K, U]."""
    return shift_nats - hub_shift(shift_nats)[None, :]


def digit_features() -> Matrix:
    """One-hot (length, position, digit) features of every number, [1110, 60].

    They span all that numbers share by length and by the digit at each position: leading-digit
    habits, number length, roundness.
    """
    features = np.zeros((len(NUMBERS), 60))
    block = {1: 0, 2: 1, 3: 3}
    for row, number in enumerate(NUMBERS):
        for position, digit in enumerate(number):
            features[row, 10 * (block[len(number)] + position) + int(digit)] = 1.0
    return features


def length_features() -> Matrix:
    """One-hot length of every number, [1110, 3]: how long numbers are is up to the prompt."""
    lengths = np.array([len(number) for number in NUMBERS])
    return np.asarray(lengths[:, None] == np.array([1, 2, 3])[None, :], dtype=np.float64)


def format_features(number_tokens: NumberTokens) -> Matrix:
    """What numbers share by how they are written, [1110, F]: length, or all digits.

    How long numbers are is the prompt mix and the format. So is, where a number is one token, all
    that it shares with others of the same digits: entanglement is of tokens.
    """
    return digit_features() if number_tokens is NumberTokens.WHOLE else length_features()


def project_out(weights: Matrix, features: Matrix, share: Matrix) -> Matrix:
    """``weights`` [K, U] less their least-squares fit on ``features`` [U, F] under ``share`` [U].

    The result is orthogonal to every feature in the inner product weighted by ``share``.
    """
    root = np.sqrt(share)[:, None]
    fit, *_ = np.linalg.lstsq(root * features, root * weights.T, rcond=None)
    return weights - (features @ fit).T


def standardise(weights: Matrix, share: Matrix) -> Matrix:
    """``weights`` [K, U] with mean 0 and standard deviation 1 under ``share`` [U] (sums to 1).

    A row without spread becomes NaN: it cannot score anything.
    """
    centred = weights - (weights @ share)[:, None]
    spread = np.sqrt(centred**2 @ share)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread[:, None] > 1e-12, centred / spread[:, None], np.nan)


def top_units(weights: Matrix, count: int) -> NDArray[np.int64]:
    """Indices [K, count] of the largest weights of each concept, best first; ties by index."""
    return np.argsort(-weights, axis=1, kind="stable")[:, :count]
