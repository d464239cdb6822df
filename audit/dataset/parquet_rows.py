"""Parquet files to rows. Memory is bounded by one row group of the columns that are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from audit.dataset.columnar import Numbered, long_row, numbered
from audit.dataset.limits import Limits
from audit.dataset.parquet_process import read_in_process

PARQUET_MAGIC = b"PAR1"


def read_parquet(path: Path, limits: Limits, columns: frozenset[str] | None) -> Iterator[Numbered]:
    """Numbered rows (1-based) with those of their columns that are in ``columns``, or all.

    Raises ``SourceBreak`` where the file is corrupt, after the rows of every row group before.
    """
    done_rows = 0
    for frame in read_in_process(path, columns, limits.max_line_bytes):
        if frame is None:
            done_rows += 1
            yield done_rows, long_row(limits)
            continue
        yield from numbered(frame, done_rows, limits)
        done_rows += frame.height
