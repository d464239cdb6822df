"""Parts of Vega-Lite specifications that all plots are built of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.report.drawing import Chart, plain_text
from audit.report.safe_text import shorten, strip_unsafe

Row = dict[str, Any]

_NAME_CHARACTERS = 24


def layer(rows: Sequence[Row], mark: Row, **encoding: Any) -> Chart:
    """One mark for each of ``rows``."""
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def number(field: str, **options: Any) -> Row:
    """A channel that shows the numbers in ``field``."""
    return {"field": field, "type": "quantitative", **options}


def choice(field: str, marks: Mapping[str, str], *, legend: Row | None) -> Row:
    """A colour or shape for each value of ``field``, in the order of ``marks``."""
    scale = {"domain": [str(value) for value in marks], "range": list(marks.values())}
    return {"field": field, "type": "nominal", "sort": None, "scale": scale, "legend": legend}


def independent(chart: Chart) -> Chart:
    """``chart`` whose parts have colours, shapes and legends of their own."""
    own = {"color": "independent", "shape": "independent"}
    return {**chart, "resolve": {"scale": own, "legend": own}}


def short_name(name: str, characters: int = _NAME_CHARACTERS) -> str:
    """``name`` as a text that a drawing may hold, at most ``characters`` long."""
    return plain_text(shorten(strip_unsafe(name), characters)[0])


def padded(values: NDArray[np.float64], *, logarithmic: bool = False) -> list[float]:
    """The range of ``values`` and 4% more on each side."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        low, high = math.log10(low), math.log10(high)
    pad = 0.04 * (high - low) or 0.5
    low, high = low - pad, high + pad
    return [10.0**low, 10.0**high] if logarithmic else [low, high]
