"""A verification for people at a terminal: the verdict, what it rests on, and how it was measured.

Text from data becomes ``rich.text.Text`` only after ``strip_unsafe``: see `audit.report.terminal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit.report import verify_words as words
from audit.report.layout import bullets, empty_table, heading, in_style, indented
from audit.report.safe_rich import safe
from audit.verify.result import SelfCheck, VerifyResult
from audit.verify.verdict import Transfer

_MOST_WIDE = 120

# Blue, not green: there is no "clean".
_COLOUR = {
    Transfer.TRANSFERS: "red",
    Transfer.SUPPRESSED: "blue",
    Transfer.NOT_BEFORE: "blue",
    Transfer.INCONCLUSIVE: "yellow",
}


def render(result: VerifyResult) -> RenderableType:
    """``result`` as one rich renderable, as wide as the console; readable without colour."""
    return Constrain(Group(*_sections(result)), _MOST_WIDE)


def render_self_check(check: SelfCheck) -> RenderableType:
    """The check with a known answer, likewise."""
    colour = _check_colour(check)
    panel = _panel(
        "subliminal-audit verify --self-check",
        colour,
        [
            in_style(f"SELF-CHECK {words.check_words(check)}", f"bold {colour}"),
            Text(),
            Text(words.SELF_CHECK_MEANS),
            Text(),
            in_style(f"{check.seconds:,.0f} s", "dim"),
        ],
    )
    return Constrain(Group(panel, Text(), _pairs(words.check_facts(check))), _MOST_WIDE)


def _sections(result: VerifyResult) -> Iterable[RenderableType]:
    colour = _COLOUR[result.verdict.transfer]
    yield _panel(
        "subliminal-audit verify",
        colour,
        [
            in_style(words.verdict_words(result), f"bold {colour}"),
            Text(),
            safe(result.verdict.sentence, "bold"),
            Text(words.meaning(result)),
            Text(),
            in_style(words.size_words(result), "dim"),
        ],
    )
    if result.warnings:
        yield heading("Beware")
        yield bullets(map(safe, result.warnings), "!")
    yield heading("How far students moved, nats")
    yield _table(words.shift_table(result))
    yield _note(f"{words.arms_words(result)} {words.base_words(result)} {words.SHIFT_MEANS}")
    yield heading("What is left of the effect")
    for zero, table in words.effect_tables(result):
        yield in_style(f"Counted from {zero}:", "dim")
        yield _table(table)
    yield _note(words.EFFECT_MEANS)
    yield Text()
    yield bullets(map(safe, words.equivalence_words(result)))
    if result.answers:
        yield heading("Sampled answers")
        yield _table(words.answer_table(result))
        yield _note(words.ANSWERS_MEAN)
    yield heading("What the edit was")
    yield _pairs(words.edit_facts(result))
    yield heading("Data")
    yield _pairs(words.data_facts(result))
    yield heading("How it was measured")
    yield _pairs(words.training_facts(result))
    check = result.self_check
    title = Text("Self-check ", style="bold")
    yield heading(title.append(words.check_words(check), style=_check_colour(check)))
    yield _pairs(words.check_facts(check))


def _check_colour(check: SelfCheck) -> str:
    return "blue" if check.passed else "red"


def _panel(title: str, colour: str, parts: Sequence[RenderableType]) -> RenderableType:
    return Panel(
        Group(*parts),
        box=box.HEAVY,
        border_style=colour,
        padding=(1, 2),
        title=Text(title, style="dim"),
        title_align="left",
    )


def _table(content: words.WordTable) -> RenderableType:
    table = empty_table()
    table.padding = (0, 1, 0, 0)
    for index, column in enumerate(content.columns):
        table.add_column(
            column,
            justify="right" if index else "left",
            ratio=None if index else 1,
            overflow="fold",
        )
    for name, *figures in content.rows:
        table.add_row(safe(name, "bold"), *map(safe, figures))
    return table


def _note(text: str) -> RenderableType:
    return Padding(in_style(text, "dim"), (1, 0, 0, 2))


def _pairs(facts: words.Facts) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1, overflow="fold")
    for label, text in facts:
        grid.add_row(safe(label), safe(text))
    return indented(grid)
