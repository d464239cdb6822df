"""The receipt of a sanitising run for people: what was flagged and still is, then what it cost.

Text from data becomes ``rich.text.Text`` only after ``strip_unsafe``: see `audit.report.terminal`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit.report import summary
from audit.report.layout import (
    VERDICT_STYLE,
    bullets,
    empty_table,
    heading,
    in_style,
    indented,
)
from audit.report.safe_rich import safe
from audit.report.safe_text import mark, shorten, strip_unsafe
from audit.sanitise.receipt import DataFile, RowChange, SanitiseResult, Stage
from audit.sanitise.utility import UtilityFigures
from audit.scan_result import Outcome, ScanResult
from detectors.compose import ConceptVerdict
from detectors.finding import Family, Finding, Verdict

_MOST_WIDE = 120
_SHOWN_CONCEPTS = 10
_SHOWN_NAMES = 3
_SHOWN_FILES = 5
_DIFF_LINES = 6

_NOT_SCANNED = "not scanned"
_UNDECIDED = {
    Outcome.INCONCLUSIVE: ", but the scan could not decide",
    Outcome.INCOMPLETE: ", but a part of them was not scanned",
    Outcome.NOTHING_SCANNABLE: ", but none of them could be tested",
}
_COLOUR = {
    Outcome.FLAGGED: "red",
    Outcome.NOT_DETECTED: "blue",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.INCOMPLETE: "magenta",
    Outcome.NOTHING_SCANNABLE: "magenta",
}


class _Sized:
    """Lays itself out when printed: only then are the width and the styles known."""

    def __init__(self, sections: Callable[[int, bool], Iterable[RenderableType]]) -> None:
        self._sections = sections

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _MOST_WIDE)
        styled = console.is_terminal or console.record
        yield from console.render(
            Group(*self._sections(width, styled)), options.update(width=width)
        )


def render(result: SanitiseResult) -> RenderableType:
    """``result`` as one rich renderable, as wide as the console; readable without colour."""
    return _Sized(lambda width, _: _receipt(result, width))


def render_diff(changes: Sequence[RowChange]) -> RenderableType:
    """Rows before and after, side by side, from shortly before the first difference.

    Words that differ are styled on a terminal and stand in « » elsewhere.
    """
    return _Sized(lambda width, styled: _diff(changes, width, styled))


def _receipt(result: SanitiseResult, width: int) -> Iterable[RenderableType]:
    yield _panel(result)
    yield heading("What each strategy did")
    yield from _stages(result.stages, width)
    yield heading("Before and after")
    yield _scans(result)
    yield heading("What the data are good for")
    yield _utility(result)
    if result.strategies_tried:
        yield heading("Strategies tried")
        yield bullets(map(safe, result.strategies_tried))
    if result.rejects:
        yield heading("Left out: could not be read")
        yield bullets(
            safe(f"{summary.plural(count, 'row')}: {code}")
            for code, count in sorted(result.rejects.items(), key=lambda item: (-item[1], item[0]))
        )
    if result.warnings:
        yield heading("Beware")
        yield bullets(map(safe, result.warnings), "!")
    yield heading("Provenance")
    yield _provenance(result)


# The verdict


def _panel(result: SanitiseResult) -> RenderableType:
    after = result.after
    colour = "yellow" if after is None else _colour(after)
    shown = _NOT_SCANNED.upper() if after is None else summary.verdict_words(after)
    title = f"AFTER: {shown}"
    if not result.outputs:
        title = f"DRY RUN, NOTHING IS WRITTEN. {title}"
    meaning = (
        "What the rows hold now is not known. This is not a pass."
        if after is None
        else summary.MEANING[after.outcome]
    )
    parts: list[RenderableType] = [
        in_style(title, f"bold {colour}"),
        Text(),
        safe(headline(result), "bold"),
        Text(meaning),
    ]
    if result.verification_due:
        parts += [
            Text(),
            Text("Verification is due: only training on these rows shows what they still teach."),
        ]
    facts = [
        f"{summary.plural(result.rows_in, 'row')} in",
        f"{result.rows_out:,} out",
        f"{sum(result.rejects.values()):,} not readable",
    ]
    parts += [Text(), in_style(" · ".join(facts), "dim")]
    return Panel(
        Group(*parts),
        box=box.HEAVY,
        border_style=colour,
        padding=(1, 2),
        title=Text("subliminal-audit sanitise", style="dim"),
        title_align="left",
    )


def _colour(scan: ScanResult) -> str:
    return _COLOUR[Outcome.FLAGGED if scan.flagged() else scan.outcome]


def headline(result: SanitiseResult) -> str:
    """What was flagged, and what still is, in one sentence; concept names are raw text."""
    would = "were" if result.outputs else "would be"
    out = f"the {result.rows_out:,} that {would} written"
    before, after = result.before, result.after
    if before is None:
        first = f"{summary.plural(result.rows_in, 'row')} were read and not scanned"
    else:
        names = _flagged_names(before)
        said = f"{_listed(names)} {_was(names)} flagged" if names else "nothing was flagged"
        first = f"{said} in {summary.plural(before.rows_scanned, 'row')}"
    if after is None:
        second = f"{out} were not scanned" if result.outputs else f"{out} are not scanned"
    elif left := _flagged_names(after):
        still = " still" if before is not None and set(left) & set(_flagged_names(before)) else ""
        second = f"{_listed(left)} {'is' if len(left) == 1 else 'are'}{still} flagged in {out}"
    else:
        second = f"nothing is flagged in {out}{_UNDECIDED.get(after.outcome, '')}"
    return f"{first}; {second}."


def _flagged_names(scan: ScanResult) -> list[str]:
    return [c.concept for c in scan.concepts if c.verdict is Verdict.FLAGGED]


def _listed(names: Sequence[str]) -> str:
    shown, more = summary.cut(names, _SHOWN_NAMES)
    return ", ".join(shown) + (f" and {len(more):,} more" if more else "")


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


# Strategies


def _stages(stages: Sequence[Stage], width: int) -> Iterable[RenderableType]:
    columns: dict[str, Callable[[Stage], int]] = {
        "in": lambda s: s.rows_in,
        "kept": lambda s: s.rows_kept,
        "edited": lambda s: s.rows_edited,
        "regenerated": lambda s: s.rows_regenerated,
        "masked": lambda s: s.rows_masked,
        "dropped": lambda s: s.rows_dropped,
        "added": lambda s: s.rows_added,
    }
    # What no strategy did takes no room.
    columns = {
        name: count
        for name, count in columns.items()
        if name in ("in", "kept", "dropped") or any(map(count, stages))
    }
    table = empty_table()
    table.padding = (0, 1, 0, 0)
    table.add_column("strategy (rows)", ratio=1, overflow="fold")
    for name in columns:
        # At 80 columns a strategy's parameters need the room that the longest word would take.
        short = "regen." if name == "regenerated" and width < 100 else name
        table.add_column(short, justify="right", no_wrap=True)
    for stage in stages:
        table.add_row(
            safe(stage.strategy, "bold"),
            *(
                Text(f"{count(stage):,}", style="" if count(stage) else "dim")
                for count in columns.values()
            ),
        )
    yield table
    reasons = [stage for stage in stages if stage.reasons]
    if reasons:
        yield Text("\nRows that are gone, or left as they were, by reason")
        yield bullets(map(_reasons, reasons))


def _reasons(stage: Stage) -> Text:
    listed = ", ".join(
        f"{code} {count:,}"
        for code, count in sorted(stage.reasons.items(), key=lambda item: (-item[1], item[0]))
    )
    line = safe(stage.strategy, "bold")
    return line.append_text(safe(f": {listed}"))


# Scans


def _two_columns(label: str = "") -> Table:
    table = empty_table()
    table.padding = (0, 1, 0, 0)
    table.add_column(label, ratio=4, overflow="fold")
    table.add_column("before", ratio=3, overflow="fold")
    table.add_column("after", ratio=3, overflow="fold")
    return table


def _scans(result: SanitiseResult) -> RenderableType:
    scans = result.before, result.after
    table = _two_columns()
    table.add_row("outcome", *map(_outcome, scans))
    table.add_row(
        "rows scanned", *(Text(f"{s.rows_scanned:,}") if s else _undefined() for s in scans)
    )
    shown, more = summary.cut(_concepts_to_show(scans), _SHOWN_CONCEPTS)
    for family, concept in shown:
        both = [_concept(scan, family, concept) for scan in scans]
        # Effects are compared within one detector: the strongest of the first scan that has one.
        code = next((v.strongest for v in both if v is not None and v.strongest), "")
        label = safe(concept, "bold")
        if category := next((v.category for v in both if v is not None), ""):
            label.append_text(safe(f"  {category}", "dim"))
        table.add_row(label, *map(_verdict, both))
        table.add_row("  p", *(Text(summary.probability(v.p_value)) if v else "" for v in both))
        found = [_finding(scan, family, concept, code) for scan in scans]
        unit = next((f.effect_unit for f in found if f is not None), "")
        table.add_row(safe(f"  effect of {code}, {unit}"), *map(_effect, found))
    if not more:
        return table
    rest = in_style(f"… and {len(more):,} more that were flagged", "dim italic")
    return Group(table, indented(rest, 1))


def _concepts_to_show(scans: Sequence[ScanResult | None]) -> list[tuple[Family, str]]:
    """What was flagged before or after, and any persona: each once, in the scans' order."""
    found = [
        (c.family, c.concept)
        for scan in scans
        if scan is not None
        for c in scan.concepts
        if c.verdict is Verdict.FLAGGED or c.family is Family.ANY_PERSONA
    ]
    return list(dict.fromkeys(found))


def _concept(scan: ScanResult | None, family: Family, name: str) -> ConceptVerdict | None:
    concepts = () if scan is None else scan.concepts
    return next((c for c in concepts if (c.family, c.concept) == (family, name)), None)


def _finding(scan: ScanResult | None, family: Family, name: str, code: str) -> Finding | None:
    findings = () if scan is None else scan.findings
    wanted = family, name, code
    return next((f for f in findings if (f.family, f.concept, f.code) == wanted), None)


def _outcome(scan: ScanResult | None) -> Text:
    if scan is None:
        return in_style(_NOT_SCANNED, "dim")
    return in_style(summary.verdict_words(scan), f"bold {_colour(scan)}")


def _verdict(concept: ConceptVerdict | None) -> Text:
    if concept is None:
        return _undefined()
    verdict = concept.verdict
    words = verdict.value.upper() if verdict is Verdict.FLAGGED else verdict.value
    return in_style(words, VERDICT_STYLE[verdict])


def _effect(finding: Finding | None) -> Text:
    if finding is None or not math.isfinite(finding.effect):
        return _undefined()
    text = Text(summary.signed(finding.effect))
    ends = summary.interval(finding.effect_low, finding.effect_high)
    return text.append(f" ({ends})", style="dim")


def _undefined() -> Text:
    return in_style(summary.UNDEFINED, "dim")


# Utility


def _utility(result: SanitiseResult) -> RenderableType:
    used, tokens = result.utility, result.tokens
    figures: list[tuple[str, Callable[[UtilityFigures], str]]] = [
        ("rows with trained text", lambda f: f"{f.rows:,}"),
        ("characters a row, mean (median)", _lengths),
        ("rows in their format", lambda f: _percent(f.valid_format_share)),
        ("different texts", lambda f: _percent(f.distinct_text_share)),
        ("different numbers", lambda f: f"{f.distinct_values:,}" if f.distinct_values else "–"),
        ("perplexity, clean model", _perplexity),
    ]
    table = _two_columns()
    for label, shown in figures:
        table.add_row(label, shown(used.before), shown(used.after))
    lines = [
        Text(
            f"Distance between rows before and after: {_percent(used.edit_distance_share)} of "
            f"tokens, mean of {summary.plural(used.edit_rows, 'row')}"
        ),
        safe(
            f"Tokens ({tokens.unit}): {tokens.before:,} before; {tokens.kept:,} kept, "
            f"{tokens.changed:,} changed, {tokens.dropped:,} dropped, {tokens.masked:,} without "
            f"loss; {tokens.written:,} newly written"
        ),
    ]
    return Group(table, Text(), bullets(lines))


def _percent(share: float) -> str:
    """Never 100% or 0% of what is not all or nothing."""
    if math.isnan(share):
        return summary.UNDEFINED
    rounded = f"{share:.1%}"
    if rounded == "100.0%" and share < 1:
        return ">99.9%"
    return "<0.1%" if rounded == "0.0%" and share > 0 else rounded


def _lengths(figures: UtilityFigures) -> str:
    if math.isnan(figures.mean_characters):
        return summary.UNDEFINED
    return f"{figures.mean_characters:,.1f} ({figures.median_characters:,.1f})"


def _perplexity(figures: UtilityFigures) -> str:
    if math.isnan(figures.perplexity):
        return summary.UNDEFINED
    error = figures.perplexity_standard_error
    spread = "" if math.isnan(error) else f" ± {summary.number(error)}"
    rows = summary.plural(figures.perplexity_rows, "row")
    return f"{summary.number(figures.perplexity)}{spread}, {rows}"


# Provenance


def _provenance(result: SanitiseResult) -> RenderableType:
    model, library = result.model, result.library
    facts = [
        ("read", _files(result.inputs)),
        ("written", _files(result.outputs) if result.outputs else "nothing: a dry run"),
        ("concepts named", ", ".join(result.concepts) or "none"),
        (
            "model",
            f"{model.name} ({model.family}) {model.weights_sha256[:12]}, {model.dtype}"
            if model
            else "no model",
        ),
        ("library", f"{library.name} {library.content_sha256[:12]}"),
        ("seed", str(result.seed)),
        ("tool", f"subliminal-audit {result.tool_version}"),
    ]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in facts:
        grid.add_row(label, safe(text))
    return indented(grid)


def _files(files: Sequence[DataFile]) -> str:
    shown, more = summary.cut(files, _SHOWN_FILES)
    parts = [
        f"{f.path} ({summary.plural(f.rows, 'row')}, {f.format}, {f.schema}, "
        f"{summary.size(f.size_bytes)}, sha256 {f.sha256[:12]})"
        for f in shown
    ]
    if more:
        rows = summary.plural(sum(f.rows for f in more), "row")
        parts.append(f"and {len(more):,} more ({rows})")
    return "; ".join(parts)


# Rows side by side

# White space counts here: rows may differ in nothing else.
_DIFF_TOKEN = re.compile(r"[^\W_]+|\s+|\S")


def _diff(changes: Sequence[RowChange], width: int, styled: bool) -> Iterable[RenderableType]:
    column = (width - 4) // 2
    for change in changes:
        title = safe(f"{change.source}:{change.line}", "cyan")
        title.append_text(safe(f" {change.what}", "bold"))
        if change.reason:
            title.append_text(safe(f" ({change.reason})", "dim"))
        yield heading(title)
        if change.prompt:
            prompt, _ = shorten(strip_unsafe(change.prompt), 2 * (width - 4))
            yield indented(in_style(prompt, "dim"))
        before, after = _sides(change, _DIFF_LINES * column)
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(ratio=1, overflow="fold")
        grid.add_column(ratio=1, overflow="fold")
        grid.add_row(in_style("before", "bold"), in_style("after", "bold"))
        gone = in_style("(no text)", "dim italic")
        grid.add_row(
            _side(*before, "red", styled),
            _side(*after, "green", styled) if change.after else gone,
        )
        yield indented(grid)


Side = tuple[str, list[tuple[int, int]]]


def _sides(change: RowChange, characters: int) -> tuple[Side, Side]:
    """At most ``characters`` of each side, and the spans that differ.

    Both begin at the same character, a little before the first difference.
    """
    if not change.after or change.before == change.after:
        return _cut(change.before, 0, characters, []), _cut(change.after, 0, characters, [])
    pairs = enumerate(zip(change.before, change.after, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(change.before), len(change.after)))
    start = max(0, same - characters // 4)
    # The rows go on behind what is shown: more is compared, so that its end finds its like.
    before, after = (text[start : start + 4 * characters] for text in (change.before, change.after))
    spans_before, spans_after = _differences(before, after)
    return (
        _cut(change.before, start, characters, spans_before),
        _cut(change.after, start, characters, spans_after),
    )


def _differences(before: str, after: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    from rapidfuzz.distance import Levenshtein

    words = [list(_DIFF_TOKEN.finditer(text)) for text in (before, after)]
    blocks = Levenshtein.opcodes(*([match[0] for match in side] for side in words))
    changed = [block for block in blocks if block.tag != "equal"]
    sides = (
        [(block.src_start, block.src_end) for block in changed],
        [(block.dest_start, block.dest_end) for block in changed],
    )
    spans_before, spans_after = (
        [(found[a].start(), found[b - 1].end()) for a, b in ranges if a < b]
        for found, ranges in zip(words, sides, strict=True)
    )
    return spans_before, spans_after


def _cut(text: str, start: int, characters: int, spans: list[tuple[int, int]]) -> Side:
    end = start + characters
    left = "…" if start else ""
    shown = f"{left}{text[start:end]}{'…' if end < len(text) else ''}"
    return shown, [
        (a + len(left), min(b, characters) + len(left)) for a, b in spans if a < characters
    ]


def _side(text: str, spans: list[tuple[int, int]], colour: str, styled: bool) -> Text:
    safe_text = strip_unsafe(text)
    if not styled:
        return Text(mark(safe_text, spans), overflow="fold")
    shown = Text(safe_text, overflow="fold")
    for start, end in spans:
        shown.stylize(f"bold underline {colour}", start, end)
    return shown
