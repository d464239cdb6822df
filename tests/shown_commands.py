"""Commands that a page of the documentation shows, run in order, and what they print beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(sys.executable).parent
BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
TITLE = re.compile(r'title="(?P<name>[^"]+)"')
CUT = "..."
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
HASH = re.compile(r"\b(?=[a-f]*\d)(?:[0-9a-f]{12}|[0-9a-f]{64})\b")
# Marks of a drawing stand elsewhere as soon as a number differs.
DRAWING = re.compile(r"[─┼│┊●━█▒]+")


@dataclass(frozen=True, slots=True)
class ShownCommand:
    """A command after ``$``, and the lines under it."""

    command: str
    output: str


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A block with a title: a file that the reader makes."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Printed:
    """What a command printed on standard output and standard error together."""

    text: str
    returncode: int


def shown_commands(page: str) -> list[ShownCommand]:
    """The commands of all ``console`` blocks of ``page`` (Markdown), in order."""
    return [step for step in shown_steps(page) if isinstance(step, ShownCommand)]


def shown_steps(page: str) -> list[ShownCommand | ShownFile]:
    """The commands of all ``console`` blocks and the files of all titled ones, in order."""
    steps: list[ShownCommand | ShownFile] = []
    for block in BLOCK.finditer(page):
        title = TITLE.search(block["info"])
        if title is not None:
            steps.append(ShownFile(title["name"], block["text"]))
        elif block["info"] == "console":
            assert block["text"].startswith("$ "), block["text"]
            steps += map(_command, block["text"].removeprefix("$ ").split("\n$ "))
    return steps


def _command(text: str) -> ShownCommand:
    """A command, which goes on where a line ends in a backslash, and what follows it."""
    lines = text.split("\n")
    last = next(index for index, line in enumerate(lines) if not line.endswith("\\"))
    return ShownCommand("\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :]))


def run_in_order(
    steps: Sequence[ShownCommand | ShownFile], folder: Path, notes: Path, *, timeout_s: float
) -> list[Printed]:
    """Run all commands in one shell that starts in ``folder``; one result a command.

    ``notes`` is an empty folder for what is printed. The installed ``audit`` is on the path, the
    terminal 100 columns wide, and torch has one thread.
    """
    script, commands = [], 0
    for index, step in enumerate(steps):
        if isinstance(step, ShownFile):
            (notes / f"{index}.file").write_text(step.text)
            script.append(f'mkdir -p "$(dirname {step.name})"; cp {notes}/{index}.file {step.name}')
        else:
            # In this shell, so that `cd` and variables last; `$?` is handed on.
            script.append(f"{{ {step.command}\n}} >{notes}/{commands}.out 2>&1 </dev/null")
            script.append(f"_status=$?; echo $_status >{notes}/{commands}.status; (exit $_status)")
            commands += 1
    environment = {
        **os.environ,
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run(
        ["bash", "-c", "\n".join([*script, "true"])],
        cwd=folder,
        env=environment,
        timeout=timeout_s,
        check=True,
    )
    return [
        Printed((notes / f"{n}.out").read_text(), int((notes / f"{n}.status").read_text()))
        for n in range(commands)
    ]


def assert_printed(printed: str, shown: str, *, about: bool = False) -> None:
    """``printed`` is what ``shown`` says, which leaves out lines at each line of three dots.

    ``about``: a model computed the numbers, in whose last digits processors differ. Words must be
    equal, numbers within a half of one another, and drawings and hashes are not looked at.
    """
    lines = [_line(line, about) for line in printed.splitlines()]
    wanted = [_line(line, about) for line in shown.splitlines()]
    while _line(CUT, about) in wanted:
        cut = wanted.index(_line(CUT, about))
        assert_same(lines[:cut], wanted[:cut])
        wanted = wanted[cut + 1 :]
        if not wanted:
            return
        starts = [at for at in range(cut, len(lines)) if _same_line(lines[at], wanted[0])]
        assert starts, f"not printed: {wanted[0]}"
        lines = lines[starts[0] :]
    assert_same(lines, wanted)


def assert_same(printed: Sequence[list[str]], shown: Sequence[list[str]]) -> None:
    for left, right in zip(printed, shown, strict=False):
        assert _same_line(left, right), (left, right)
    assert len(printed) == len(shown)


def _line(text: str, about: bool) -> list[str]:
    """Words of a line, or the line as one word if it must be equal."""
    return HASH.sub("#", DRAWING.sub(" ", text)).split() if about else [text.rstrip()]


def _same_line(left: list[str], right: list[str]) -> bool:
    return len(left) == len(right) and all(map(_same_word, left, right))


def _same_word(left: str, right: str) -> bool:
    if left == right:
        return True
    if NUMBER.sub("#", left) != NUMBER.sub("#", right) or "#" not in NUMBER.sub("#", left):
        return False
    return all(map(_about, NUMBER.findall(left), NUMBER.findall(right)))


def _about(left: str, right: str) -> bool:
    one, other = (float(text.replace(",", "")) for text in (left, right))
    return abs(one - other) <= 0.5 * max(abs(one), abs(other)) + 0.05
