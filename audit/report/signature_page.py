"""A signature library as one self-contained page (see `audit.report.page`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from audit.report import signature_words as words
from audit.report.drawing import Figure
from audit.report.page import render_page
from audit.report.signature_plots import (
    causal_figure,
    legend,
    plotted_tables,
    shift_figure,
    similarity_figure,
)
from audit.report.summary import UNDEFINED, number, signed
from signatures.concept import ConceptKind
from signatures.library import SignatureLibrary
from signatures.signature import Probe, View
from signatures.summary import (
    ConceptSummary,
    ConceptTable,
    LibrarySummary,
    StrengthVerdict,
    TableSummary,
    UnitShift,
    flat_settings,
)

PageProgress = Callable[[str, str], None]
"""Called with what is drawn and the concept's name, as each is finished."""

_DOTS = 100_000  # of all plots together, about 13 bytes each
_FEWEST_DOTS = 300
_HUBS = 12
_MOST, _LEAST = 8, 4
_SHAPES = {
    "circle": "M4,0A4,4,0,1,1,-4,0A4,4,0,1,1,4,0",
    "triangle-down": "M-4.5,-4H4.5L0,4Z",
    "diamond": "M0,-5L4,0L0,5L-4,0Z",
}


def to_page(
    library: SignatureLibrary,
    summary: LibrarySummary,
    names: Sequence[str] = (),
    progress: PageProgress = lambda _part, _name: None,
) -> bytes:
    """The page as UTF-8, with a section for each of the concepts ``names`` (none: all of them).

    Raises ``MissingExtraError`` without the extra ``report``, ``KeyError`` for an unknown name.
    """
    shown = [summary.concept(name) for name in names] or list(summary.concepts)
    anchors = {concept.name: f"concept-{index}" for index, concept in enumerate(shown)}
    plotted = plotted_tables(library)
    plotted_keys = {(table.view, table.probe) for table in plotted}
    most_units = max(_FEWEST_DOTS, _DOTS // max(1, len(shown) * len(plotted)))
    concepts = []
    for concept in shown:
        figures = {
            (table.view, table.probe): shift_figure(table, of_table, concept.name, most_units)
            for table, of_table in zip(library.tables, summary.tables, strict=True)
            if (table.view, table.probe) in plotted_keys and concept.name in table.concepts
        }
        concepts.append(_concept(concept, anchors[concept.name], figures))
        progress("page", concept.name)
    thinned = any(len(table.units) > most_units for table in plotted)
    return render_page(
        "signature_page",
        {
            "summary": summary,
            "words": words,
            "provenance": words.provenance(summary),
            "tables": [_table(table) for table in summary.tables],
            "tables_mean": words.TABLES_MEAN,
            "strength_rows": [_strengths(c, summary, anchors) for c in summary.concepts],
            "similarity": [similarity_figure(table, library) for table in plotted],
            "causal": causal_figure(summary),
            "causal_count": words.causal_count(summary),
            "drawn": f"{most_units:,} units" if thinned else "all units",
            "legend": [(kind, _SHAPES[shape], colour) for kind, shape, colour in legend()],
            "concepts": concepts,
        },
    )


def _table(table: TableSummary) -> dict[str, Any]:
    known = math.isfinite(table.noise_rms_nats)
    return {
        "name": words.table_name(table),
        "cells": (
            f"{table.concepts:,}",
            f"{table.units:,}",
            number(table.shared_rms_nats),
            number(table.own_rms_nats),
            number(table.noise_rms_nats),
            words.percent(table.shared_fraction),
            f"{table.above_noise:,}" if known else UNDEFINED,
        ),
        "hubs": words.hub_words(table, _HUBS, space="·"),
        "description": table.description,
        "settings": flat_settings(table.settings),
    }


def _strengths(
    concept: ConceptSummary, summary: LibrarySummary, anchors: Mapping[str, str]
) -> dict[str, Any]:
    by_table = {(table.view, table.probe): table for table in concept.tables}
    cells = []
    for table in summary.tables:
        found = by_table.get((table.view, table.probe))
        above = found is not None and found.verdict is StrengthVerdict.ABOVE
        text = "" if found is None else words.ratio(found.signal_to_noise)
        cells.append((f"{text} ●" if above else text, above))
    return {
        "name": concept.name,
        "anchor": anchors.get(concept.name, ""),
        "decoy": concept.kind is ConceptKind.DECOY,
        "cells": cells,
    }


def _concept(
    concept: ConceptSummary, anchor: str, figures: Mapping[tuple[View, Probe], Figure]
) -> dict[str, Any]:
    # Plotted tables first: they are those that a scan uses.
    tables = sorted(concept.tables, key=lambda table: (table.view, table.probe) not in figures)
    return {
        "name": concept.name,
        "anchor": anchor,
        "kind": words.kind_words(concept),
        "system_prompt": concept.system_prompt,
        "causal": words.causal_words(concept),
        "cards": [
            _card(table, f"{anchor}-{index}", figures.get((table.view, table.probe)))
            for index, table in enumerate(tables)
        ],
    }


def _card(table: ConceptTable, anchor: str, figure: Figure | None) -> dict[str, Any]:
    most, least = table.top[:_MOST], table.bottom[:_LEAST][::-1]
    has_share = any(math.isfinite(shift.neutral_share) for shift in (*most, *least))
    nearest = [f"{other.concept} {other.correlation:+.2f}" for other in table.nearest]
    return {
        "anchor": anchor,
        "title": words.table_name(table),
        "strength": words.strength_words(table),
        "figure": figure,
        "has_share": has_share,
        "most": [_unit(shift, has_share) for shift in most],
        "least": [_unit(shift, has_share) for shift in least],
        "nearest": ", ".join(nearest) or UNDEFINED,
    }


def _unit(shift: UnitShift, has_share: bool) -> dict[str, Any]:
    cells = [signed(shift.centred_nats), signed(shift.shift_nats), number(shift.spread_nats)]
    return {
        "unit": words.shown_unit(shift.unit, space="·"),
        "is_hub": shift.is_hub,
        "cells": cells + ([words.percent(shift.neutral_share)] if has_share else []),
    }
