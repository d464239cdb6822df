"""What the Parquet and Arrow readers share."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from polars.exceptions import PanicException, PolarsError

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.limits import Limits

Numbered = tuple[int, object]
"""1-based record number, and the row or the ``RowFault`` that stands for it."""

# Polars panics, rather than raising, on some corrupt files.
READ_ERRORS = (PolarsError, PanicException, OSError, ValueError, OverflowError, MemoryError)

SLICE_ROWS = 4096


def readable_columns(names: list[str], columns: frozenset[str] | None) -> list[str]:
    """Those of ``names`` in ``columns``, or all if that is None; failing that the first, so that
    rows can be counted."""
    if columns is None:
        return names
    return [name for name in names if name in columns] or names[:1]


def numbered(frame: pl.DataFrame, done_rows: int, limits: Limits) -> Iterator[Numbered]:
    """The rows of ``frame`` as dictionaries, the first being record ``done_rows + 1``.

    A row with more text than a line may have is a ``RowFault``: many rows of a column can share
    one text, so that a small file holds more of them than fits into memory.
    """
    number = done_rows + 1
    for part in slices(frame, limits.max_line_bytes):
        if is_long(part, limits):
            yield number, long_row(limits)
        else:
            yield from enumerate(part.iter_rows(named=True), number)
        number += part.height


def slices(frame: pl.DataFrame, most_bytes: int) -> Iterator[pl.DataFrame]:
    """``frame`` in parts of at most 4,096 rows and ``most_bytes`` of text; of one row, if need be
    of more."""
    for start in range(0, frame.height, SLICE_ROWS):
        waiting = [frame.slice(start, SLICE_ROWS)]
        while waiting:
            part = waiting.pop()
            if part.height == 1 or _row_bytes(part) <= most_bytes:
                yield part
            else:
                half = part.height // 2
                waiting += [part[half:], part[:half]]


def is_long(part: pl.DataFrame, limits: Limits) -> bool:
    """Whether ``part`` is one row with more text than a line may have."""
    return part.height == 1 and _row_bytes(part) > limits.max_line_bytes


def long_row(limits: Limits) -> RowFault:
    """What stands for such a row."""
    message = f"row of more than {limits.max_line_bytes:,} bytes"
    return RowFault(RejectCode.LINE_TOO_LONG, message)


def _row_bytes(part: pl.DataFrame) -> int:
    return sum(map(_text_bytes, part.iter_columns()))


def _text_bytes(column: pl.Series) -> int:
    """Bytes of all texts in ``column``, each counted as often as it stands there."""
    if isinstance(column.dtype, pl.List | pl.Array):
        return _text_bytes(column.explode())
    if isinstance(column.dtype, pl.Struct):
        return sum(_text_bytes(column.struct.field(name)) for name in column.struct.fields)
    if column.dtype == pl.Binary:
        return int(column.bin.size().sum())
    if column.dtype in (pl.Categorical, pl.Enum):  # a cast would write out every text
        return int(column.cat.len_bytes().sum())
    return int(column.str.len_bytes().sum()) if column.dtype == pl.String else 8 * len(column)


def first_line(error: BaseException) -> str:
    """The message of an error, short enough for a report."""
    return str(error).partition("\n")[0][:300]
