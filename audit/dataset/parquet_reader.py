"""What reads Parquet files with native code: `audit.dataset.parquet_process` runs it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl

from audit.dataset.columnar import (
    READ_ERRORS,
    SLICE_ROWS,
    first_line,
    is_long,
    readable_columns,
    slices,
)
from audit.dataset.faults import SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.parquet_footer import contradiction, row_group_heights
from audit.dataset.parquet_process import BROKEN, DONE, FRAME, HEADER, LONG_ROW

# The most that other writers put into a row group; a column of them takes a gigabyte of memory.
_MOST_GROUP_ROWS = 1 << 26
_MOST_FRAME_BYTES = 16 << 20


def parquet_frames(
    path: Path, columns: frozenset[str] | None, done_rows: int = 0, *, in_order: bool = False
) -> Iterator[pl.DataFrame]:
    """The rows after the first ``done_rows``, with those of their columns that are in ``columns``.

    ``in_order`` reads one row group after another, which is slower and never ahead. Raises
    ``SourceBreak`` where the file is corrupt, after the rows of every row group before.
    """
    try:
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        rows_in_file = int(scan.select(pl.len()).collect().item())
        scan = scan.select(readable_columns(scan.collect_schema().names(), columns))
    except READ_ERRORS as error:
        raise SourceBreak(f"is not readable Parquet: {first_line(error)}") from error
    if lie := contradiction(path):
        raise SourceBreak(f"is not readable Parquet: it {lie}")
    heights = row_group_heights(path)
    if max(heights, default=0) > _MOST_GROUP_ROWS:
        raise SourceBreak(f"has a row group of more than {_MOST_GROUP_ROWS:,} rows")
    cause: BaseException | None = None
    if not in_order:
        frames = iter(scan.slice(done_rows).collect_batches(chunk_size=SLICE_ROWS, lazy=True))
        while True:
            try:
                frame = next(frames, None)
            except READ_ERRORS as error:
                cause = error
                break
            if frame is None:
                break
            yield frame
            done_rows += frame.height
    # The engine reads ahead, so its error may come before readable rows: fetch them in order.
    if in_order or cause is not None:
        group_start = 0
        for height in heights:
            group_end = group_start + height
            if group_end > done_rows:
                try:
                    frame = scan.slice(done_rows, group_end - done_rows).collect()
                except READ_ERRORS as error:
                    cause = cause or error
                    break
                yield frame
                done_rows = group_end
            group_start = group_end
    if cause is not None:
        raise SourceBreak(f"is corrupt: {first_line(cause)}", done_rows + 1) from cause
    if done_rows != rows_in_file:
        raise SourceBreak(
            f"holds {done_rows:,} rows where {rows_in_file:,} were announced", done_rows + 1
        )


def serve() -> None:
    """Answer requests on standard input, a line each, until it ends."""
    _leave_no_traces()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        columns = request["columns"]
        limits = Limits(max_line_bytes=request["max_line_bytes"])
        try:
            for frame in parquet_frames(
                Path(request["path"]),
                None if columns is None else frozenset(columns),
                request["done_rows"],
                in_order=request["in_order"],
            ):
                # Rows may share a text, which stands in a frame that is sent once for each.
                for part in slices(frame, min(limits.max_line_bytes, _MOST_FRAME_BYTES)):
                    _send(part, limits)
        except SourceBreak as error:
            _answer(BROKEN, json.dumps([error.message, error.line]).encode())
        else:
            _answer(DONE)


def _send(part: pl.DataFrame, limits: Limits) -> None:
    if is_long(part, limits):
        _answer(LONG_ROW)
        return
    buffer = io.BytesIO()
    part.write_ipc_stream(buffer, compat_level=pl.CompatLevel.newest())
    _answer(FRAME, buffer.getvalue())


def _answer(kind: bytes, payload: bytes = b"") -> None:
    out = sys.stdout.buffer
    out.write(HEADER.pack(kind, len(payload)))
    out.write(payload)
    out.flush()


def _leave_no_traces() -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks ends this one
    with suppress(ImportError, ValueError, OSError):
        import resource  # not everywhere

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
