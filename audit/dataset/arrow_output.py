"""Frames to an Arrow IPC file or stream in the types and with the metadata of its source."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import polars as pl
from polars.io.plugins import register_io_source

from audit.dataset.arrow_rows import (
    ARROW_FILE_MAGIC,
    ARROW_STREAM_MAGIC,
    END_OF_STREAM,
    ArrowBatch,
    ArrowCompression,
    split_messages,
)
from audit.dataset.arrow_types import (
    Block,
    NullsError,
    arrow_fields,
    can_narrow,
    footer,
    has_views,
    narrowed,
)
from audit.dataset.faults import SourceBreak
from audit.dataset.output import Output, as_binary_file

_PREFIX_BYTES = 8


def write_arrow(
    frames: Iterator[pl.DataFrame], output: Output, like: ArrowBatch, *, is_file: bool
) -> None:
    """Write ``frames`` under the schema message of ``like``.

    Where a type is one that Polars cannot give back (dictionaries, maps, decimals, times), the
    types are those of Polars, and the schema's metadata are lost. Raises ``SourceBreak`` for what
    the schema cannot hold.
    """
    schema_metadata = like.schema_message[_PREFIX_BYTES:]
    wanted = arrow_fields(schema_metadata)
    level = pl.CompatLevel.newest() if has_views(wanted) else pl.CompatLevel.oldest()
    _, wide, _, own_schema = _encoded(like.frame.clear(), level)[0]
    if not can_narrow(wanted, arrow_fields(wide)):
        if is_file:
            _sink(frames, output, like, level)
        else:
            output.write(own_schema)
            for frame in frames:
                for _, _, _, raw in _encoded(frame, level, like.compression)[1:]:
                    output.write(raw)
            output.write(END_OF_STREAM)
        return
    position = 0
    blocks: list[Block] = []
    for part in (ARROW_FILE_MAGIC + b"\0\0" if is_file else b"", _message(schema_metadata)):
        position += output.write(part)
    for frame in frames:
        if not frame.height:
            continue
        _, metadata, body, _ = _encoded(frame, level)[1]
        try:
            metadata, body = narrowed(
                wanted, metadata, body, compress=like.compression != "uncompressed"
            )
        except NullsError:
            raise SourceBreak("has a column that may not be null, and would be") from None
        except OverflowError as error:
            raise SourceBreak(f"cannot be written: {error}") from None
        blocks.append((position, _PREFIX_BYTES + len(metadata), len(body)))
        position += output.write(_message(metadata) + body)
    output.write(END_OF_STREAM)
    if is_file:
        ending = footer(schema_metadata, blocks)
        output.write(ending + struct.pack("<i", len(ending)) + ARROW_FILE_MAGIC)


def _encoded(
    frame: pl.DataFrame, level: pl.CompatLevel, compression: ArrowCompression = "uncompressed"
) -> list[tuple[int, bytes, bytes, bytes]]:
    buffer = io.BytesIO()
    frame.rechunk().write_ipc_stream(buffer, compression=compression, compat_level=level)
    return list(split_messages(buffer.getvalue()))


def _message(metadata: bytes) -> bytes:
    padded = metadata + bytes(-len(metadata) % 8)
    return ARROW_STREAM_MAGIC + struct.pack("<i", len(padded)) + padded


def _sink(
    frames: Iterator[pl.DataFrame], output: Output, like: ArrowBatch, level: pl.CompatLevel
) -> None:
    scan = register_io_source(lambda *_: frames, schema=like.frame.schema)
    scan.sink_ipc(
        as_binary_file(output), compression=like.compression, compat_level=level, engine="streaming"
    )
