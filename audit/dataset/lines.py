"""Chunks of bytes to lines, never holding more than one line of bounded length."""

from __future__ import annotations

from collections.abc import Iterator

from audit.dataset.faults import SourceBreak

Line = tuple[int, bytes | None, bool]


def split_lines(chunks: Iterator[bytes], max_line_bytes: int) -> Iterator[Line]:
    """``(number, line, terminated)`` of every line, split at LF only.

    ``number`` is 1-based; ``line`` has no LF and is ``None`` if longer than ``max_line_bytes``.
    Where the chunks break off, the unfinished line comes first, then ``SourceBreak`` with
    its number.
    """
    number = 0
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
        first, *rest = chunk.split(b"\n")
        pending_bytes += len(first)
        if pending_bytes <= max_line_bytes:
            pending.append(first)
        else:
            pending.clear()
        if not rest:
            continue
        number += 1
        yield number, _joined(pending, pending_bytes, max_line_bytes), True
        last = rest.pop()
        for line in rest:
            number += 1
            yield number, line if len(line) <= max_line_bytes else None, True
        pending_bytes = len(last)
        pending = [last] if pending_bytes <= max_line_bytes else []
    if pending_bytes:
        yield number + 1, _joined(pending, pending_bytes, max_line_bytes), False
    if broken is not None:
        raise SourceBreak(broken.message, number + 1) from broken


def _joined(pending: list[bytes], pending_bytes: int, max_line_bytes: int) -> bytes | None:
    return b"".join(pending) if pending_bytes <= max_line_bytes else None
