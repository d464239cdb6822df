"""Plots of signatures: shifts against baseline, likeness of concepts, causal effects.

Charts are composed here as Vega-Lite specifications and drawn by ``audit.report.drawing``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy
from scipy.spatial import distance

from audit.report.chart_parts import (
    Row,
    choice,
    independent,
    layer,
    number,
    padded,
    short_name,
)
from audit.report.drawing import (
    CLOUD,
    HUB,
    INK,
    LOWERED,
    MUTED,
    RAISED,
    Chart,
    Figure,
    draw,
    plain_text,
)
from audit.report.signature_words import probe_name, shown_unit
from audit.report.summary import signed
from signatures.entanglement import hub_shift, top_units
from signatures.library import SignatureLibrary
from signatures.signature import ProbeTable, View
from signatures.strength import correlations, own_part
from signatures.summary import (
    CausalVerdict,
    ConceptCausal,
    ConceptSummary,
    LibrarySummary,
    TableSummary,
)

Matrix = NDArray[np.float64]

_MOST, _LEAST, _HUBS = 8, 4, 5  # labelled units
_WIDTH, _HEIGHT = 320, 260
_LABEL_STEP_POINTS = 13.0
_EXTREMES = 200  # of a thinned cloud, the units of the largest centred shifts are all kept
_VOCABULARY_UNITS = 800

_MARKS = {
    "favoured most": ("circle", RAISED),
    "favoured least": ("triangle-down", LOWERED),
    "hub": ("diamond", HUB),
    "favoured most, and a hub": ("diamond", RAISED),
    "favoured least, and a hub": ("diamond", LOWERED),
}
"""What a labelled unit is -> shape and colour."""


def legend() -> tuple[tuple[str, str, str], ...]:
    """The kinds of labelled units that a plot can hold, as (kind, shape, colour)."""
    return tuple((kind, shape, colour) for kind, (shape, colour) in _MARKS.items())


# Shift against baseline


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A labelled unit: index, kind (of ``_MARKS``), place in the plot, spread, label's height."""

    unit: int
    kind: str
    x: float
    y: float
    spread: float
    label_y: float


def shift_figure(
    table: ProbeTable, summary: TableSummary, concept: str, most_units: int | None = None
) -> Figure:
    """One concept's shifts in one table against the units' neutral shares.

    Where the shares are unknown, against the shift that all concepts share. At most
    ``most_units`` units are drawn (None: all numbers, 800 words).
    """
    return draw(
        _shift_chart(table, summary, concept, most_units),
        _shift_description(table, summary, concept),
    )


def concept_figure(
    library: SignatureLibrary, summary: LibrarySummary, names: Sequence[str]
) -> Figure:
    """All that can be plotted of the concepts ``names``: a panel a table, and causal effects."""
    parts: list[Chart] = []
    words: list[str] = []
    for name in names:
        panels = []
        for table, of_table in zip(library.tables, summary.tables, strict=True):
            if name in table.concepts:
                title = probe_name(table.view, table.probe)
                panels.append({**_shift_chart(table, of_table, name, None, True), "title": title})
                words.append(_shift_description(table, of_table, name))
        part: list[Chart] = [{"concat": panels, "columns": 2, "spacing": 24}]
        concept = summary.concept(name)
        if _effects(concept):
            part.append(_causal_chart([concept]))
            words.append(_causal_description([concept]))
        parts.append(independent({"vconcat": part, "spacing": 24, "title": _large(name)}))
    return draw(independent({"vconcat": parts, "spacing": 40}), " ".join(words))


def _shift_chart(
    table: ProbeTable,
    summary: TableSummary,
    concept: str,
    most_units: int | None,
    shown_legend: bool = False,
) -> Chart:
    row = table.concepts.index(concept)
    shift = table.shift_nats[row]
    across, has_share = _baseline(table)
    x_range = padded(across, logarithmic=has_share)
    labelled = _labelled(table, summary, row, across)
    ends = [each.y + side * each.spread for each in labelled for side in (-1, 1)]
    y_range = padded(np.array([*shift, *ends, 0.0]))
    x_axis = {
        "title": (
            "share without the concept (log scale)" if has_share else "shift that all share, nats"
        ),
        "grid": False,
        **_share_ticks(x_range, has_share),
    }
    x_scale = {"type": "log" if has_share else "linear", "domain": x_range, "nice": False}
    x = {"scale": x_scale, "axis": x_axis}
    y = {
        "scale": {"domain": y_range, "nice": False},
        "axis": {"title": "shift, nats", "tickCount": 5},
    }
    lines: list[Row] = [{"x": x_range[0], "y": 0.0, "x2": x_range[1], "y2": 0.0}]
    low, high = max(x_range[0], y_range[0]), min(x_range[1], y_range[1])
    if not has_share and low < high:
        lines.append({"x": low, "y": low, "x2": high, "y2": high})
    cloud = _cloud(table, row, most_units)
    guides = layer(
        lines,
        {"type": "rule", "color": MUTED, "strokeDash": [2, 3]},
        x=number("x", **x),
        y=number("y", **y),
        x2={"field": "x2"},
        y2={"field": "y2"},
    )
    # One path for all: every point is a stroke of no length with a round cap, and every second
    # row is a gap.
    dots = layer(
        _dots(across[cloud], shift[cloud]),
        {"type": "line", "color": CLOUD, "strokeWidth": 3, "strokeCap": "round"},
        x=number("x", **x),
        y=number("y", **y),
        order=number("order"),
    )
    return {
        "layer": [
            guides,
            dots,
            *_label_layers(table, _spaced(labelled, y_range), x, y, shown_legend),
        ],
        "width": _WIDTH,
        "height": _HEIGHT,
    }


def _label_layers(
    table: ProbeTable, labelled: Sequence[_Labelled], x: Row, y: Row, shown_legend: bool
) -> list[Chart]:
    """Error bars, points, and labels in a column at the right, each with a line to its point."""
    kinds = list(_MARKS) if shown_legend else [k for k in _MARKS if k in {e.kind for e in labelled}]
    guide = {"columns": 5, "symbolSize": 60} if shown_legend else None
    colour = choice("kind", {kind: _MARKS[kind][1] for kind in kinds}, legend=guide)
    shape = choice("kind", {kind: _MARKS[kind][0] for kind in kinds}, legend=guide)
    points: list[Row] = [
        {
            "x": each.x,
            "y": each.y,
            "kind": each.kind,
            "low": each.y - each.spread,
            "high": each.y + each.spread,
            "right": x["scale"]["domain"][1],
            "label_y": each.label_y,
            "unit": plain_text(shown_unit(table.units[each.unit], space="·")),
        }
        for each in labelled
    ]
    at = {"x": number("x", **x), "y": number("y", **y)}
    label_at = {"x": number("right", **x), "y": number("label_y", **y)}
    leader = {"type": "rule", "color": CLOUD, "strokeWidth": 0.7}
    text = {"type": "text", "align": "left", "dx": 5, "fontSize": 11}
    return [
        layer(points, leader, **at, x2={"field": "right"}, y2={"field": "label_y"}),
        layer(
            points,
            {"type": "rule", "strokeWidth": 1.3},
            x=at["x"],
            y=number("low", **y),
            y2={"field": "high"},
            color=colour,
        ),
        layer(
            points,
            {"type": "point", "filled": True, "size": 48, "opacity": 1},
            **at,
            color=colour,
            shape=shape,
        ),
        layer(points, text, **label_at, text={"field": "unit"}, color=colour),
    ]


def _baseline(table: ProbeTable) -> tuple[Matrix, bool]:
    """What units are plotted against, [U]: neutral shares if known, or the shared shift."""
    share = table.neutral_share
    positive = share[np.isfinite(share) & (share > 0)]
    if len(positive) == 0 or not np.isfinite(share).all():
        return hub_shift(table.shift_nats), False
    return np.maximum(share, positive.min()), True


def _share_ticks(x_range: Sequence[float], has_share: bool) -> Row:
    if not has_share:
        return {"tickCount": 5}
    powers = range(math.ceil(math.log10(x_range[0])), math.floor(math.log10(x_range[1])) + 1)
    step = max(1, math.ceil(len(powers) / 5))
    return {"values": [10.0**power for power in powers[::step]], "format": "~%"}


def _labelled(
    table: ProbeTable, summary: TableSummary, row: int, across: Matrix
) -> list[_Labelled]:
    centred = table.centred_nats()[row][None]
    hubs = [table.units.index(hub.unit) for hub in summary.hubs]
    kinds: dict[int, str] = {}
    for unit in top_units(centred, _MOST)[0]:
        kinds[int(unit)] = "favoured most"
    for unit in top_units(-centred, _LEAST)[0]:
        kinds.setdefault(int(unit), "favoured least")
    for unit, kind in kinds.items():
        kinds[unit] = f"{kind}, and a hub" if unit in hubs else kind
    for unit in hubs[:_HUBS]:
        kinds.setdefault(unit, "hub")
    shift = table.shift_nats[row]
    spread = np.nan_to_num(table.spread_nats[row])  # no bar where it is unknown
    return [
        _Labelled(
            unit,
            kind,
            float(across[unit]),
            float(shift[unit]),
            float(spread[unit]),
            float(shift[unit]),
        )
        for unit, kind in kinds.items()
    ]


def _spaced(labelled: Sequence[_Labelled], y_range: Sequence[float]) -> list[_Labelled]:
    """The same with labels moved apart, from the lowest up, and back down from the top edge."""
    step = _LABEL_STEP_POINTS * (y_range[1] - y_range[0]) / _HEIGHT
    ordered = sorted(labelled, key=lambda each: each.y)
    heights = [each.y for each in ordered]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + step)
    ceiling = y_range[1]
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - step
    return [replace(each, label_y=height) for each, height in zip(ordered, heights, strict=True)]


def _cloud(table: ProbeTable, row: int, most_units: int | None) -> NDArray[np.int64]:
    """Which units are drawn: all, or the extremes and a random rest (the same every time)."""
    count = len(table.units)
    limit = most_units or (count if table.view is View.NUMBERS else _VOCABULARY_UNITS)
    if count <= limit:
        return np.arange(count)
    order = np.argsort(-np.abs(table.centred_nats()[row]), kind="stable")
    extremes = min(_EXTREMES, limit // 2)
    rest = np.random.default_rng(0).choice(order[extremes:], limit - extremes, replace=False)
    return np.sort(np.concatenate([order[:extremes], rest]))


def _dots(x: Matrix, y: Matrix) -> list[Row]:
    rows: list[Row] = []
    for across, height in zip(x.tolist(), y.tolist(), strict=True):
        rows.append({"x": across, "y": height, "order": len(rows)})
        rows.append({"x": across, "y": None, "order": len(rows)})
    return rows


def _shift_description(table: ProbeTable, summary: TableSummary, concept: str) -> str:
    row = table.concepts.index(concept)
    centred = table.centred_nats()[row]
    most = ", ".join(
        f"{shown_unit(table.units[unit])} ({signed(float(centred[unit]))})"
        for unit in top_units(centred[None], 3)[0]
    )
    return (
        f"{short_name(concept)}, {probe_name(table.view, table.probe)}: shift in nats of "
        f"{len(table.units):,} units. Beyond what all concepts share it favours most: {most}."
    )


# Likeness of concepts


def similarity_figure(table: ProbeTable, library: SignatureLibrary) -> Figure:
    """Which concepts' own parts are alike in one table: a heat map, alike ones side by side."""
    alike = correlations(table, own_part(table, library.number_tokens))
    return draw(_similarity_chart(table, library, alike), _similarity_description(table, alike))


def _similarity_description(table: ProbeTable, alike: Matrix) -> str:
    names = [short_name(name) for name in table.concepts]
    text = (
        f"Heat map of the correlations between {len(names)} concepts' own parts, "
        f"{probe_name(table.view, table.probe)}."
    )
    pairs = [
        (alike[i, j], i, j) for i in range(len(names)) for j in range(i) if np.isfinite(alike[i, j])
    ]
    if pairs:
        for word, (value, i, j) in (("Most", max(pairs)), ("Least", min(pairs))):
            text += f" {word} alike: {names[i]} and {names[j]} ({value:+.2f})."
    return text


def _similarity_chart(table: ProbeTable, library: SignatureLibrary, alike: Matrix) -> Chart:
    order = cluster_order(alike)
    count = len(order)
    side, font = (14, 11) if count <= 40 else (11, 9)
    off_diagonal = np.abs(alike[~np.eye(count, dtype=bool)])
    largest = float(np.nanmax(off_diagonal)) if np.isfinite(off_diagonal).any() else 1.0
    limit = min(1.0, max(0.1, math.ceil(largest * 10 - 1e-9) / 10))
    cells = [
        _cell(across, down, float(alike[i, j]) / limit, gap=1 / side)
        for down, i in enumerate(order)
        for across, j in enumerate(order)
        if i != j and np.isfinite(alike[i, j])
    ]
    # Equal colours one after another, so that the drawing can join them.
    cells.sort(key=lambda cell: (cell["colour"], cell["strength"]))
    decoys = {concept.name for concept in library.decoys()}
    names: list[Row] = [
        {
            "at": place + 0.5,
            "edge": 0,
            "name": short_name(table.concepts[index]),
            "decoy": table.concepts[index] in decoys,
        }
        for place, index in enumerate(order)
    ]
    x = {"scale": {"domain": [0, count], "nice": False}, "axis": None}
    y = {"scale": {"domain": [0, count], "nice": False, "reverse": True}, "axis": None}
    layers = [_tiles(cells, x, y)]
    for decoy, style, colour in ((False, "normal", INK), (True, "italic", MUTED)):
        chosen = [name for name in names if name["decoy"] is decoy]
        words = {"type": "text", "fontSize": font, "fontStyle": style, "color": colour}
        layers += [
            layer(
                chosen,
                {**words, "align": "right", "dx": -5},
                x=number("edge", **x),
                y=number("at", **y),
                text={"field": "name"},
            ),
            layer(
                chosen,
                {**words, "align": "left", "dx": 5, "angle": 270},
                x=number("at", **x),
                y=number("edge", **y),
                text={"field": "name"},
            ),
        ]
    size = side * count
    return independent(
        {
            "vconcat": [{"layer": layers, "width": size, "height": size}, _colour_key(limit)],
            "spacing": 10,
            "title": probe_name(table.view, table.probe),
        }
    )


def _cell(across: int, down: int, strength: float, gap: float = 0.0) -> Row:
    """One tile. Its colour is a hue faded towards the background, so 0 fits any background."""
    return {
        "x": across,
        "x2": across + 1 - gap,
        "y": down,
        "y2": down + 1 - gap,
        "colour": RAISED if strength > 0 else LOWERED,
        "strength": round(20 * min(1.0, abs(strength))) / 20,
    }


def _tiles(cells: Sequence[Row], x: Row, y: Row) -> Chart:
    return layer(
        cells,
        {"type": "rect"},
        x=number("x", **x),
        y=number("y", **y),
        x2={"field": "x2"},
        y2={"field": "y2"},
        color={"field": "colour", "type": "nominal", "scale": None},
        opacity={"field": "strength", "type": "quantitative", "scale": None},
    )


def _colour_key(limit: float) -> Chart:
    """The colours from -``limit`` to +``limit``, with their numbers."""
    steps = 20
    cells = [_cell(step, 0, (step + 0.5) / steps * 2 - 1) for step in range(steps)]
    middle = steps // 2
    axis = {
        "title": "correlation of own parts (in italics: decoys)",
        "values": [0, middle, steps],
        "labelExpr": f"datum.value == {middle} ? '0' : "
        f"format((datum.value / {middle} - 1) * {limit}, '+.1f')",
        "grid": False,
        "domain": False,
    }
    x = {"scale": {"domain": [0, steps], "nice": False}, "axis": axis}
    return {**_tiles(cells, x, {"axis": None}), "width": 220, "height": 10}


def cluster_order(alike: Matrix) -> list[int]:
    """An order of K concepts that puts alike ones side by side, from their correlations [K, K].

    Average linkage on 1 - r with optimal leaf order (Bar-Joseph et al. 2001); an undefined r
    counts as 0.
    """
    count = len(alike)
    if count < 3:
        return list(range(count))
    apart = 1.0 - np.nan_to_num(alike)
    apart = (apart + apart.T) / 2
    np.fill_diagonal(apart, 0.0)
    condensed = np.maximum(distance.squareform(apart, checks=False), 0.0)
    tree = hierarchy.linkage(condensed, "average", optimal_ordering=True)
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]


# Causal effects


def causal_figure(summary: LibrarySummary) -> Figure | None:
    """Every tried signature's effect on its concept, largest first; None where none was tried."""
    concepts = _tried(summary.concepts)
    if not concepts:
        return None
    return draw(_causal_chart(concepts), _causal_description(concepts))


def _tried(concepts: Sequence[ConceptSummary]) -> list[ConceptSummary]:
    tried = [concept for concept in concepts if _effects(concept)]
    return sorted(tried, key=lambda c: -float(np.mean([e.effect.effect_nats for e in _effects(c)])))


def _effects(concept: ConceptSummary) -> list[ConceptCausal]:
    return [each for each in concept.causal if math.isfinite(each.effect.effect_nats)]


_CAUSAL_MARKS: Mapping[CausalVerdict, tuple[str, str]] = {
    CausalVerdict.RAISES: ("circle", RAISED),
    CausalVerdict.NO_EFFECT: ("square", MUTED),
    CausalVerdict.LOWERS: ("triangle-down", LOWERED),
}


def _causal_chart(concepts: Sequence[ConceptSummary]) -> Chart:
    """A column of intervals a probe, the concepts in the same rows."""
    rows: list[Row] = [
        {
            "probe": str(causal.effect.probe),
            "at": place + 0.5,
            "effect": causal.effect.effect_nats,
            "low": causal.effect.low_nats,
            "high": causal.effect.high_nats,
            "verdict": str(causal.verdict),
        }
        for place, concept in enumerate(concepts)
        for causal in _effects(concept)
    ]
    ends = [row[end] for row in rows for end in ("low", "high")]
    x_range = padded(np.array([*ends, 0.0]))
    names: list[Row] = [
        {"at": place + 0.5, "edge": x_range[0], "name": short_name(concept.name)}
        for place, concept in enumerate(concepts)
    ]
    columns = [
        _causal_column(
            probe, [row for row in rows if row["probe"] == probe], names, x_range, index == 0
        )
        for index, probe in enumerate(dict.fromkeys(row["probe"] for row in rows))
    ]
    return {"hconcat": columns, "spacing": 16}


def _causal_column(
    probe: str, rows: Sequence[Row], names: Sequence[Row], x_range: Sequence[float], first: bool
) -> Chart:
    axis = {"title": "effect on log P(concept), nats", "tickCount": 5}
    x = {"scale": {"domain": x_range, "nice": False}, "axis": axis}
    y_scale = {"domain": [0, len(names)], "nice": False, "reverse": True}
    at = number("at", scale=y_scale, axis=None)
    guide = {"symbolSize": 60}
    colour = choice("verdict", {v: mark[1] for v, mark in _CAUSAL_MARKS.items()}, legend=guide)
    shape = choice("verdict", {v: mark[0] for v, mark in _CAUSAL_MARKS.items()}, legend=guide)
    layers = [
        layer([{"zero": 0.0}], {"type": "rule", "color": MUTED}, x=number("zero", **x)),
        layer(
            rows,
            {"type": "rule", "strokeWidth": 1.5},
            x=number("low", **x),
            x2={"field": "high"},
            y=at,
            color=colour,
        ),
        layer(
            rows,
            {"type": "point", "size": 40, "filled": True, "opacity": 1},
            x=number("effect", **x),
            y=at,
            color=colour,
            shape=shape,
        ),
    ]
    if first:
        words = {"type": "text", "align": "right", "dx": -6, "fontSize": 11, "color": INK}
        layers.append(layer(names, words, x=number("edge", **x), y=at, text={"field": "name"}))
    return {
        "layer": layers,
        "width": 240,
        "height": max(30, 15 * len(names)),
        "title": f"causal check, {probe} probe",
    }


def _causal_description(concepts: Sequence[ConceptSummary]) -> str:
    effects = [effect for concept in concepts for effect in _effects(concept)]
    raised = sum(effect.verdict is CausalVerdict.RAISES for effect in effects)
    largest = max(effects, key=lambda each: each.effect.effect_nats).effect
    return (
        f"Causal effects with 95% intervals: {raised} of {len(effects)} lie above 0. Largest: "
        f"{short_name(largest.concept)}, {largest.probe} probe, {signed(largest.effect_nats)} nats."
    )


# The overview


def overview_figure(library: SignatureLibrary, summary: LibrarySummary) -> Figure:
    """Heat maps of the tables that score numbers (or, without one, words), and causal effects."""
    maps, words = [], []
    for table in plotted_tables(library):
        alike = correlations(table, own_part(table, library.number_tokens))
        maps.append(_similarity_chart(table, library, alike))
        words.append(_similarity_description(table, alike))
    parts: list[Chart] = [independent({"concat": maps, "columns": 2, "spacing": 30})]
    concepts = _tried(summary.concepts)
    if concepts:
        parts.append(_causal_chart(concepts))
        words.append(_causal_description(concepts))
    title = _large(library.name)
    return draw(independent({"vconcat": parts, "spacing": 40, "title": title}), " ".join(words))


def plotted_tables(library: SignatureLibrary) -> tuple[ProbeTable, ...]:
    """The tables that a scan of numbers uses; without one, those for words, or all."""
    numbers, words = (library.tables_of(view) for view in (View.NUMBERS, View.VOCABULARY))
    return numbers or words or library.tables


def _large(title: str) -> Row:
    return {"text": short_name(title), "fontSize": 18, "offset": 12}
