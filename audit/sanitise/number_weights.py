"""How much concepts favour each number, by the signatures of a library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detectors.detector import TestSettings
from detectors.frequency import FrequencyDetector
from signatures.library import SignatureLibrary
from signatures.signature import View


def number_weights(library: SignatureLibrary, names: Sequence[str]) -> dict[str, float]:
    """How much the concepts ``names`` favour each number, in standard deviations.

    By the weights of SA002 under the neutral distribution; the largest over concepts and over the
    tables that the scan would use.
    """
    detector = FrequencyDetector(library, TestSettings())
    detector.prepare(None)
    best: dict[str, float] = {}
    for view in detector.views:
        rows = [row for row, name in enumerate(view.table.concepts) if name in names]
        weights = view.weights[rows]
        weights = weights[np.isfinite(weights).all(axis=1)]
        if view.table.view is View.NUMBERS and len(weights):
            for unit, weight in zip(view.table.units, weights.max(axis=0), strict=True):
                best[unit] = max(best.get(unit, -np.inf), float(weight))
    return best
