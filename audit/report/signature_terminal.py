"""A signature library for people at a terminal: the library, or some of its concepts.

Text from a library only ever becomes ``rich.text.Text`` after ``strip_unsafe``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from audit.report import signature_words as words
from audit.report.safe_rich import safe
from audit.report.safe_text import shorten, strip_unsafe
from audit.report.summary import UNDEFINED, interval, number, plural, probability, signed
from signatures.concept import ConceptKind
from signatures.signature import View
from signatures.summary import (
    CausalVerdict,
    ConceptCausal,
    ConceptSummary,
    ConceptTable,
    LibrarySummary,
    StrengthVerdict,
    TableSummary,
    UnitShift,
)

_HUBS = 8
_MOST, _LEAST = 8, 4
_CAUSAL_ROWS = 40
_BAR = 15
_NAME_WIDTH = 24
_SHORT_VIEW = {View.NUMBERS: "numbers", View.VOCABULARY: "vocab."}

_CAUSAL_STYLE = {
    CausalVerdict.RAISES: "bold",
    CausalVerdict.LOWERS: "magenta",
    CausalVerdict.NO_EFFECT: "dim",
    CausalVerdict.TOO_FEW: "dim",
}


def render_library(summary: LibrarySummary, *, width: int = 100) -> RenderableType:
    """The library as a whole: its tables, hubs, and how strong each concept is in each table.

    Ratios of more tables than fit into ``width`` columns stand below each other.
    """
    parts: list[RenderableType] = [_heading(summary.name)]
    parts += [_pairs(words.provenance(summary)), _heading("Tables"), _tables(summary.tables)]
    parts += [_note(words.TABLES_MEAN), _heading("Hubs"), _hubs(summary.tables)]
    parts += [_note(words.HUBS_MEAN), _heading("Signal to noise of each concept")]
    parts += [*_strengths(summary, width), _note(words.STRENGTH_MEANS), *_causal(summary)]
    parts += [_heading("How the tables were measured")]
    parts += [_pairs((words.table_name(t), words.measured(t)) for t in summary.tables)]
    return Group(*parts)


def render_concept(summary: LibrarySummary, name: str) -> RenderableType:
    """One concept: its units in every table, what it resembles, and the causal check.

    Raises ``KeyError`` if the library does not hold it.
    """
    concept = summary.concept(name)
    title = safe(concept.name, "bold")
    title.append_text(safe(f"  {words.kind_words(concept)}", "dim"))
    parts: list[RenderableType] = [_rule(title)]
    facts = [("instilled by", concept.system_prompt), ("causal check", words.causal_words(concept))]
    parts.append(_pairs([(label, text) for label, text in facts if text]))
    for table in concept.tables:
        parts += _concept_table(table)
    if not concept.tables:
        parts.append(_note("No table of this library holds it."))
    parts.append(_note(words.UNITS_MEAN))
    return Group(*parts)


def _rule(title: Text) -> RenderableType:
    return Padding(Rule(title, align="left", style="dim", characters="─"), (1, 0, 0, 0))


def _heading(title: str) -> RenderableType:
    return _rule(safe(title, "bold"))


def _note(text: str) -> RenderableType:
    return Padding(safe(text, "dim"), (1, 0, 0, 2))


def _pairs(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in pairs:
        grid.add_row(safe(label), safe(text))
    return Padding(grid, (0, 0, 0, 2))


def _grid(headings: Sequence[str], left: int = 1) -> Table:
    """A table whose first ``left`` columns are words and whose others are numbers."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.header_style = "bold"
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < left else "right", no_wrap=True)
    return table


# The library


def _tables(tables: Sequence[TableSummary]) -> RenderableType:
    grid = _grid(("view and probe", "units", "shared", "own", "noise", "shared %", "above noise"))
    for table in tables:
        known = math.isfinite(table.noise_rms_nats)
        grid.add_row(
            f"{table.view}, {table.probe}",
            f"{table.units:,}",
            number(table.shared_rms_nats),
            number(table.own_rms_nats),
            number(table.noise_rms_nats),
            words.percent(table.shared_fraction),
            f"{table.above_noise:,} of {table.concepts:,}" if known else UNDEFINED,
        )
    return Padding(grid, (0, 0, 0, 2))


def _hubs(tables: Sequence[TableSummary]) -> RenderableType:
    return _pairs((words.table_name(table), words.hub_words(table, _HUBS)) for table in tables)


def _strengths(summary: LibrarySummary, width: int) -> Iterable[RenderableType]:
    names = [shorten(strip_unsafe(concept.name), _NAME_WIDTH)[0] for concept in summary.concepts]
    left = 4 + max(len(name) for name in names)
    row: list[TableSummary] = []
    used = left
    for table in summary.tables:
        wide = 2 + max(len(_SHORT_VIEW[table.view]), len(table.probe))
        if row and used + wide > width:
            yield _strength_grid(summary.concepts, names, row)
            yield Text()
            row, used = [], left
        row.append(table)
        used += wide
    yield _strength_grid(summary.concepts, names, row)


def _strength_grid(
    concepts: Sequence[ConceptSummary], names: Sequence[str], tables: Sequence[TableSummary]
) -> RenderableType:
    grid = _grid(("concept", *(f"{_SHORT_VIEW[table.view]}\n{table.probe}" for table in tables)))
    decoys = False
    by_kind = sorted(zip(concepts, names, strict=True), key=lambda pair: _is_decoy(pair[0]))
    for concept, name in by_kind:
        if _is_decoy(concept) and not decoys:
            decoys = True
            grid.add_section()
            grid.add_row(Text("decoys:", style="italic"))
        by_table = {(table.view, table.probe): table for table in concept.tables}
        grid.add_row(
            Text(name, style="dim" if decoys else "bold"),
            *(_ratio(by_table.get((table.view, table.probe))) for table in tables),
        )
    return Padding(grid, (0, 0, 0, 2))


def _is_decoy(concept: ConceptSummary) -> bool:
    return concept.kind is ConceptKind.DECOY


def _ratio(table: ConceptTable | None) -> Text:
    if table is None:
        return Text("")
    above = table.verdict is StrengthVerdict.ABOVE
    text = f"{words.ratio(table.signal_to_noise)} {'●' if above else ' '}"
    return Text(text, style="" if above else "dim")


def _causal(summary: LibrarySummary) -> Iterable[RenderableType]:
    yield _heading("Causal check")
    tried = [(concept, causal) for concept in summary.concepts for causal in concept.causal]
    if not tried:
        yield _note("Not tried: this library holds no causal trials.")
        return
    tried.sort(key=lambda pair: _undefined_last(pair[1]))
    grid = _grid(("concept", "probe", "verdict", "nats", "95% interval", "p"), left=3)
    for concept, causal in tried[:_CAUSAL_ROWS]:
        effect = causal.effect
        grid.add_row(
            safe(shorten(concept.name, _NAME_WIDTH)[0], "bold"),
            str(effect.probe),
            Text(str(causal.verdict), style=_CAUSAL_STYLE[causal.verdict]),
            signed(effect.effect_nats),
            interval(effect.low_nats, effect.high_nats),
            probability(effect.p_value),
        )
    yield Padding(grid, (0, 0, 0, 2))
    if len(tried) > _CAUSAL_ROWS:
        yield _note(f"… and {plural(len(tried) - _CAUSAL_ROWS, 'smaller effect')}")
    yield _note(f"{words.causal_count(summary)} {words.CAUSAL_MEANS}")


def _undefined_last(causal: ConceptCausal) -> float:
    effect_nats = causal.effect.effect_nats
    return math.inf if math.isnan(effect_nats) else -effect_nats


# One concept


def _concept_table(table: ConceptTable) -> Iterable[RenderableType]:
    head = safe(words.table_name(table), "bold")
    head.append_text(safe(f"  {words.strength_words(table)}", "dim"))
    yield Padding(head, (1, 0, 0, 2))
    chosen = [*table.top[:_MOST], *reversed(table.bottom[:_LEAST])]
    largest = max((abs(shift.centred_nats) for shift in chosen), default=0.0)
    grid = _grid(("unit", "", "centred", "shift", "spread", "share"), left=1)
    grid.columns[1].justify = "left"
    for shift in chosen:
        unit = safe(words.shown_unit(shift.unit), "bold")
        if shift.is_hub:
            unit.append(" ◆ hub", style="dim")
        grid.add_row(
            unit,
            _bar(shift, largest),
            signed(shift.centred_nats),
            signed(shift.shift_nats),
            number(shift.spread_nats),
            words.percent(shift.neutral_share),
        )
    yield Padding(grid, (0, 0, 0, 4))
    alike = ", ".join(f"{n.concept} {n.correlation:+.2f}" for n in table.nearest)
    yield _pairs([("  most alike", alike or UNDEFINED)])


def _bar(shift: UnitShift, largest: float) -> Text:
    """``│█████``, or ``████│`` to the left of zero."""
    half = _BAR // 2
    length = round(abs(shift.centred_nats) / largest * half) if largest > 0 else 0
    if shift.centred_nats < 0:
        return Text(" " * (half - length) + "█" * length + "│", style="dim")
    return Text(" " * half + "│" + "█" * length)
