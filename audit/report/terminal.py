"""The report for people at a terminal: verdict first, then why, then what was not seen.

Text from data only ever becomes ``rich.text.Text`` after ``strip_unsafe``: rich markup strings
are never built from it, and rich itself lets escape sequences through.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit.report import summary
from audit.report.concept_table import concept_section
from audit.report.layout import (
    SEVERITY_STYLE,
    VERDICT_STYLE,
    bullets,
    empty_table,
    heading,
    in_style,
    indented,
    verdict_words,
)
from audit.report.plain_text import to_plain_text
from audit.report.safe_rich import safe
from audit.report.safe_text import mark, shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
from detectors.finding import EvidenceRow, Finding, TokenEnrichment, Verdict

# Not detected is blue, not green: there is no "clean".
_OUTCOME_STYLE = {
    Outcome.FLAGGED: "red",
    Outcome.INCOMPLETE: "magenta",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.NOTHING_SCANNABLE: "magenta",
    Outcome.NOT_DETECTED: "blue",
}
_OUTCOME_SIGN = {
    Outcome.FLAGGED: "▲",
    Outcome.INCOMPLETE: "✗",
    Outcome.INCONCLUSIVE: "?",
    Outcome.NOTHING_SCANNABLE: "✗",
    Outcome.NOT_DETECTED: "○",
}
_WIDE = 112  # from this width on, every number of a concept fits on one line
_MOST_WIDE = 160
_SHOWN_INCONCLUSIVE = 5
_SHOWN_NOT_DETECTED = 5
_SHOWN_DETAILS = 10
_SHOWN_TOKENS = 8
_SHOWN_EVIDENCE = 5
_SHOWN_REJECTS = 5
_SHOWN_CONCEPTS = 8


def render(result: ScanResult, *, width: int | None = None) -> RenderableType:
    """``result`` as one rich renderable, ``width`` columns wide (default: as wide as the console).

    Every fact is readable without colour; outside a terminal, marked text stands in « ».
    """
    return _Report(result, width)


def to_text(result: ScanResult, *, width: int = 100) -> str:
    """The terminal report as plain text without styles, ``width`` columns wide."""
    return to_plain_text(render(result), width)


class _Report:
    """Lays itself out when printed: only then is the width known."""

    def __init__(self, result: ScanResult, width: int | None) -> None:
        self.result = result
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width or options.max_width, options.max_width, _MOST_WIDE)
        styled = console.is_terminal or console.record
        yield from console.render(
            Group(*_sections(self.result, width, styled)), options.update(width=width)
        )


def _sections(result: ScanResult, width: int, styled: bool) -> Iterable[RenderableType]:
    seen = summary.overview(result)
    yield _verdict_panel(result)
    if result.concepts:
        yield heading("Concepts")
        yield from concept_section(result, width)
    if result.findings:
        yield from _findings(seen, width)
    for found in seen.flagged[:_SHOWN_DETAILS]:
        yield from _details(found, width, styled)
    if len(seen.flagged) > _SHOWN_DETAILS:
        yield Text(
            f"\n… and details of {len(seen.flagged) - _SHOWN_DETAILS:,} more flagged findings"
        )
    yield from _not_read(result)
    yield from _not_tested(result)
    yield from _limits(result)
    yield from _provenance(result)


def _verdict_panel(result: ScanResult) -> RenderableType:
    colour = _OUTCOME_STYLE[result.outcome]
    if result.outcome is Outcome.INCOMPLETE and result.flagged():
        colour = "red"
    title = Text(f"{_OUTCOME_SIGN[result.outcome]} {summary.verdict_words(result)}")
    title.stylize(f"bold {colour}")
    verdicts, rows = summary.facts(result)
    facts = Text(f"{' · '.join(verdicts)}\n{' · '.join(rows)}", style="dim")
    return Panel(
        Group(
            title,
            Text(),
            safe(result.headline, "bold"),
            Text(summary.MEANING[result.outcome]),
            Text(),
            facts,
        ),
        box=box.HEAVY,
        border_style=colour,
        padding=(1, 2),
        title=Text("subliminal-audit", style="dim"),
        title_align="left",
    )


# Findings


def _findings(seen: summary.Overview, width: int) -> Iterable[RenderableType]:
    inconclusive, more_inconclusive = summary.cut(seen.inconclusive, _SHOWN_INCONCLUSIVE)
    clear, more_clear = summary.cut(seen.not_detected, _SHOWN_NOT_DETECTED)
    shown = [*seen.flagged, *inconclusive, *clear]
    yield heading("Findings")
    yield (_wide_table if width >= _WIDE else _narrow_table)(shown, width)
    more = [
        safe(summary.condensed(part), "dim italic")
        for part in (more_inconclusive, more_clear)
        if part
    ]
    if more:
        yield indented(Group(*more), 1)
    yield Padding(_legend(shown), (1, 0, 0, 1))


def _legend(shown: Sequence[Finding]) -> Text:
    units = {f.code: f.effect_unit for f in shown if f.effect_unit}
    listed = ", ".join(f"{code} in {strip_unsafe(unit)}" for code, unit in sorted(units.items()))
    text = "● effect   ── 95% interval   │ zero   ┊ smallest effect it could detect"
    if listed:
        text += f"\nEffects: {listed}."
    if len(units) > 1:
        text += " Each test has its own scale."
    return Text(text, style="dim")


def _wide_table(shown: Sequence[Finding], width: int) -> Table:
    scales = _scales(shown)
    plot_width = 17 + max(0, min(24, (width - 120) // 2))
    table = empty_table()
    table.add_column(" verdict", no_wrap=True, min_width=13)
    table.add_column("concept", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("test", no_wrap=True)
    table.add_column("effect", no_wrap=True, justify="right")
    table.add_column("95% interval", no_wrap=True)
    table.add_column("", no_wrap=True, width=plot_width)
    table.add_column("stat.", no_wrap=True, justify="right")
    table.add_column("p", no_wrap=True, justify="right")
    table.add_column("q", no_wrap=True, justify="right")
    table.add_column("detectable", no_wrap=True, justify="right")
    for f in shown:
        dim = "dim" if f.verdict is not Verdict.FLAGGED else ""
        concept = safe(f.concept, "bold" if not dim else "")
        concept.append_text(safe(f"  {f.category}", "dim"))
        table.add_row(
            verdict_words(f.verdict, f.severity),
            concept,
            safe(f.code),
            Text(summary.signed(f.effect), style="bold" if not dim else ""),
            Text(summary.interval(f.effect_low, f.effect_high), style="dim"),
            _interval_plot(f, scales[f.code, f.effect_unit], plot_width),
            Text(_statistic(f), style=dim),
            Text(summary.probability(f.p_value), style=dim),
            Text(summary.probability(f.q_value)),
            Text(summary.number(f.smallest_detectable_effect), style=dim),
        )
    return table


def _narrow_table(shown: Sequence[Finding], width: int) -> Table:
    scales = _scales(shown)
    plot_width = max(12, min(25, width - 66))
    table = empty_table()
    table.add_column(" verdict", no_wrap=True, min_width=13)
    table.add_column("concept", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("effect (95%)", no_wrap=True)
    table.add_column("", no_wrap=True, width=plot_width)
    table.add_column("stat.", no_wrap=True, justify="right")
    table.add_column("p and q", no_wrap=True)
    for f in shown:
        flagged = f.verdict is Verdict.FLAGGED
        concept = safe(f.concept, "bold" if flagged else "")
        concept.append("\n")
        concept.append_text(safe(f"{f.code} {f.category}", "dim"))
        effect = in_style(summary.signed(f.effect), "bold" if flagged else "")
        effect.append(f"\n{summary.interval(f.effect_low, f.effect_high)}", style="dim")
        detail = Text(f" {f.severity.value if flagged else summary.short_reason(f.reason)}")
        detail.stylize(SEVERITY_STYLE[f.severity] if flagged else "dim")
        plot = _interval_plot(f, scales[f.code, f.effect_unit], plot_width)
        plot.append(f"\n┊ {summary.number(f.smallest_detectable_effect)}", style="dim")
        chances = in_style(f"p {summary.probability(f.p_value)}", "dim")
        chances.append(f"\nq {summary.probability(f.q_value)}", style="")
        statistic = Text(_statistic(f), style="dim")
        verdict = Group(verdict_words(f.verdict), detail)
        table.add_row(verdict, concept, effect, plot, statistic, chances)
    return table


def _statistic(f: Finding) -> str:
    value = f.calibrated_statistic
    return summary.UNDEFINED if not math.isfinite(value) else f"{value:.1f}"


# Plots: one character a cell, so that they align in every terminal font

Scale = tuple[float, float]


def _scales(findings: Iterable[Finding]) -> dict[tuple[str, str], Scale]:
    """The range of the plot for each detector and unit: from the least to the greatest number."""
    values: dict[tuple[str, str], list[float]] = {}
    for f in findings:
        values.setdefault((f.code, f.effect_unit), [0.0]).extend(
            v
            for v in (f.effect, f.effect_low, f.effect_high, f.smallest_detectable_effect)
            if math.isfinite(v)
        )
    return {key: (min(v), max(v)) for key, v in values.items()}


def _cell(value: float, scale: Scale, width: int) -> int:
    low, high = scale
    if high <= low:
        return 0
    return round((value - low) / (high - low) * (width - 1))


def _interval_plot(f: Finding, scale: Scale, width: int) -> Text:
    """``╌╌│╌┊╌──●──``: the effect with its interval, zero, and what could have been detected."""
    if not math.isfinite(f.effect):
        return Text(" " * width)
    cells = [" "] * width
    styles = ["dim"] * width
    strong = VERDICT_STYLE[f.verdict] if f.verdict is not Verdict.NOT_DETECTED else ""
    if math.isfinite(f.effect_low) and math.isfinite(f.effect_high):
        for i in range(_cell(f.effect_low, scale, width), _cell(f.effect_high, scale, width) + 1):
            cells[i], styles[i] = "─", strong
    zero = _cell(0.0, scale, width)
    cells[zero] = "┼" if cells[zero] == "─" else "│"
    if math.isfinite(f.smallest_detectable_effect):
        detectable = _cell(f.smallest_detectable_effect, scale, width)
        if detectable != zero:
            cells[detectable], styles[detectable] = "┊", "dim"
    effect = _cell(f.effect, scale, width)
    cells[effect], styles[effect] = "●", strong
    return _joined(cells, styles)


def _ratio_bar(token: TokenEnrichment, scale: Scale, width: int) -> Text:
    """``│█████▒▒``: solid up to the near end of the interval, shaded to the far end."""
    low, high = token.log_ratio_low_nats, token.log_ratio_high_nats
    if not (math.isfinite(low) and math.isfinite(high)):
        return Text(" " * width)
    cells = [" "] * width
    first, zero, last = (_cell(v, scale, width) for v in (low, 0.0, high))
    for i in range(min(first, zero), max(last, zero) + 1):
        cells[i] = "▒" if first <= i <= last else "█"
    cells[zero] = "│"
    style = "red" if low > 0 else "dim"
    styles = [style] * width
    styles[zero] = "dim"
    return _joined(cells, styles)


def _joined(cells: Sequence[str], styles: Sequence[str]) -> Text:
    text = Text(no_wrap=True)
    for cell, style in zip(cells, styles, strict=True):
        text.append(cell, style=style)
    return text


# Flagged findings


def _details(f: Finding, width: int, styled: bool) -> Iterable[RenderableType]:
    title = in_style("▲ ", "bold red")
    title.append_text(safe(shorten(strip_unsafe(f.concept), max(3, width // 2))[0], "bold"))
    title.append_text(safe(f"  {f.code} {f.detector}, ", "dim"))
    title.append(f.severity.value, style=SEVERITY_STYLE[f.severity])
    yield heading(title)
    yield indented(safe(f.message))
    tested = (
        f"{summary.plural(f.rows_tested, 'row')} and {summary.plural(f.units_tested, 'unit')} "
        f"tested; null hypothesis: {f.null_hypothesis}"
    )
    yield indented(safe(tested, "dim"))
    for note in f.notes:
        yield indented(safe(note, "dim"))
    if f.tokens:
        yield Text()
        yield indented(_tokens(f.tokens, width))
    if f.evidence:
        yield Padding(Text("Rows that speak for it", style="bold"), (1, 0, 0, 2))
        yield indented(_evidence(f.evidence, width, styled))


def _tokens(tokens: Sequence[TokenEnrichment], width: int) -> RenderableType:
    shown = tokens[:_SHOWN_TOKENS]
    ends = [
        v for t in shown for v in (t.log_ratio_low_nats, t.log_ratio_high_nats) if math.isfinite(v)
    ]
    scale = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    unit_width = min(14, max(5, *(len(t.unit) for t in shown)))
    bar_width = max(8, min(40, width - 57 - unit_width))
    table = empty_table()
    table.expand = False
    table.padding = (0, 1, 0, 0)
    table.add_column("token", no_wrap=True, overflow="ellipsis", min_width=5, max_width=14)
    table.add_column("seen", justify="right", no_wrap=True, min_width=4)
    table.add_column("expected", justify="right", no_wrap=True, min_width=8)
    table.add_column("times", justify="right", no_wrap=True, min_width=5)
    table.add_column("log-ratio, nats", no_wrap=True)
    table.add_column("", no_wrap=True, width=bar_width)
    for t in shown:
        ratio = Text(summary.signed(t.log_ratio_nats))
        ratio.append(
            f" ({summary.interval(t.log_ratio_low_nats, t.log_ratio_high_nats)})", style="dim"
        )
        expected = f"{t.expected_count:,.1f}" if math.isfinite(t.expected_count) else "–"
        table.add_row(
            safe(t.unit.replace(" ", "␣"), "bold"),
            f"{t.observed_count:,}",
            expected,
            summary.times(t.log_ratio_nats),
            ratio,
            _ratio_bar(t, scale, bar_width),
        )
    if len(tokens) == len(shown):
        return table
    return Group(table, Text(f"… and {len(tokens) - len(shown):,} more tokens", style="dim italic"))


def _evidence(rows: Sequence[EvidenceRow], width: int, styled: bool) -> RenderableType:
    lines: list[RenderableType] = []
    for row in rows[:_SHOWN_EVIDENCE]:
        where = safe(f"{row.source}:{row.line}", "cyan")
        where.append(f"  score {summary.signed(row.score)}", style="dim")
        lines.append(where)
        text, spans = shorten(strip_unsafe(row.text), max(40, 2 * (width - 6)), row.spans)
        shown = Text(text if styled else mark(text, spans), overflow="fold")
        if styled:
            for start, end in spans:
                shown.stylize("bold underline red", start, end)
        lines.append(indented(shown))
    if len(rows) > _SHOWN_EVIDENCE:
        more = f"… and {len(rows) - _SHOWN_EVIDENCE:,} more rows"
        lines.append(Text(more, style="dim italic"))
    return Group(*lines)


# What was not seen


def _not_read(result: ScanResult) -> Iterable[RenderableType]:
    yield heading("Not read")
    lines = []
    for broken in result.broken:
        line = in_style("broken off ", "bold magenta")
        line.append_text(safe(f"{broken.source}:{broken.line}", "cyan"))
        line.append_text(safe(f" {broken.message}"))
        lines.append(line)
    for code, count in summary.reject_codes(result):
        examples = [r for r in result.rejects if r.code == code]
        line = Text(f"{summary.plural(count, 'row')} rejected: ")
        line.append_text(safe(code, "bold"))
        for example in examples[:_SHOWN_REJECTS]:
            line.append("\n")
            line.append_text(safe(f"{example.source}:{example.line}", "cyan"))
            line.append_text(safe(f" {example.message}", "dim"))
        if examples and count > len(examples[:_SHOWN_REJECTS]):
            line.append(
                f"\n… and {count - len(examples[:_SHOWN_REJECTS]):,} more", style="dim italic"
            )
        lines.append(line)
    if not lines:
        lines.append(Text("No row was rejected and every source was read to its end.", style="dim"))
    yield bullets(lines)


def _not_tested(result: ScanResult) -> Iterable[RenderableType]:
    if not result.skipped:
        return
    yield heading("Not tested")
    lines = []
    for who, reason, concepts in summary.skipped_groups(result.skipped):
        line = safe(who, "bold")
        line.append_text(safe(f": {reason}", ""))
        if concepts:
            names = ", ".join(concepts[:_SHOWN_CONCEPTS])
            if len(concepts) > _SHOWN_CONCEPTS:
                names += f" and {len(concepts) - _SHOWN_CONCEPTS:,} more"
            line.append_text(safe(f" ({names})", "dim"))
        lines.append(line)
    yield bullets(lines)


def _limits(result: ScanResult) -> Iterable[RenderableType]:
    if not result.limits:
        return
    yield heading("What this scan could not have seen")
    yield bullets(safe(limit) for limit in result.limits)


def _provenance(result: ScanResult) -> Iterable[RenderableType]:
    yield heading("Provenance")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in summary.provenance(result):
        grid.add_row(label, safe(text))
    yield indented(grid)
