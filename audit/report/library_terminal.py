"""Lists of signature libraries, and differences of two, for people at a terminal.

Text from a library only ever becomes ``rich.text.Text`` after ``strip_unsafe``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from audit.report.safe_rich import safe
from audit.report.summary import number, plural
from signatures.library_diff import LibraryDifference, TableDifference
from signatures.library_listing import BrokenLibrary, ListedLibrary, TableSize
from signatures.library_model import FingerprintMatch

_SHOWN_NAMES = 12
_SHOWN_SHIFTS = 8


def render_libraries(found: Iterable[ListedLibrary | BrokenLibrary]) -> RenderableType:
    """Every library with what it holds, or why it does not open."""
    return Group(
        *(
            _library(entry) if isinstance(entry, ListedLibrary) else _broken(entry)
            for entry in found
        )
    )


def render_difference(difference: LibraryDifference) -> RenderableType:
    """What the second library has more (+), less (-) or otherwise (~) than the first."""
    if difference.same_content:
        return Text("The libraries are the same: their contents have one hash.")
    pairs = [("model", ", ".join(_model_words(difference)))]
    pairs += [("concepts", line) for line in _concept_lines(difference)]
    pairs += [("tables", f"+ {probe} {view}") for probe, view in difference.added_tables]
    pairs += [("tables", f"- {probe} {view}") for probe, view in difference.removed_tables]
    for table in difference.tables:
        pairs += [(f"{table.probe} {table.view}", line) for line in _table_lines(table)]
    for sign, count in (("+", difference.added_trials), ("-", difference.removed_trials)):
        if count:
            pairs.append(("causal check", f"{sign} {plural(count, 'trial')}"))
    return _pairs(pairs)


def _library(summary: ListedLibrary) -> RenderableType:
    model = summary.model
    lines = [
        ("folder", str(summary.folder)),
        ("model", f"{model.name} ({model.family}), number tokens: {summary.number_tokens}"),
        ("traits", _counts(summary.traits)),
        ("decoys", _counts(summary.decoys)),
        *(("tables", _size_words(table)) for table in summary.tables),
    ]
    if summary.causal_trials:
        lines.append(("causal check", plural(summary.causal_trials, "trial")))
    lines += [
        ("size", f"{summary.size_bytes:,} bytes"),
        ("content", summary.content_sha256),
        ("signed", "yes" if summary.signed else "no"),
    ]
    return Group(safe(summary.name, "bold"), _pairs(lines))


def _broken(library: BrokenLibrary) -> RenderableType:
    title = Text("does not open", style="bold red")
    return Group(title, _pairs([("folder", str(library.folder)), ("reason", library.reason)]))


def _size_words(table: TableSize) -> str:
    return f"{table.probe} {table.view}, {table.concepts} concepts x {table.units:,} units"


def _counts(counts: Mapping[str, int]) -> str:
    """``20: animal 15, tree 5``."""
    listed = ", ".join(f"{category} {count:,}" for category, count in counts.items())
    return f"{sum(counts.values()):,}" + (f": {listed}" if listed else "")


def _model_words(difference: LibraryDifference) -> list[str]:
    words = [f"{match.what} {_match_words(match)}" for match in difference.fingerprints]
    return words + [f"{name.replace('_', ' ')} differs" for name in difference.model_fields]


def _match_words(match: FingerprintMatch) -> str:
    if not match.known:
        return "not recorded"
    return "agrees" if match.agrees else "DIFFERS"


def _concept_lines(difference: LibraryDifference) -> Iterable[str]:
    if difference.added_concepts:
        yield f"+ {_names(difference.added_concepts)}"
    if difference.removed_concepts:
        yield f"- {_names(difference.removed_concepts)}"
    for change in difference.changed_concepts:
        yield f"~ {change.name}: {', '.join(change.changed_fields)}"


def _table_lines(table: TableDifference) -> Iterable[str]:
    if table.same:
        yield f"the same {table.common_units:,} units and shifts"
        return
    yield (
        f"{table.common_units:,} units in common, of {table.first_units:,} "
        f"and {table.second_units:,}"
    )
    if table.added_concepts:
        yield f"+ {_names(table.added_concepts)}"
    if table.removed_concepts:
        yield f"- {_names(table.removed_concepts)}"
    if table.changed_settings:
        yield f"~ measured otherwise: {_names(table.changed_settings)}"
    changed = [shift for shift in table.shifts if shift.maximum_nats != 0.0]
    # NaN has no place in an order: what could not be compared comes first.
    changed.sort(key=lambda s: (not math.isnan(s.maximum_nats), -s.maximum_nats))
    for shift in changed[:_SHOWN_SHIFTS]:
        unit = f" ({shift.unit!r})" if math.isfinite(shift.maximum_nats) else ""
        yield (
            f"~ {shift.concept}: correlation {number(shift.correlation)}, "
            f"at most {number(shift.maximum_nats)} nats apart{unit}"
        )
    if len(changed) > _SHOWN_SHIFTS:
        yield f"~ and {plural(len(changed) - _SHOWN_SHIFTS, 'concept')} that differ less"
    if table.shifts and not changed:
        yield "the shifts in common are the same"


def _names(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _pairs(pairs: Iterable[tuple[str, str]]) -> RenderableType:
    """Two columns; a label that repeats the one above is not shown again."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    above = ""
    for label, text in pairs:
        grid.add_row(safe("" if label == above else label), safe(text))
        above = label
    return Padding(grid, (0, 0, 1, 2), expand=False)
