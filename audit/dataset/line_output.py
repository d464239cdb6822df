"""Lines of text from a source, some of them changed, to an output."""

from __future__ import annotations

from collections.abc import Iterator

from audit.dataset.faults import SourceBreak
from audit.dataset.lines import Line
from audit.dataset.output import Output


class LineTape:
    """Hands lines on, and remembers those that were taken since it was last asked."""

    def __init__(self, lines: Iterator[Line]) -> None:
        """``lines`` as ``split_lines`` gives them."""
        self._lines = lines
        self._taken: list[Line] = []
        self.ends_terminated = True

    def __iter__(self) -> LineTape:
        """Itself: lines are handed on once."""
        return self

    def __next__(self) -> Line:
        """The next line. Raises ``SourceBreak`` where they break off."""
        line = next(self._lines)
        self._taken.append(line)
        self.ends_terminated = line[2]
        return line

    def taken(self) -> list[Line]:
        """The lines since the last call."""
        taken, self._taken = self._taken, []
        return taken


class LineOutput:
    """Writes lines. What ends a line is written once it is known whether another follows."""

    def __init__(self, output: Output) -> None:
        """``output`` is at the beginning of a line."""
        self._output = output
        self._is_open = False

    def as_it_stands(self, line: Line) -> None:
        """Write ``line``. Raises ``SourceBreak`` if it was too long to be held."""
        number, text, _ = line
        if text is None:
            raise SourceBreak("has a line that is too long to be kept", number)
        self.write(text)

    def write(self, line: bytes) -> None:
        """Write one line, given without LF."""
        self._output.write(b"\n" + line if self._is_open else line)
        self._is_open = True

    def end(self, *, terminated: bool) -> None:
        """End the last line, or leave it open as that of the source was."""
        if self._is_open and terminated:
            self._output.write(b"\n")
