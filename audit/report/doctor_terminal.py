"""What works on this machine, for people at a terminal."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from audit.doctor import Check, Diagnosis, State
from audit.report.safe_rich import safe

_GROUPS = ("tool", "packages", "machine", "data")
_SIGNS = {State.OK: "✓", State.MISSING: "–", State.BROKEN: "✗"}
_STYLES = {State.OK: "green", State.MISSING: "yellow", State.BROKEN: "bold red"}


def render(diagnosis: Diagnosis) -> RenderableType:
    """One line a part, by group; below what is not well, what it costs and how to mend it."""
    checks = sorted(diagnosis.checks, key=lambda check: _GROUPS.index(check.group))
    parts: list[RenderableType] = []
    for group, members in groupby(checks, key=lambda check: check.group):
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for check in members:
            _rows(table, check)
        parts += [Text(group, style="bold"), table, Text()]
    return Group(*parts, _total(diagnosis))


def _rows(table: Table, check: Check) -> None:
    style = _STYLES[check.state]
    sign = Text(f" {_SIGNS[check.state]}", style=style)
    table.add_row(sign, Text(check.state.value, style=style), safe(check.name), safe(check.found))
    for word, text in (("cost", check.cost), ("mend", check.mend)):
        if text:
            table.add_row("", "", Text(f"  {word}", style="dim"), safe(text))


def _total(diagnosis: Diagnosis) -> Text:
    counts = Counter(check.state for check in diagnosis.checks)
    text = f"{counts[State.OK]} ok, {counts[State.MISSING]} missing (optional), "
    text += f"{counts[State.BROKEN]} broken"
    return Text(text, style="bold red" if counts[State.BROKEN] else "bold")
