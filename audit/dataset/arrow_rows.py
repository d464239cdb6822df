"""Arrow IPC files and streams to rows. Memory is bounded by one record batch.

Polars reads a stream only as a whole and a file only with its end, and aborts the process where
a corrupt header makes it allocate. So messages are split off here, checked, and given to it one
at a time. See "Encapsulated message format" of the Arrow columnar format, and its Message.fbs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import polars as pl

from audit.dataset.columnar import READ_ERRORS, Numbered, first_line, numbered, readable_columns
from audit.dataset.faults import SourceBreak
from audit.dataset.limits import Limits

ARROW_FILE_MAGIC = b"ARROW1"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
# Kinds of message.
_SCHEMA = 1
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3
_MIN_METADATA_BYTES = 20
_MAX_METADATA_BYTES = 64 << 20
# A column of nulls has no buffers, so that a batch may have rows and no bytes.
_FREE_ROWS = 1 << 20
_FREE_BYTES = 64 << 20


def read_arrow(
    chunks: Iterator[bytes], limits: Limits, columns: frozenset[str]
) -> Iterator[Numbered]:
    """Numbered rows (1-based) of an Arrow IPC file or stream, with the known ``columns``.

    Raises ``SourceBreak`` where it breaks off or is corrupt, after every batch before that.
    """
    queue = _ByteQueue(chunks)
    done_rows = 0
    schema = b""
    dictionaries: dict[int, list[bytes]] = {}
    try:
        if queue.peek(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
            queue.take(8)  # a file is a stream between this magic and a directory
            schema = _bare_schema(queue)
        while (message := _next_message(queue)) is not None:
            kind, metadata, body_bytes, raw = message
            if kind == _SCHEMA:
                schema = raw
            elif kind == _DICTIONARY_BATCH:
                header = _Table.root(metadata).table(2)
                _check_batch(header.table(1), raw, body_bytes, limits)
                kept = dictionaries.setdefault(header.integer(0, "<q"), [])
                if not header.integer(2, "<?"):  # not a delta: it replaces
                    kept.clear()
                kept.append(raw)
            elif kind == _RECORD_BATCH:
                _check_batch(_Table.root(metadata).table(2), raw, body_bytes, limits)
                parts = [schema, *(m for kept in dictionaries.values() for m in kept), raw]
                frame = pl.read_ipc_stream(io.BytesIO(b"".join([*parts, _END_OF_STREAM])))
                names = readable_columns(frame.columns, columns)
                yield from numbered(frame.select(names), done_rows)
                done_rows += frame.height
        if not schema:
            raise SourceBreak("is not readable Arrow: it has no schema")
    except SourceBreak as error:
        raise SourceBreak(error.message, done_rows + 1) from error
    except (struct.error, IndexError) as error:
        raise SourceBreak(
            "is corrupt Arrow: a message header makes no sense", done_rows + 1
        ) from error
    except READ_ERRORS as error:
        raise SourceBreak(f"is corrupt Arrow: {first_line(error)}", done_rows + 1) from error


_Message = tuple[int, bytes, int, bytes]
"""Kind, flatbuffer metadata, bytes of the body, and the whole message."""


def _next_message(queue: _ByteQueue) -> _Message | None:
    prefix = queue.take_up_to(4)
    if not prefix:
        return None  # a stream may end without its marker
    if prefix == ARROW_STREAM_MAGIC:  # before Arrow 0.15 there was no such marker
        prefix += queue.take(4)
    (metadata_bytes,) = struct.unpack("<i", prefix[-4:])
    if metadata_bytes == 0:
        return None
    if not _MIN_METADATA_BYTES <= metadata_bytes <= _MAX_METADATA_BYTES:
        raise SourceBreak("is corrupt Arrow: a message header has an impossible length")
    metadata = queue.take(metadata_bytes)
    message = _Table.root(metadata)
    body_bytes = message.integer(3, "<q")
    if body_bytes < 0:
        raise SourceBreak("is corrupt Arrow: a message body has an impossible length")
    raw = prefix + metadata + queue.take(body_bytes)
    return message.integer(1, "<B"), metadata, body_bytes, raw


def _bare_schema(queue: _ByteQueue) -> bytes:
    """The schema message of a file, where Polars wrote it without length; else nothing.

    It then starts with the small offset of a flatbuffer's root, and ends where the marker of
    the next message stands.
    """
    (start,) = struct.unpack("<I", queue.peek(4).ljust(4, b"\0"))
    if not 0 < start < _MIN_METADATA_BYTES:
        return b""
    metadata = bytearray()
    while queue.peek(4) != ARROW_STREAM_MAGIC:
        metadata += queue.take(8)
        if len(metadata) > _MAX_METADATA_BYTES:
            raise SourceBreak("is corrupt Arrow: its schema has no end")
    return ARROW_STREAM_MAGIC + struct.pack("<i", len(metadata)) + bytes(metadata)


def _check_batch(batch: _Table, raw: bytes, body_bytes: int, limits: Limits) -> None:
    """Raise ``SourceBreak`` unless the lengths that a record batch announces can be true.

    Columns (16 bytes each: length, nulls) and buffers (16 bytes each: offset, length) are
    checked against the body; what compressed buffers unpack to, against ``limits``.
    """
    unpacked_limit = max(_FREE_BYTES, limits.max_ratio * body_bytes)
    most_rows = max(_FREE_ROWS, 8 * unpacked_limit)
    rows = [batch.integer(0, "<q"), *(length for length, _ in batch.pairs(1))]
    if not all(0 <= length <= most_rows for length in rows):
        raise SourceBreak("is corrupt Arrow: a batch has an impossible number of rows")
    is_compressed = bool(batch.position(3))
    body_start = len(raw) - body_bytes
    unpacked = 0
    for offset, length in batch.pairs(2):
        if offset < 0 or length < 0 or offset + length > body_bytes:
            raise SourceBreak("is corrupt Arrow: a buffer lies outside its message")
        if is_compressed and length >= 8:
            (size,) = struct.unpack_from("<q", raw, body_start + offset)
            unpacked += max(size, 0)  # -1: stored as it is
    if unpacked > unpacked_limit:
        raise SourceBreak(f"unpacks to more than {limits.max_ratio:g} times its size")


class _Table:
    """A table of a flatbuffer: fields by number. Raises ``struct.error`` or ``IndexError``."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._start = start
        self._vtable = start - struct.unpack_from("<i", data, start)[0]
        if self._vtable < 0:
            raise IndexError("a flatbuffer table lies outside its message")
        (self._vtable_bytes,) = struct.unpack_from("<H", data, self._vtable)

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def position(self, field: int) -> int:
        """Where the field stands, or 0 if it has its default."""
        slot = 4 + 2 * field
        if slot + 2 > self._vtable_bytes:
            return 0
        offset = int(struct.unpack_from("<H", self._data, self._vtable + slot)[0])
        return self._start + offset if offset else 0

    def integer(self, field: int, kind: str) -> int:
        position = self.position(field)
        return int(struct.unpack_from(kind, self._data, position)[0]) if position else 0

    def table(self, field: int) -> _Table:
        return _Table(self._data, self._target(field))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two 64-bit integers."""
        if not self.position(field):
            return
        start = self._target(field)
        (count,) = struct.unpack_from("<I", self._data, start)
        for i in range(count):
            yield struct.unpack_from("<qq", self._data, start + 4 + 16 * i)

    def _target(self, field: int) -> int:
        position = self.position(field)
        if not position:
            raise IndexError("a flatbuffer table lacks a field")
        return position + int(struct.unpack_from("<I", self._data, position)[0])


class _ByteQueue:
    """Exact numbers of bytes from chunks of any size, never allocating before they are there."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._position = 0

    def peek(self, size: int) -> bytes:
        data = self.take_up_to(size)
        self._position -= len(data)
        return data

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
