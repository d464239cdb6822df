"""Figures as they stand in a probe's record, which is JSON."""

from __future__ import annotations

import numpy as np


def rounded(value: float) -> float | None:
    """``value`` to four decimals; None for what is not a finite number, which JSON cannot hold."""
    return round(float(value), 4) if np.isfinite(value) else None
