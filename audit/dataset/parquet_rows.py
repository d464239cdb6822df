"""Parquet files to rows. Memory is bounded by one row group of the columns that are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from audit.dataset.columnar import (
    READ_ERRORS,
    SLICE_ROWS,
    Numbered,
    first_line,
    numbered,
    readable_columns,
)
from audit.dataset.faults import SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.parquet_footer import row_group_heights

PARQUET_MAGIC = b"PAR1"
# The most that other writers put into a row group; a column of them takes a gigabyte of memory.
_MOST_GROUP_ROWS = 1 << 26


def read_parquet(path: Path, limits: Limits, columns: frozenset[str] | None) -> Iterator[Numbered]:
    """Numbered rows (1-based) with those of their columns that are in ``columns``, or all.

    Raises ``SourceBreak`` where the file is corrupt, after the rows of every row group before.
    """
    done_rows = 0
    for frame in parquet_frames(path, columns):
        yield from numbered(frame, done_rows, limits)
        done_rows += frame.height


def parquet_frames(path: Path, columns: frozenset[str] | None) -> Iterator[pl.DataFrame]:
    """The rows that ``read_parquet`` gives, as frames. Raises ``SourceBreak``."""
    try:
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        rows_in_file = int(scan.select(pl.len()).collect().item())
        scan = scan.select(readable_columns(scan.collect_schema().names(), columns))
    except READ_ERRORS as error:
        raise SourceBreak(f"is not readable Parquet: {first_line(error)}") from error
    if max(row_group_heights(path), default=0) > _MOST_GROUP_ROWS:
        raise SourceBreak(f"has a row group of more than {_MOST_GROUP_ROWS:,} rows")
    done_rows = 0
    frames = iter(scan.collect_batches(chunk_size=SLICE_ROWS, lazy=True))
    while True:
        try:
            frame = next(frames, None)
        except READ_ERRORS as error:
            cause = error
            break
        if frame is None:
            if done_rows == rows_in_file:
                return
            raise SourceBreak(
                f"holds {done_rows:,} rows where {rows_in_file:,} were announced", done_rows + 1
            )
        yield frame
        done_rows += frame.height
    # The engine reads ahead, so its error may come before readable rows: fetch them in order.
    group_start = 0
    for height in row_group_heights(path):
        group_end = group_start + height
        if group_end > done_rows:
            try:
                frame = scan.slice(done_rows, group_end - done_rows).collect()
            except READ_ERRORS:
                break
            yield frame
            done_rows = group_end
        group_start = group_end
    raise SourceBreak(f"is corrupt: {first_line(cause)}", done_rows + 1) from cause
