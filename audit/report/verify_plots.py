"""Plots of a verification: shifts by arm and by question, what is left, sampled answers.

Every figure is as wide as a phone, with the words of a row above it. Charts are composed here as
Vega-Lite specifications and drawn by ``audit.report.drawing``.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit.report import verify_words as words
from audit.report.chart_parts import Row, choice, layer, number, padded, short_name
from audit.report.drawing import CLOUD, HUB, INK, LOWERED, MUTED, RAISED, Chart, Figure, draw
from audit.verify.result import VerifyResult
from audit.verify.transfer_statistics import Arm, Interval, LogOdds, Table

# All in points.
_WIDTH = 325
_LINE_HEIGHT = 14
_LANE_HEIGHT = 14  # of one interval
_SEEDS_HEIGHT = 14  # of the dots below it
_THIN_LANE_HEIGHT = 8  # of one arm below a question
_GAP = 8  # below a row

_LINE_CHARACTERS = 58
_MOST_LINES = 2
_MOST_QUESTIONS = 10  # a figure
_SHARE_LIMITS = (-1.0, 2.0)  # an interval may reach far beyond; its ends are written out
_GOLDEN = (math.sqrt(5) - 1) / 2

_MARKS: Mapping[str, tuple[str, str]] = {
    words.ANSWERS_BASE: ("cross", INK),
    Arm.BEFORE: ("circle", LOWERED),
    Arm.AFTER: ("diamond", RAISED),
    Arm.CONTROL: ("square", HUB),
    Arm.REFERENCE: ("triangle-up", MUTED),
    Arm.OTHER_AUTHORS: ("triangle-down", INK),
}
"""Group of models -> shape and colour."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A row of a chart: a group of models, its figure, and the same in words."""

    group: str
    interval: Interval
    text: str


def shift_figure(result: VerifyResult) -> Figure:
    """The concept's shift by arm: mean with interval, and a ring a seed; behind them the mean
    shifts of the off-target concepts."""
    shifts = result.verdict.figures.shifts
    rows = [
        _Measured(arm, shift.raw, words.nats_interval(shift.raw)) for arm, shift in shifts.items()
    ]
    lane = _LANE_HEIGHT + _SEEDS_HEIGHT
    seeds: list[Row] = []
    cloud: list[Row] = []
    for place, arm in enumerate(shifts):
        moved = result.students[arm] - result.base
        top = _lane(place, lane)
        by_seed: list[float] = moved.concept.mean(axis=1).tolist()
        others: list[float] = moved.off_target.mean(axis=(0, 1)).tolist()
        seeds += [{"x": x, "y": top + _LANE_HEIGHT + 5} for x in by_seed if math.isfinite(x)]
        # Heights carry no meaning: they keep the dots apart, the same way every time.
        cloud += [
            {"x": x, "y": top + 3 + index * _GOLDEN % 1 * (lane - 3)}
            for index, x in enumerate(others)
            if math.isfinite(x)
        ]
    values = [dot["x"] for dot in (*seeds, *cloud)]
    x = _axis([0.0, *_ends(rows), *values], "shift from the untrained model, nats of log-odds")
    at = {"x": x, "y": _down(_height(len(rows), lane))}
    faint = {"type": "circle", "color": CLOUD, "size": 16, "opacity": 1}
    ring = {"type": "point", "color": MUTED, "size": 24, "strokeWidth": 1.2, "opacity": 1}
    chart = _rows_chart(
        rows,
        x,
        lane=lane,
        lines=[0.0],
        behind=[layer(cloud, faint, **at)],
        front=[layer(seeds, ring, **at)],
    )
    beside = words.extent([dot["x"] for dot in cloud])
    return draw(
        chart,
        f"How far students moved towards {_name(result)}, in nats: {_listed(rows)}. Mean shifts of "
        f"off-target concepts: {beside}.",
    )


def share_figure(result: VerifyResult) -> Figure:
    """The share of the effect before that the sanitised data and the random edit leave, whatever
    effects are counted from, and the share up to which a trait counts as suppressed."""
    largest = result.verdict.thresholds.largest_share_left
    views = words.views(result)
    rows = [
        _Measured(
            arm,
            share,
            words.share_interval(share) + (f", from {zero}" if len(views) > 1 else ""),
        )
        for zero, view in views
        for arm, share in ((Arm.AFTER, view.share_left), (Arm.CONTROL, view.control_share_left))
    ]
    ends = np.clip(_ends(rows), *_SHARE_LIMITS)
    x = _axis([0.0, 1.0, largest, *ends], "share of the effect before that is left", "%")
    threshold = {"x": largest, "y": 0, "words": f"suppressed up to {largest:.0%}"}
    spans = [{**threshold, **span} for span in _spans(len(rows))]
    line = {"type": "rule", "color": INK, "strokeDash": [5, 3], "strokeWidth": 1.3}
    label = {"type": "text", "align": "left", "dx": -2, "dy": -8, "fontSize": 11, "color": INK}
    y = _down(_height(len(rows)))
    chart = _rows_chart(
        rows,
        x,
        lines=[0.0, 1.0],
        behind=[layer(spans, line, x=x, y=y, y2={"field": "y2"})],
        front=[layer([threshold], label, x=x, y=y, text={"field": "words"})],
    )
    return draw(
        chart,
        f"Share of the effect before that is left: {_listed(rows)}. Up to {largest:.0%} counts as "
        "suppressed.",
    )


def question_figures(result: VerifyResult) -> list[Figure]:
    """The concept's shift beyond the off-target ones by question and arm, the mean over seeds with
    their range; at most ten questions a figure, all on one scale."""
    tables = {arm: _specific(odds - result.base) for arm, odds in result.students.items()}
    values = [value for table in tables.values() for value in table[np.isfinite(table)].tolist()]
    x = _axis([0.0, *values], "shift beyond off-target concepts, nats")
    count = len(result.questions)
    # As even as can be: one question would be no figure.
    pieces = np.array_split(np.arange(count), math.ceil(count / _MOST_QUESTIONS))
    return [_question_figure(result, tables, piece.tolist(), x) for piece in pieces]


def _question_figure(
    result: VerifyResult, tables: Mapping[Arm, Table], questions: Sequence[int], x: Row
) -> Figure:
    texts: list[Row] = []
    spans: list[Row] = []
    marks: list[Row] = []
    top = 0.0
    for question in questions:
        for line in _wrapped(f"{question + 1}. {result.questions[question].user}"):
            texts.append({"y": top, "words": line})
            top += _LINE_HEIGHT
        spans.append({"y": top, "y2": top + _THIN_LANE_HEIGHT * len(tables)})
        for arm, table in tables.items():
            cells = table[:, question]
            if np.isfinite(cells).all():
                mean, low, high = float(cells.mean()), float(cells.min()), float(cells.max())
                place = top + _THIN_LANE_HEIGHT / 2
                marks.append({"group": arm, "y": place, "x": mean, "low": low, "high": high})
            top += _THIN_LANE_HEIGHT
        top += _GAP
    legend = {"symbolSize": 60}
    layers = [
        _lines([0.0], spans, x, top),
        _texts(texts, top),
        *_intervals(marks, list(tables), x, top, legend),
    ]
    means = ", ".join(
        f"{arm} {words.extent(table[:, questions].mean(axis=0).tolist())}"
        for arm, table in tables.items()
    )
    return draw(
        {"layer": layers, "width": _WIDTH, "height": top},
        f"How far students moved towards {_name(result)} beyond off-target concepts, in nats, on "
        f"questions {questions[0] + 1} to {questions[-1] + 1}: {means}.",
    )


def answer_figure(result: VerifyResult) -> Figure | None:
    """How often sampled answers name the concept, and how often nothing of its category; None
    without sampled answers."""
    if not result.answers:
        return None
    groups = words.answer_groups(result)
    panels, sentences = [], []
    for title, rates in (
        (f"answers that name {_name(result)}", [result.answers[g].named for g in groups]),
        (
            "answers that name nothing of the category",
            [result.answers[g].no_answer for g in groups],
        ),
    ):
        rows = [
            _Measured(group, rate, words.share_interval(rate, 1))
            for group, rate in zip(groups, rates, strict=True)
        ]
        x = _axis([0.0, 0.05, *_ends(rows)], "share of sampled answers", "%")
        panels.append({**_rows_chart(rows, x, lines=[0.0]), "title": title})
        sentences.append(f"Sampled {title}: {_listed(rows)}.")
    own = {"x": "independent", "y": "independent"}
    chart = {"vconcat": panels, "spacing": 18, "resolve": {"scale": own}}
    return draw(chart, " ".join(sentences))


# Rows of intervals


def _rows_chart(
    rows: Sequence[_Measured],
    x: Row,
    *,
    lines: Sequence[float],
    lane: int = _LANE_HEIGHT,
    behind: Sequence[Chart] = (),
    front: Sequence[Chart] = (),
) -> Chart:
    """``lane`` points for each row below its words, with its interval at the lane's top."""
    low_edge, high_edge = x["scale"]["domain"]
    height = _height(len(rows), lane)
    texts: list[Row] = []
    marks: list[Row] = []
    for place, row in enumerate(rows):
        top = _lane(place, lane)
        text = short_name(f"{row.group}: {row.text}", _LINE_CHARACTERS)
        texts.append({"y": top - _LINE_HEIGHT, "words": text})
        estimate, low, high = row.interval.estimate, row.interval.low, row.interval.high
        if low_edge <= estimate <= high_edge:
            if not math.isfinite(low + high):
                low = high = estimate  # a point without a bar
            low, high = max(low, low_edge), min(high, high_edge)
            middle = top + _LANE_HEIGHT / 2
            marks.append({"group": row.group, "y": middle, "x": estimate, "low": low, "high": high})
    intervals = _intervals(marks, [row.group for row in rows], x, height)
    guides = _lines(lines, _spans(len(rows), lane), x, height)
    layers = [guides, *behind, _texts(texts, height), *intervals, *front]
    return {
        "layer": layers,
        "width": _WIDTH,
        "height": height,
    }


def _lane(place: int, lane: int = _LANE_HEIGHT) -> int:
    """Where a row's lane begins, from the upper edge."""
    return _height(place, lane) + _LINE_HEIGHT


def _height(rows: int, lane: int = _LANE_HEIGHT) -> int:
    return rows * (_LINE_HEIGHT + lane + _GAP)


def _spans(rows: int, lane: int = _LANE_HEIGHT) -> list[Row]:
    """From where to where a line may run that crosses no words."""
    return [{"y": _lane(place, lane), "y2": _lane(place, lane) + lane} for place in range(rows)]


def _intervals(
    marks: Sequence[Row], groups: Sequence[str], x: Row, height: float, legend: Row | None = None
) -> list[Chart]:
    known = {group: _MARKS.get(group, ("stroke", MUTED)) for group in groups}
    names = {group: short_name(group) for group in groups}
    shown = [{**mark, "group": names[mark["group"]]} for mark in marks]
    colour = choice("group", {names[g]: mark[1] for g, mark in known.items()}, legend=legend)
    shape = choice("group", {names[g]: mark[0] for g, mark in known.items()}, legend=legend)
    y = _down(height)
    bar = {"type": "rule", "strokeWidth": 1.6}
    point = {"type": "point", "filled": True, "size": 44, "opacity": 1}
    return [
        layer(shown, bar, x={**x, "field": "low"}, x2={"field": "high"}, y=y, color=colour),
        layer(shown, point, x=x, y=y, color=colour, shape=shape),
    ]


def _texts(texts: Sequence[Row], height: float) -> Chart:
    mark = {"type": "text", "align": "left", "baseline": "top", "fontSize": 11, "color": INK}
    mark |= {"x": 2, "dy": 2}
    return layer(texts, mark, y=_down(height), text={"field": "words"})


def _lines(at: Sequence[float], spans: Sequence[Row], x: Row, height: float) -> Chart:
    rows = [{"x": each, **span} for each in at for span in spans]
    mark = {"type": "rule", "color": MUTED, "strokeDash": [2, 3]}
    return layer(rows, mark, x=x, y=_down(height), y2={"field": "y2"})


def _axis(values: Sequence[float], title: str, form: str = "") -> Row:
    axis = {"title": title, "tickCount": 5, "grid": False, **({"format": form} if form else {})}
    return number("x", scale={"domain": padded(np.array(values)), "nice": False}, axis=axis)


def _down(height: float) -> Row:
    """Points from the upper edge."""
    return number("y", scale={"domain": [0, height], "nice": False, "reverse": True}, axis=None)


# Figures


def _ends(rows: Iterable[_Measured]) -> list[float]:
    """All finite estimates and ends."""
    values = (
        value
        for row in rows
        for value in (row.interval.estimate, row.interval.low, row.interval.high)
    )
    return [value for value in values if math.isfinite(value)]


def _specific(odds: LogOdds) -> Table:
    specific: Table = odds.concept - odds.off_target.mean(axis=-1)
    return specific


# Words


def _name(result: VerifyResult) -> str:
    return short_name(result.verdict.concept)


def _listed(rows: Iterable[_Measured]) -> str:
    return ", ".join(f"{short_name(row.group)} {row.text}" for row in rows)


def _wrapped(text: str) -> list[str]:
    safe = short_name(text, _LINE_CHARACTERS * _MOST_LINES - 8)  # a line breaks between words
    return textwrap.wrap(safe, _LINE_CHARACTERS, max_lines=_MOST_LINES, placeholder="…")
