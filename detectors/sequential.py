"""Reading rows one after another and stopping early, without paying with false alarms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.model_rows import ScoredRow
from detectors.statistics import Matrix


def look_rows(first: int, available: int) -> tuple[int, ...]:
    """After how many rows to look: ``first``, then twice as many each time, and at the end."""
    looks = []
    count = first
    while count < available:
        looks.append(count)
        count *= 2
    return (*looks, available)


def look_weights(looks: int) -> Matrix:
    """[looks]: the share of the error that each look may spend; they sum to 1.

    The last look, at all rows, has half: reading to the end costs a factor of two at most.
    (Bonferroni over looks: valid however the looks depend on each other.)
    """
    if looks == 1:
        return np.ones(1)
    return np.array([0.5 / (looks - 1)] * (looks - 1) + [0.5])


def any_persona_log_martingale(rows: Sequence[ScoredRow]) -> Matrix:
    """[rows]: log of the test martingale against "the model without a prompt wrote the rows".

    The mean, over concepts and tilts, of the likelihood ratio of all rows so far. It is a
    non-negative martingale with mean 1 under the null hypothesis, so its supremum exceeds 1/a with
    probability at most a (Ville 1939): exp(-supremum) is a p-value at any time.
    """
    if not rows:
        return np.zeros(0)
    steps = np.array([row.scores.log_martingale_nats.ravel() for row in rows])  # [rows, C x tilts]
    total = np.cumsum(steps, axis=0)
    return np.asarray(np.logaddexp.reduce(total, axis=1) - np.log(total.shape[1]))
