"""One source read to its end, with what holds of any reading checked on the way."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from audit.dataset import Batch, read_batches
from detectors.rows import check_rows

Row = tuple[int, str, str, str | None]
"""Line, prompt, completion and rejected text."""


@dataclass(frozen=True)
class Reading:
    """Everything that a pass over one source gave."""

    rows: tuple[Row, ...]
    rejects: tuple[tuple[int, str], ...]
    rejected_rows: int
    broken: tuple[int, str] | None
    format: str

    def __len__(self) -> int:
        return len(self.rows) + self.rejected_rows


# So few that every reject is among the examples.
ALL_REJECTS_SHOWN = 20


def read(name: str, **options: Any) -> Reading:
    """The one source ``name``, having checked what holds of any."""
    batches = list(read_batches([name], **options))
    return checked(batches, options.get("batch_rows", 4096))


def checked(batches: Sequence[Batch], batch_rows: int = 4096) -> Reading:
    """``batches`` of one source together: nothing is counted twice, or not at all."""
    for batch in batches:
        check_rows(batch.rows)
        assert len(batch.rows) + batch.reject_counts.total() <= batch_rows
        assert len(batch.rejects) == min(batch.reject_counts.total(), ALL_REJECTS_SHOWN)
    *before, last = batches
    assert last.finished is not None
    assert all(batch.finished is None and batch.broken is None for batch in before)
    rows = tuple(
        row
        for batch in batches
        for row in batch.rows.select("line", "prompt", "completion", "rejected").iter_rows()
    )
    rejects = tuple((each.line, each.code) for batch in batches for each in batch.rejects)
    rejected_rows = sum(batch.reject_counts.total() for batch in batches)
    assert (last.finished.rows, last.finished.rejected_rows) == (len(rows), rejected_rows)
    lines = [line for line, *_ in rows]
    assert lines == sorted(lines)
    broken = last.broken and (last.broken.line, last.broken.message)
    if broken is not None:
        assert broken[1] and "\n" not in broken[1]
    return Reading(rows, rejects, rejected_rows, broken, last.finished.format)


class _Drip:
    """A binary stream that gives at most ``size`` bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file = io.BytesIO(data)
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, self._size) if size >= 0 else self._size)


@contextmanager
def standard_input(data: bytes, size: int) -> Iterator[None]:
    """Standard input holds ``data``, and gives at most ``size`` bytes of it at a time."""
    with mock.patch.object(sys, "stdin", mock.Mock(buffer=_Drip(data, size))):
        yield
