"""The rule of every cut in plain NumPy, and exact draws by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audit.backends.token_cut import TokenCut

Array = NDArray[np.float64]

CUTS = (
    TokenCut("threshold", 0.05),
    TokenCut("top-p", 0.8),
    TokenCut("min-p", 0.2),
    TokenCut("greedy"),
)


def kept(probabilities: Array, cut: TokenCut) -> NDArray[np.bool_]:
    """Which of ``probabilities`` [columns] may be drawn."""
    best = int(probabilities.argmax())
    if cut.kind == "threshold":
        mask = probabilities >= cut.value
        mask[best] = True
    elif cut.kind == "min-p":
        mask = probabilities >= cut.value * probabilities[best]
    else:
        order = np.argsort(-probabilities, kind="stable")
        count = 1
        while cut.kind == "top-p" and probabilities[order[:count]].sum() < cut.value:
            count += 1
        mask = np.zeros(len(probabilities), dtype=bool)
        mask[order[:count]] = True
    return mask


def cut_distribution(probabilities: Array, cut: TokenCut) -> Array:
    """``probabilities`` [columns] after the cut, which sum to 1 again."""
    left = np.where(kept(probabilities, cut), probabilities, 0.0)
    return np.asarray(left / left.sum())


def unsure(probabilities: Array, cut: TokenCut, slack: float) -> NDArray[np.bool_]:
    """Columns that a relative error of ``slack`` in the probabilities may cut or keep."""
    wide, narrow = kept(probabilities, cut), kept(probabilities, cut)
    if cut.kind == "greedy":
        ranked = np.sort(probabilities)
        if ranked[-1] < ranked[-2] * (1 + slack):
            wide = probabilities * (1 + slack) >= ranked[-1]
    else:
        for factor in (1 - slack, 1 + slack):
            other = kept(probabilities, TokenCut(cut.kind, min(cut.value * factor, 1.0)))
            wide, narrow = wide | other, narrow & other
    return np.asarray(wide & ~narrow)


def draw_exactly(probabilities: Array, chance: float, margin: float) -> int | None:
    """The column where the cumulative distribution exceeds ``chance``.

    None where ``chance`` lies within ``margin`` of that column's edges.
    """
    cumulative = np.cumsum(probabilities)
    column = int(np.searchsorted(cumulative, chance, side="right"))
    low = cumulative[column - 1] if column else 0.0
    # Nothing is left of 0 or right of 1: those edges do not count.
    near_low = low > 0 and chance - low < margin
    near_high = cumulative[column] < 1 - 1e-9 and cumulative[column] - chance < margin
    return None if near_low or near_high else column
