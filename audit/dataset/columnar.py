"""What the Parquet and Arrow readers share."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from polars.exceptions import PanicException, PolarsError

Numbered = tuple[int, object]
"""1-based record number and row."""

# Polars panics, rather than raising, on some corrupt files.
READ_ERRORS = (PolarsError, PanicException, OSError, ValueError, OverflowError, MemoryError)

SLICE_ROWS = 4096


def readable_columns(names: list[str], columns: frozenset[str] | None) -> list[str]:
    """Those of ``names`` in ``columns``, or all if that is None; failing that the first, so that
    rows can be counted."""
    if columns is None:
        return names
    return [name for name in names if name in columns] or names[:1]


def numbered(frame: pl.DataFrame, done_rows: int) -> Iterator[Numbered]:
    """The rows of ``frame`` as dictionaries, the first being record ``done_rows + 1``."""
    for start in range(0, frame.height, SLICE_ROWS):
        part = frame.slice(start, SLICE_ROWS)
        yield from enumerate(part.iter_rows(named=True), done_rows + start + 1)


def first_line(error: BaseException) -> str:
    """The message of an error, short enough for a report."""
    return str(error).partition("\n")[0][:300]
