"""Chunks of bytes to lines, never holding more than one line of bounded length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from audit.dataset.faults import SourceBreak

Line = tuple[int, bytes | None, bool]


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Lines that follow one another: ``data`` has no LF at its end, and is None in place of one
    line that is too long. ``number`` is the first line's, from 1; the last one is ``terminated``
    if an LF follows."""

    number: int
    data: bytes | None
    terminated: bool = True

    @property
    def next_number(self) -> int:
        """The number of the line after it."""
        return self.number + 1 + (0 if self.data is None else self.data.count(b"\n"))

    def halves(self) -> tuple[LineBlock, LineBlock] | None:
        """Two blocks of about half the length; None for one line."""
        data = self.data or b""
        middle = data.rfind(b"\n", 0, len(data) // 2)
        if middle < 0 and (middle := data.find(b"\n")) < 0:
            return None
        first = LineBlock(self.number, data[:middle])
        rest = LineBlock(first.next_number, data[middle + 1 :], self.terminated)
        return first, rest

    def lines(self) -> Iterator[Line]:
        """``(number, line, terminated)`` of every line."""
        if self.data is None:
            yield self.number, None, self.terminated
            return
        *before, last = self.data.split(b"\n")
        number = self.number
        for line in before:
            yield number, line, True
            number += 1
        yield number, last, self.terminated


def line_blocks(chunks: Iterator[bytes], max_line_bytes: int) -> Iterator[LineBlock]:
    """All lines, split at LF only; a block is about as long as a chunk.

    Where the chunks break off, the unfinished line comes first, then ``SourceBreak`` with its
    number.
    """
    number = 1
    pending: list[bytes] = []
    pending_bytes = 0
    broken: SourceBreak | None = None
    while True:
        try:
            chunk = next(chunks, b"")
        except SourceBreak as error:
            broken = error
            break
        if not chunk:
            break
        end = chunk.find(b"\n")
        head = chunk if end < 0 else chunk[:end]
        pending_bytes += len(head)
        if pending_bytes <= max_line_bytes:
            pending.append(head)
        else:
            pending.clear()
        if end < 0:
            continue
        last = chunk.rfind(b"\n")
        if pending_bytes > max_line_bytes:
            yield LineBlock(number, None)
            number += 1
            whole = chunk[end + 1 : last] if last > end else None
        else:
            whole = b"".join((*pending, chunk[end:last]))
        for block in () if whole is None else _bounded(number, whole, max_line_bytes):
            yield block
            number = block.next_number
        rest = chunk[last + 1 :]
        pending_bytes = len(rest)
        pending = [rest] if pending_bytes <= max_line_bytes else []
    if pending_bytes:
        held = pending_bytes <= max_line_bytes
        yield LineBlock(number, b"".join(pending) if held else None, terminated=False)
    if broken is not None:
        raise SourceBreak(broken.message, number) from broken


def _bounded(number: int, data: bytes, max_line_bytes: int) -> Iterable[LineBlock]:
    """``data`` as one block, or line by line where a line may be too long."""
    if len(data) <= max_line_bytes:
        return (LineBlock(number, data),)
    lines = data.split(b"\n")
    return (
        LineBlock(number + place, line if len(line) <= max_line_bytes else None)
        for place, line in enumerate(lines)
    )


def split_lines(chunks: Iterator[bytes], max_line_bytes: int) -> Iterator[Line]:
    """``(number, line, terminated)`` of every line, split at LF only.

    ``number`` is 1-based; ``line`` has no LF and is ``None`` if longer than ``max_line_bytes``.
    Where the chunks break off, the unfinished line comes first, then ``SourceBreak`` with
    its number.
    """
    for block in line_blocks(chunks, max_line_bytes):
        yield from block.lines()
