"""Arrow IPC files and streams to rows. Memory is bounded by one record batch.

Polars reads a stream only as a whole and a file only with its end, and aborts the process where
a corrupt header makes it allocate. So messages are split off here, checked, and given to it one
at a time. See "Encapsulated message format" of the Arrow columnar format, and its Message.fbs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import polars as pl

from audit.dataset.arrow_directory import FoundMessages, check_directory, has_dictionaries
from audit.dataset.arrow_late import LateBatches
from audit.dataset.columnar import READ_ERRORS, Numbered, first_line, numbered, readable_columns
from audit.dataset.faults import SourceBreak
from audit.dataset.flatbuffer import Table
from audit.dataset.limits import Limits

ARROW_FILE_MAGIC = b"ARROW1"
ARROW_STREAM_MAGIC = b"\xff\xff\xff\xff"

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
# Kinds of message.
SCHEMA = 1
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3
_MIN_METADATA_BYTES = 20
_MAX_METADATA_BYTES = 64 << 20
# A column of nulls has no buffers, so that a batch may have rows and no bytes.
_FREE_ROWS = 1 << 20
_FREE_BYTES = 64 << 20


def read_arrow(
    chunks: Iterator[bytes], limits: Limits, columns: frozenset[str] | None
) -> Iterator[Numbered]:
    """Numbered rows (1-based) of an Arrow IPC file or stream, with those ``columns`` or all.

    Raises ``SourceBreak`` where it breaks off or is corrupt, after every batch before that.
    """
    done_rows = 0
    for batch in arrow_batches(chunks, limits):
        frame = batch.frame
        try:
            known = frame.select(readable_columns(frame.columns, columns))
            yield from numbered(known, done_rows, limits)
        except READ_ERRORS as error:
            raise SourceBreak(f"is corrupt Arrow: {first_line(error)}", done_rows + 1) from error
        done_rows += frame.height


ArrowCompression = Literal["uncompressed", "lz4", "zstd"]


@dataclass(frozen=True, slots=True)
class ArrowBatch:
    """One record batch; ``compression`` is that of its buffers, as Polars calls it.

    ``schema_message`` is the encapsulated message with the schema, as stored.
    """

    frame: pl.DataFrame
    compression: ArrowCompression
    schema_message: bytes


def arrow_batches(chunks: Iterator[bytes], limits: Limits) -> Iterator[ArrowBatch]:
    """The record batches of an Arrow IPC file or stream; one without rows if it has none.

    Raises ``SourceBreak``, as ``read_arrow`` does.
    """
    queue = _ByteQueue(chunks)
    done_rows = 0
    broken: Exception | None = None
    try:
        with closing(LateBatches()) as late:
            is_file = queue.peek(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC
            known = _Known(is_file)
            if is_file:
                queue.take(8)  # a file is a stream between this magic and a directory
                known.schema = _bare_schema(queue)
            while True:
                start = queue.position
                try:
                    if (message := _next_message(queue)) is None:
                        break
                    known.add(message, start, limits)
                except (SourceBreak, struct.error, IndexError) as error:
                    broken = error  # told after the batches before it
                    break
                kind, metadata, _, raw = message
                if kind != _RECORD_BATCH:
                    continue
                if known.must_wait:
                    late.add(metadata, raw)
                    continue
                batch = known.batch(metadata, raw)
                yield batch
                done_rows += batch.frame.height
            for metadata, raw in late.take():
                batch = known.batch(metadata, raw)
                yield batch
                done_rows += batch.frame.height
            if broken is not None:
                raise broken
            if not known.schema:
                raise SourceBreak("is not readable Arrow: it has no schema")
            tail = queue.take_up_to(_MAX_METADATA_BYTES)
            if is_file:
                check_directory(tail, _metadata_of(known.schema), known.found)
            elif tail.strip(b"\0"):
                raise SourceBreak("is corrupt Arrow: something follows the end of the stream")
            if not known.found.batches:
                frame = pl.read_ipc_stream(io.BytesIO(known.schema + END_OF_STREAM))
                yield ArrowBatch(frame, "uncompressed", known.schema)
    except SourceBreak as error:
        raise SourceBreak(error.message, done_rows + 1) from error
    except (struct.error, IndexError) as error:
        raise SourceBreak(
            "is corrupt Arrow: a message header makes no sense", done_rows + 1
        ) from error
    except READ_ERRORS as error:
        raise SourceBreak(f"is corrupt Arrow: {first_line(error)}", done_rows + 1) from error


class _Known:
    """What was read of a file or stream, beside its rows: the schema, the dictionaries, places."""

    def __init__(self, is_file: bool) -> None:
        self._is_file = is_file
        self._dictionaries: dict[int, list[bytes]] = {}
        self.schema = b""
        self.found = FoundMessages()

    @cached_property
    def must_wait(self) -> bool:
        """Whether dictionaries may come after the batches; asked once the schema is known."""
        return self._is_file and bool(self.schema) and has_dictionaries(_metadata_of(self.schema))

    def add(self, message: _Message, start: int, limits: Limits) -> None:
        """Check a message, and keep what later ones need of it. Raises ``SourceBreak``."""
        kind, metadata, body_bytes, raw = message
        if kind == SCHEMA:
            if self.schema:
                raise SourceBreak("is corrupt Arrow: it has two schemas")
            self.schema = raw
        elif kind == _DICTIONARY_BATCH:
            self.found.dictionaries.append((start, body_bytes))
            header = Table.root(metadata).table(2)
            _check_batch(header.table(1), raw, body_bytes, limits)
            kept = self._dictionaries.setdefault(header.integer(0, "<q"), [])
            if not header.integer(2, "<?"):  # not a delta: it replaces
                if kept and self._is_file:
                    raise SourceBreak("is corrupt Arrow: a file replaces a dictionary")
                kept.clear()
            kept.append(raw)
        elif kind == _RECORD_BATCH:
            self.found.batches.append((start, body_bytes))
            _check_batch(Table.root(metadata).table(2), raw, body_bytes, limits)

    def batch(self, metadata: bytes, raw: bytes) -> ArrowBatch:
        """A record batch with the dictionaries read so far. Raises one of ``READ_ERRORS``."""
        parts = [self.schema, *(m for kept in self._dictionaries.values() for m in kept), raw]
        frame = pl.read_ipc_stream(io.BytesIO(b"".join([*parts, END_OF_STREAM])))
        return ArrowBatch(frame, _compression(metadata), self.schema)


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
    message = Table.root(metadata)
    body_bytes = message.integer(3, "<q")
    if body_bytes < 0:
        raise SourceBreak("is corrupt Arrow: a message body has an impossible length")
    raw = prefix + metadata + queue.take(body_bytes)
    return message.integer(1, "<B"), metadata, body_bytes, raw


def split_messages(stream: bytes) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    """Kind, metadata, body and the whole of each message of a stream. Raises ``SourceBreak``."""
    queue = _ByteQueue(iter([stream]))
    while (message := _next_message(queue)) is not None:
        kind, metadata, body_bytes, raw = message
        yield kind, metadata, raw[len(raw) - body_bytes :], raw


def _compression(metadata: bytes) -> ArrowCompression:
    batch = Table.root(metadata).table(2)
    if not batch.position(3):
        return "uncompressed"
    return "zstd" if batch.table(3).integer(0, "<b") else "lz4"


def _metadata_of(message: bytes) -> bytes:
    return message[8 if message.startswith(ARROW_STREAM_MAGIC) else 4 :]


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


def _check_batch(batch: Table, raw: bytes, body_bytes: int, limits: Limits) -> None:
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


class _ByteQueue:
    """Exact numbers of bytes from chunks of any size, never allocating before they are there."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._held = b""
        self._position = 0
        self._dropped_bytes = 0

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self._dropped_bytes + self._position

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
            self._dropped_bytes += self._position
            self._held = b"".join(parts)
            self._position = 0
        data = self._held[self._position : self._position + size]
        self._position += len(data)
        return data
