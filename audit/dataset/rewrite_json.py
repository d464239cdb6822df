"""JSON Lines and JSON files written anew: rows that are kept stay as they are, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator

from audit.dataset.decision import Decide, Decision, decided
from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.json_edit import edited_json
from audit.dataset.json_rows import (
    JsonText,
    spanned_values,
    values_of_lines,
    values_with_starts,
)
from audit.dataset.limits import Limits
from audit.dataset.line_output import LineOutput, LineTape
from audit.dataset.lines import Line, split_lines
from audit.dataset.output import Output
from audit.dataset.schema import KNOWN_COLUMNS

_SPACE = " \t\r\n"
# Bytes that are not UTF-8 come back as they were.
_ERRORS = "surrogateescape"


def rewrite_json_lines(
    chunks: Iterator[bytes], output: Output, decide: Decide, limits: Limits
) -> None:
    """Write the lines of ``chunks`` as ``decide`` says. Blank lines stay.

    A line of several values becomes one line for each, where one of them is not kept. Raises
    ``SourceBreak``, and ``ValueError`` for a decision that makes no sense.
    """
    tape = LineTape(split_lines(chunks, limits.max_line_bytes))
    lines = LineOutput(output)
    current: Line | None = None
    decisions: list[Decision] = []
    for number, value in values_of_lines(tape, limits):
        if taken := tape.taken():  # else another value of the same line
            _write_line(lines, current, decisions)
            for blank in taken[:-1]:
                lines.as_it_stands(blank)
            current, decisions = taken[-1], []
        decisions.append(decided(decide, number, value))
    _write_line(lines, current, decisions)
    for line in tape.taken():
        lines.as_it_stands(line)
    lines.end(terminated=tape.ends_terminated)


def _write_line(lines: LineOutput, line: Line | None, decisions: list[Decision]) -> None:
    if line is None:
        return
    if all(decision.keeps for decision in decisions):
        lines.as_it_stands(line)
        return
    number, stored, _ = line
    text = (stored or b"").decode(errors=_ERRORS)
    start, end = len(text) - len(text.lstrip(_SPACE)), len(text.rstrip(_SPACE))
    spans = [(start, end)]
    if len(decisions) > 1:
        spans = [(first, last) for _, first, last in spanned_values(text)]
    for (first, last), decision in zip(spans, decisions, strict=True):
        for new in _new_texts(text[first:last], decision, number):
            lines.write(f"{text[:start]}{new}{text[end:]}".encode(errors=_ERRORS))


def _new_texts(source: str, decision: Decision, line: int) -> list[str]:
    try:
        return [source if row is None else edited_json(source, row) for row in decision.new_rows()]
    except RowFault as fault:
        raise SourceBreak(f"has a row that cannot be changed: {fault.message}", line) from fault


def rewrite_json_values(
    chunks: Iterator[bytes], output: Output, decide: Decide, limits: Limits
) -> None:
    """Write a JSON file as ``decide`` says. Wrappers, their other members and all space stay.

    Raises ``SourceBreak``, and ``ValueError`` for a decision that makes no sense.
    """
    passed: list[str] = []
    text = JsonText(chunks, limits, passed)
    rows = _RowOutput(output)
    done = 0
    for line, value, start in values_with_starts(text, KNOWN_COLUMNS):
        decision = decided(decide, line, value)
        if start < done:
            # An object with lists of rows that is a row itself, and written up to its end.
            if not decision.keeps:
                raise SourceBreak("has a row around other rows, which can only be kept", line)
            continue
        pending = "".join(passed)
        passed.clear()
        before, source = pending[: start - done], pending[start - done :]
        rows.write(before, _new_texts(source, decision, line))
        done = text.offset
    output.write("".join(passed).encode(errors=_ERRORS))


class _RowOutput:
    """Writes rows with what stands between them, which goes with the row that it comes before."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._between: str | None = None
        self._is_first = True

    def write(self, before: str, texts: list[str]) -> None:
        """``texts`` stand in the place of one row, and ``before`` before it."""
        if self._between is None or before.strip(_SPACE) not in ("", ","):
            # The row is the first of its list, or of the file.
            self._write(before)
            self._is_first = True
            bare = before.rstrip(_SPACE)
            self._between = f",{before[len(bare) :] or ' '}" if bare.endswith("[") else "\n"
        else:
            self._between = before
        for text in texts:
            if not self._is_first:
                self._write(self._between)
            self._write(text)
            self._is_first = False

    def _write(self, text: str) -> None:
        self._output.write(text.encode(errors=_ERRORS))
