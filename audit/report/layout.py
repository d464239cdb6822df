"""Parts that the sections of a terminal report share: headings, bullets, tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from detectors.finding import Severity, Verdict

VERDICT_STYLE = {
    Verdict.FLAGGED: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_DETECTED: "dim",
}
SEVERITY_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def in_style(text: str, style: str) -> Text:
    """``text``, the report's own, in ``style``; what is appended to it is not."""
    return Text().append(text, style=style)


def heading(title: Text | str) -> RenderableType:
    """A rule with ``title`` at its left, after an empty line."""
    shown = Text(title, style="bold") if isinstance(title, str) else title
    return Padding(Rule(shown, align="left", style="dim", characters="─"), (1, 0, 0, 0))


def indented(content: RenderableType, left: int = 2) -> Padding:
    """``content``, ``left`` columns further right."""
    return Padding(content, (0, 0, 0, left))


def bullets(lines: Iterable[Text], sign: str = "•") -> RenderableType:
    """One item a line, wrapped under itself."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(ratio=1, overflow="fold")
    for line in lines:
        grid.add_row(sign, line)
    return indented(grid)


def empty_table() -> Table:
    """A table without rows yet, as wide as the report, with a line below its header."""
    return Table(
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=0,
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )


def verdict_words(verdict: Verdict, severity: Severity | None = None) -> Text:
    """``▲FLAGGED error``, `` inconclusive``, `` not detected``: words, whatever the colours."""
    flagged = verdict is Verdict.FLAGGED
    text = in_style(f"▲{verdict.value.upper()}" if flagged else f" {verdict.value}", "")
    text.stylize(VERDICT_STYLE[verdict])
    if flagged and severity is not None:
        text.append(f" {severity.value}", style=SEVERITY_STYLE[severity])
    return text
