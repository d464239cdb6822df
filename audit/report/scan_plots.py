"""Plots of a scan: who says what of each concept, effects with their intervals, enriched units.

Every figure is as wide as a phone. Charts are composed here as Vega-Lite specifications, in which
texts from data are values and never expressions, and drawn by ``audit.report.drawing``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit.report import summary
from audit.report.chart_parts import Row, choice, layer, number, padded, short_name
from audit.report.drawing import INK, LOWERED, MUTED, RAISED, Chart, Figure, draw, plain_text
from audit.report.safe_text import shorten, strip_unsafe
from detectors.finding import Finding, TokenEnrichment, Verdict

# All in points.
_LABEL_WIDTH = 104
_SIGN_WIDTH = 20  # a column of signs
_NUMBER_WIDTH = 47  # a column of signs with q-values
_ROW_HEIGHT = 18
_LANE_HEIGHT = 17
_PLOT_WIDTH = 214
_LETTER_WIDTH = 6.2

_LABEL_CHARACTERS = 17
_COLUMN_CHARACTERS = 22
_NUMBER_CHARACTERS = 8  # above a column with q-values
_FARTHEST = 3.0  # what could be detected beyond so many times the largest end is off the scale

STEPS = ("#f1eee9", "#fbdcbc", "#f4bb85", "#b4540a", "#7a3404")
"""Fills of a heat map, from weak to strong. The page restyles them for a dark screen."""

ON_STRONG = "#ffffff"
"""Text on the last two of ``STEPS``; text on the others is ``INK``."""

_STRONG_FROM = 3
_CERTAIN_Q, _STRONG_Q = 1e-6, 1e-3

MARKS: Mapping[Verdict, tuple[str, str]] = {
    Verdict.FLAGGED: ("triangle-up", LOWERED),
    Verdict.INCONCLUSIVE: ("diamond", MUTED),
    Verdict.NOT_DETECTED: ("circle", RAISED),
}
"""Verdict -> shape and colour of an effect."""


# Heat maps


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a heat map. ``sign`` is shown in it; ``q_value`` colours it, undefined: grey."""

    sign: str
    q_value: float


def step(q_value: float, rate: float) -> int:
    """Which of ``STEPS`` shows ``q_value``: the third and on are at or below the ``rate``."""
    if math.isnan(q_value) or q_value > 0.5:
        return 0
    return 1 + (q_value <= rate) + (q_value <= _STRONG_Q) + (q_value <= _CERTAIN_Q)


def step_words(rate: float) -> list[str]:
    """What each of ``STEPS`` stands for."""
    return [
        "q above 0.5, or not known",
        f"0.5 down to {rate:g}",
        f"{rate:g} down to {_STRONG_Q:g}",
        f"{_STRONG_Q:g} down to 1e-6",
        "1e-6 and less",
    ]


def heat_map(
    concepts: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Cell | None]],
    rate: float,
    *,
    with_numbers: bool,
    description: str,
) -> Figure:
    """``cells`` [concept, column], None where nothing was asked.

    ``with_numbers`` writes the q-value beside each sign and the column's name across; without,
    columns are narrow and their names stand upright.
    """
    width = _NUMBER_WIDTH if with_numbers else _SIGN_WIDTH
    most = _NUMBER_CHARACTERS if with_numbers else _COLUMN_CHARACTERS
    names = [short_name(name, most) for name in columns]
    head = _ROW_HEIGHT if with_numbers else 8 + _LETTER_WIDTH * max(map(len, names), default=0)
    height = head + _ROW_HEIGHT * len(concepts)
    labels_at = _room(short_name(name, _LABEL_CHARACTERS) for name in concepts)
    total = labels_at + width * len(columns)
    fields: list[Row] = []
    texts: list[Row] = []
    for row, of_concept in enumerate(cells):
        top = head + _ROW_HEIGHT * row
        for column, cell in enumerate(of_concept):
            if cell is None:
                continue
            left = labels_at + width * column
            shade = step(cell.q_value, rate)
            fields.append(
                {
                    "x": left + 1,
                    "x2": left + width - 1,
                    "y": top + 1,
                    "y2": top + _ROW_HEIGHT - 1,
                    "shade": str(shade),
                }
            )
            shown = cell.sign
            if with_numbers and math.isfinite(cell.q_value):
                shown = f"{shown} {summary.probability(cell.q_value)}".strip()
            texts.append(
                {
                    "x": left + width / 2,
                    "y": top + _ROW_HEIGHT / 2,
                    "words": shown,
                    "ink": "strong" if shade >= _STRONG_FROM else "weak",
                }
            )
    labels = [
        {
            "x": labels_at - 5,
            "y": head + _ROW_HEIGHT * (row + 0.5),
            "words": short_name(name, _LABEL_CHARACTERS),
        }
        for row, name in enumerate(concepts)
    ]
    heads = [
        {"x": labels_at + width * (column + 0.5), "y": head - 5, "words": name}
        for column, name in enumerate(names)
    ]
    x, y = _across(total), _down(height)
    shades = {str(shade): fill for shade, fill in enumerate(STEPS)}
    words = {"field": "words"}
    text = {"type": "text", "fontSize": 10 if with_numbers else 12, "baseline": "middle"}
    upright = {"align": "center"} if with_numbers else {"angle": 270, "align": "left"}
    layers = [
        layer(
            fields,
            {"type": "rect"},
            x=x,
            x2={"field": "x2"},
            y=y,
            y2={"field": "y2"},
            color=choice("shade", shades, legend=None),
        ),
        layer(
            labels, {**text, "fontSize": 11, "align": "right", "color": INK}, x=x, y=y, text=words
        ),
        layer(
            heads,
            {**text, "fontSize": 11, "color": INK, **upright},
            x=x,
            y=y,
            text=words,
        ),
        *(
            layer(
                [each for each in texts if each["ink"] == ink],
                {**text, "align": "center", "color": colour},
                x=x,
                y=y,
                text=words,
            )
            for ink, colour in (("weak", INK), ("strong", ON_STRONG))
        ),
    ]
    return draw({"layer": layers, "width": total, "height": height}, description)


# Effects


def effect_figure(findings: Sequence[Finding]) -> Figure | None:
    """Effects of one detector, all in one unit: interval, zero, smallest detectable effect.

    One lane a finding, in their order; None where no finding has a number to show.
    """
    if not any(_known(f) for f in findings):
        return None
    ends = [v for f in findings for v in (f.effect, f.effect_low, f.effect_high) if _finite(v)]
    farthest = _FARTHEST * max((abs(v) for v in ends), default=0.0) or math.inf
    seen = [f.smallest_detectable_effect for f in findings]
    near = [v for v in seen if _finite(v) and v <= farthest]
    low, high = padded(np.array([0.0, *ends, *near]))
    bars: list[Row] = []
    points: list[Row] = []
    ticks: list[Row] = []
    beyond: list[Row] = []
    for place, f in enumerate(findings):
        at = (place + 0.5) * _LANE_HEIGHT
        if _finite(f.effect):
            points.append({"x": f.effect, "y": at, "verdict": f.verdict.value})
            if _finite(f.effect_low) and _finite(f.effect_high):
                bar = {"x": f.effect_low, "x2": f.effect_high, "y": at}
                bars.append({**bar, "verdict": f.verdict.value})
        if _finite(f.smallest_detectable_effect):
            if f.smallest_detectable_effect <= farthest:
                half = _LANE_HEIGHT / 2 - 2
                ticks.append({"x": f.smallest_detectable_effect, "y": at - half, "y2": at + half})
            else:
                beyond.append({"x": high, "y": at, "words": "▸"})
    x = _scale([low, high], _unit_title(findings[0]))
    y = _down(_LANE_HEIGHT * len(findings))
    colour = choice("verdict", {v.value: mark[1] for v, mark in MARKS.items()}, legend=None)
    shape = choice("verdict", {v.value: mark[0] for v, mark in MARKS.items()}, legend=None)
    tick = {"type": "rule", "color": INK, "strokeWidth": 1.6, "strokeDash": [3, 2]}
    off = {"type": "text", "align": "right", "baseline": "middle", "fontSize": 11, "color": INK}
    layers = [
        layer(ticks, tick, x=x, y=y, y2={"field": "y2"}),
        layer(beyond, off, x=x, y=y, text={"field": "words"}),
        layer(
            bars, {"type": "rule", "strokeWidth": 1.6}, x=x, x2={"field": "x2"}, y=y, color=colour
        ),
        layer(points, _POINT, x=x, y=y, color=colour, shape=shape),
    ]
    shown = [
        f"{short_name(f.concept)} {summary.signed(f.effect)} "
        f"({summary.interval(f.effect_low, f.effect_high)}), {f.verdict.value}"
        for f in findings[:_TOLD]
    ]
    more = f", and {len(findings) - _TOLD:,} more" if len(findings) > _TOLD else ""
    return _lanes(
        [f.concept for f in findings],
        layers,
        x,
        f"{short_name(findings[0].code)}: effects with 95% intervals, in "
        f"{_unit(findings[0]) or 'no unit'}: {'; '.join(shown)}{more}.",
    )


def token_figure(concept: str, tokens: Sequence[TokenEnrichment]) -> Figure | None:
    """Log-ratios of units with their intervals, and zero; None where none is known."""
    known = [t for t in tokens if _finite(t.log_ratio_nats)]
    if not known:
        return None
    ends = [
        v
        for t in known
        for v in (t.log_ratio_nats, t.log_ratio_low_nats, t.log_ratio_high_nats)
        if _finite(v)
    ]
    bars: list[Row] = []
    points: list[Row] = []
    for place, t in enumerate(tokens):
        if not _finite(t.log_ratio_nats):
            continue
        at = (place + 0.5) * _LANE_HEIGHT
        side = "more" if t.log_ratio_low_nats > 0 else "less" if t.log_ratio_high_nats < 0 else "-"
        points.append({"x": t.log_ratio_nats, "y": at, "side": side})
        if _finite(t.log_ratio_low_nats) and _finite(t.log_ratio_high_nats):
            bar = {"x": t.log_ratio_low_nats, "x2": t.log_ratio_high_nats, "y": at, "side": side}
            bars.append(bar)
    x = _scale(padded(np.array([0.0, *ends])), "log-ratio seen to expected, nats")
    y = _down(_LANE_HEIGHT * len(tokens))
    sides = {"more": ("triangle-up", LOWERED), "less": ("triangle-down", RAISED)}
    sides["-"] = ("circle", MUTED)
    colour = choice("side", {name: mark[1] for name, mark in sides.items()}, legend=None)
    shape = choice("side", {name: mark[0] for name, mark in sides.items()}, legend=None)
    layers = [
        layer(
            bars, {"type": "rule", "strokeWidth": 1.6}, x=x, x2={"field": "x2"}, y=y, color=colour
        ),
        layer(points, _POINT, x=x, y=y, color=colour, shape=shape),
    ]
    shown = [f"{_token(t.unit)} {summary.signed(t.log_ratio_nats)}" for t in tokens[:_TOLD]]
    return _lanes(
        [_token(t.unit) for t in tokens],
        layers,
        x,
        f"How often units that {short_name(concept)} favours occur, against what was expected, as "
        f"log-ratios in nats with 95% intervals: {', '.join(shown)}.",
    )


_TOLD = 8  # lanes that a figure's description tells
_POINT: Row = {"type": "point", "filled": True, "size": 46, "opacity": 1}


def _lanes(names: Sequence[str], layers: Sequence[Chart], x: Row, description: str) -> Figure:
    """``layers`` over lanes named at their left, and a line at zero."""
    height = _LANE_HEIGHT * len(names)
    y = _down(height)
    labels = [
        {"y": (place + 0.5) * _LANE_HEIGHT, "words": short_name(name, _LABEL_CHARACTERS)}
        for place, name in enumerate(names)
    ]
    label = {"type": "text", "align": "right", "baseline": "middle", "fontSize": 11, "color": INK}
    named = layer(labels, {**label, "x": -6}, y=y, text={"field": "words"})
    zero = layer(
        [{"x": 0.0, "y": 0, "y2": height}],
        {"type": "rule", "color": MUTED},
        x=x,
        y=y,
        y2={"field": "y2"},
    )
    layered = [named, zero, *layers]
    return draw({"layer": layered, "width": _PLOT_WIDTH, "height": height}, description)


def _scale(domain: Sequence[float], title: str) -> Row:
    axis = {"title": title, "tickCount": 5, "grid": False}
    return number("x", scale={"domain": list(domain), "nice": False}, axis=axis)


def _across(width: float) -> Row:
    """Points from the left edge."""
    return number("x", scale={"domain": [0, width], "nice": False}, axis=None)


def _down(height: float) -> Row:
    """Points from the upper edge."""
    return number("y", scale={"domain": [0, height], "nice": False, "reverse": True}, axis=None)


def _room(labels: Iterable[str]) -> float:
    """Width of the column of ``labels``."""
    return min(_LABEL_WIDTH, 10 + _LETTER_WIDTH * max(map(len, labels), default=0))


# Numbers and words


def by_test(findings: Iterable[Finding]) -> dict[tuple[str, str, str], list[Finding]]:
    """Findings by (code, detector, effect unit), sorted by it; each keeps its order."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.code, f.detector, f.effect_unit), []).append(f)
    return dict(sorted(groups.items()))


def _known(f: Finding) -> bool:
    return _finite(f.effect) or _finite(f.smallest_detectable_effect)


def _finite(value: float) -> bool:
    return math.isfinite(value)


def _unit(f: Finding) -> str:
    return short_name(f.effect_unit, 40)


def _unit_title(f: Finding) -> str:
    unit = _unit(f)
    return f"effect, {unit}" if unit else "effect"


def _token(unit: str) -> str:
    return plain_text(shorten(strip_unsafe(unit.replace(" ", "␣")), _LABEL_CHARACTERS)[0])
