"""A gate for people at a terminal: the verdict, one line a data set, and what holds it.

Text from data and settings becomes ``rich.text.Text`` only after ``strip_unsafe``: see
`audit.report.terminal`.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.panel import Panel
from rich.text import Text

from audit.gate.result import GateResult, GateVerdict, SetDecision
from audit.report import gate_words as words
from audit.report.layout import bullets, empty_table, heading, in_style
from audit.report.plain_text import to_plain_text
from audit.report.safe_rich import safe

_MOST_WIDE = 120
_SHOWN_LINES = 50

# Blue, not green: there is no "clean".
_STYLE = {
    GateVerdict.INCOMPLETE: "magenta",
    GateVerdict.NOTHING_SCANNABLE: "magenta",
    GateVerdict.HELD: "red",
    GateVerdict.PASSES: "blue",
    GateVerdict.NOT_SCANNED: "dim",
}
_SIGN = {
    GateVerdict.INCOMPLETE: "✗",
    GateVerdict.NOTHING_SCANNABLE: "✗",
    GateVerdict.HELD: "▲",
    GateVerdict.PASSES: "○",
    GateVerdict.NOT_SCANNED: "–",
}


def render(result: GateResult) -> RenderableType:
    """``result`` as one rich renderable, as wide as the console; readable without colour."""
    return Constrain(Group(*_sections(result)), _MOST_WIDE)


def to_text(result: GateResult, *, width: int = 100) -> str:
    """The same as plain text without styles, ``width`` columns wide."""
    return to_plain_text(render(result), width)


def _sections(result: GateResult) -> Iterable[RenderableType]:
    yield _panel(result)
    yield heading("Data sets")
    yield _table(result)
    for title, lines in words.everything(result):
        yield heading(safe(title, "bold"))
        yield _lines(lines)
    limits = list(dict.fromkeys(limit for scan in result.scans for limit in scan.result.limits))
    if limits:
        yield heading("What these scans could not have seen")
        yield _lines(limits)


def _panel(result: GateResult) -> RenderableType:
    colour = _STYLE[result.verdict]
    config = result.config
    facts = [
        config.file,
        f"fails on {config.fail_on.value}",
        f"undecided: {config.budgets.inconclusive.value}",
        words.today_words(result.today),
    ]
    if result.changed_since is not None:
        facts.append(f"changed since {result.changed_since}")
    return Panel(
        Group(
            in_style(f"{_SIGN[result.verdict]} {words.verdict_words(result)}", f"bold {colour}"),
            Text(),
            Text(words.headline(result), style="bold"),
            Text(words.MEANING[result.verdict]),
            Text(),
            safe(" · ".join(facts), "dim"),
        ),
        box=box.HEAVY,
        border_style=colour,
        padding=(1, 2),
        title=Text("subliminal-audit gate", style="dim"),
        title_align="left",
    )


def _table(result: GateResult) -> RenderableType:
    table = empty_table()
    table.padding = (0, 1, 0, 0)
    table.add_column(" verdict", no_wrap=True)
    table.add_column("data set", ratio=1, overflow="fold")
    for column in ("rows", "rejected", "flagged", "let through", "undecided"):
        table.add_column(column, justify="right", no_wrap=True)
    for decision in result.sets:
        verdict = in_style(
            f"{_SIGN[decision.verdict]} {decision.verdict.value}", _STYLE[decision.verdict]
        )
        table.add_row(verdict, safe(decision.name, "bold"), *_figures(decision))
    return table


def _figures(decision: SetDecision) -> list[str]:
    if decision.scan is None:
        return ["–"] * 5
    scan = decision.scan.result
    return [
        f"{scan.rows_scanned:,}",
        f"{scan.rows_rejected:,}",
        f"{len(scan.flagged()):,}",
        f"{len(decision.scan.accepted):,}",
        f"{decision.undecided:,} of {len(scan.concepts):,}",
    ]


def _lines(lines: list[str]) -> RenderableType:
    shown = [safe(line) for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append(Text(f"… and {len(lines) - _SHOWN_LINES:,} more; the JSON has them all"))
    return bullets(shown)
