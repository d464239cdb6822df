"""Parquet and Arrow IPC to rows, a record batch at a time.

Memory is bounded by one row group (Parquet) or one record batch (Arrow) of the known columns.
Polars reads an Arrow stream only as a whole, so it is given one message at a time here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from audit.dataset.faults import SourceBreak
from audit.dataset.parquet_footer import row_group_heights

ARROW_FILE_MAGIC = b"ARROW1"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"
PARQUET_MAGIC = b"PAR1"

# Polars panics, rather than raising, on some corrupt files.
_READ_ERRORS = (PolarsError, PanicException, OSError, ValueError, OverflowError, MemoryError)
_SLICE_ROWS = 4096
_CHUNK_BYTES = 1 << 20
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

Numbered = tuple[int, object]


def read_parquet(path: Path, columns: frozenset[str]) -> Iterator[Numbered]:
    """Numbered rows (1-based) with those of their ``columns`` that schemas know.

    Raises ``SourceBreak`` where the file is corrupt, after the rows of every row group before.
    """
    try:
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        known, rows_in_file = _known_and_height(scan, columns)
    except _READ_ERRORS as error:
        raise SourceBreak(f"is not readable Parquet: {_first_line(error)}") from error
    yield from _scanned(scan, known, rows_in_file, partial(row_group_heights, path))


def read_arrow_file(path: Path, columns: frozenset[str]) -> Iterator[Numbered]:
    """As ``read_parquet``, for an Arrow IPC file.

    A file that was cut off has lost the directory at its end: its messages are then read in turn.
    """
    try:
        scan = pl.scan_ipc(path, glob=False, hive_partitioning=False)
        known, rows_in_file = _known_and_height(scan, columns)
    except _READ_ERRORS as error:
        with path.open("rb") as file:
            yield from read_arrow_stream(iter(lambda: file.read(_CHUNK_BYTES), b""), columns)
        raise SourceBreak(f"is not readable Arrow: {_first_line(error)}") from error
    yield from _scanned(scan, known, rows_in_file)


def _known_and_height(scan: pl.LazyFrame, columns: frozenset[str]) -> tuple[list[str], int]:
    known = [name for name in scan.collect_schema() if name in columns]
    return known, int(scan.select(pl.len()).collect().item())


def _scanned(
    scan: pl.LazyFrame,
    known: list[str],
    rows_in_file: int,
    group_heights: Callable[[], list[int]] = list,
) -> Iterator[Numbered]:
    if not known:
        for number in range(1, rows_in_file + 1):
            yield number, {}
        return
    scan = scan.select(known)
    done_rows = 0
    frames = iter(scan.collect_batches(chunk_size=_SLICE_ROWS, lazy=True))
    while True:
        try:
            frame = next(frames, None)
        except _READ_ERRORS as error:
            cause = error
            break
        if frame is None:
            if done_rows == rows_in_file:
                return
            raise SourceBreak(
                f"holds {done_rows:,} rows, its header says {rows_in_file:,}", done_rows + 1
            )
        yield from _numbered(frame, done_rows)
        done_rows += frame.height
    # The engine reads ahead, so its error may come before readable rows: fetch them in order.
    group_start = 0
    for height in group_heights():
        group_end = group_start + height
        if group_end > done_rows:
            try:
                frame = scan.slice(done_rows, group_end - done_rows).collect()
            except _READ_ERRORS:
                break
            yield from _numbered(frame, done_rows)
            done_rows = group_end
        group_start = group_end
    raise SourceBreak(f"is corrupt: {_first_line(cause)}", done_rows + 1) from cause


def _numbered(frame: pl.DataFrame, done_rows: int) -> Iterator[Numbered]:
    for start in range(0, frame.height, _SLICE_ROWS):
        part = frame.slice(start, _SLICE_ROWS)
        yield from enumerate(part.iter_rows(named=True), done_rows + start + 1)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]


def read_arrow_stream(chunks: Iterator[bytes], columns: frozenset[str]) -> Iterator[Numbered]:
    """Numbered rows (1-based) of an Arrow IPC stream, with the known ``columns``.

    Raises ``SourceBreak`` where it breaks off or is corrupt, after every row before that.
    """
    queue = _ByteQueue(chunks)
    done_rows = 0
    try:
        if queue.starts_with(ARROW_FILE_MAGIC):
            queue.take(8)  # a file is a stream between this magic and a directory
        schema = b""
        dictionaries: dict[int, list[bytes]] = {}
        while (message := _next_message(queue)) is not None:
            kind, metadata, raw = message
            if kind == _SCHEMA:
                schema = raw
            elif kind == _DICTIONARY_BATCH:
                dictionary_id, is_delta = _dictionary(metadata)
                kept = dictionaries.setdefault(dictionary_id, [])
                if not is_delta:
                    kept.clear()
                kept.append(raw)
            elif kind == _RECORD_BATCH:
                parts = [schema, *(m for kept in dictionaries.values() for m in kept), raw]
                frame = pl.read_ipc_stream(io.BytesIO(b"".join([*parts, _END_OF_STREAM])))
                known = frame.select([name for name in frame.columns if name in columns])
                if known.width:
                    yield from _numbered(known, done_rows)
                else:
                    for number in range(done_rows + 1, done_rows + frame.height + 1):
                        yield number, {}
                done_rows += frame.height
        if not schema:
            raise SourceBreak("is not readable Arrow: it has no schema")
    except SourceBreak as error:
        raise SourceBreak(error.message, done_rows + 1) from error
    except (struct.error, IndexError) as error:
        raise SourceBreak(
            "is corrupt Arrow: a message header makes no sense", done_rows + 1
        ) from error
    except _READ_ERRORS as error:
        raise SourceBreak(f"is corrupt Arrow: {_first_line(error)}", done_rows + 1) from error


# Kinds of message (``MessageHeader`` of the format's Message.fbs).
_SCHEMA = 1
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3
# Arrow's own limit is 2 GiB of metadata; real headers are kilobytes.
_MAX_METADATA_BYTES = 64 << 20


def _next_message(queue: _ByteQueue) -> tuple[int, bytes, bytes] | None:
    """Kind, flatbuffer metadata and whole bytes of the next encapsulated message."""
    prefix = queue.take_up_to(4)
    if not prefix:
        return None  # a stream may end without its marker
    if prefix == ARROW_STREAM_MAGIC:
        prefix += queue.take(4)
    (metadata_bytes,) = struct.unpack("<i", prefix[-4:])
    if metadata_bytes == 0:
        return None
    if not 0 < metadata_bytes <= _MAX_METADATA_BYTES:
        raise SourceBreak("is corrupt Arrow: a message header has an impossible length")
    metadata = queue.take(metadata_bytes)
    message = _root_table(metadata)
    kind_at = _field(metadata, message, 1)
    body_at = _field(metadata, message, 3)
    kind = metadata[kind_at] if kind_at else 0
    body_bytes = struct.unpack_from("<q", metadata, body_at)[0] if body_at else 0
    if body_bytes < 0:
        raise SourceBreak("is corrupt Arrow: a message body has an impossible length")
    return kind, metadata, prefix + metadata + queue.take(body_bytes)


def _dictionary(metadata: bytes) -> tuple[int, bool]:
    """Identity of a dictionary message, and whether it adds to the one before."""
    header_at = _field(metadata, _root_table(metadata), 2)
    table = header_at + struct.unpack_from("<I", metadata, header_at)[0]
    id_at = _field(metadata, table, 0)
    delta_at = _field(metadata, table, 2)
    identity = struct.unpack_from("<q", metadata, id_at)[0] if id_at else 0
    return identity, bool(delta_at and metadata[delta_at])


def _root_table(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 0)[0])


def _field(data: bytes, table: int, index: int) -> int:
    """Position of field ``index`` of a flatbuffer table, or 0 where it has its default."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise IndexError("a flatbuffer table lies outside its message")
    (vtable_bytes,) = struct.unpack_from("<H", data, vtable)
    slot = 4 + 2 * index
    if slot + 2 > vtable_bytes:
        return 0
    offset = struct.unpack_from("<H", data, vtable + slot)[0]
    return table + offset if offset else 0


class _ByteQueue:
    """Exact numbers of bytes from chunks of any size, never allocating before they are there."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._position = 0

    def starts_with(self, magic: bytes) -> bool:
        start = self.take_up_to(len(magic))
        self._position -= len(start)
        return start == magic

    def take(self, size: int) -> bytes:
        data = self.take_up_to(size)
        if len(data) < size:
            raise SourceBreak("breaks off inside an Arrow message")
        return data

    def take_up_to(self, size: int) -> bytes:
        if len(self._held) - self._position < size:
            parts = [self._held[self._position :]]
            held_bytes = len(parts[0])
            while held_bytes < size and (chunk := next(self._chunks, b"")):
                parts.append(chunk)
                held_bytes += len(chunk)
            self._held = b"".join(parts)
            self._position = 0
        data = self._held[self._position : self._position + size]
        self._position += len(data)
        return data
