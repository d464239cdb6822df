"""Record batches of Polars in the types of another Arrow schema.

Polars has one type for text where Arrow has three. A file whose types were changed in passing is
no longer read with the descriptions that stand beside it, so batches are brought back to the
schema that was read. See "Serialization and Interprocess Communication" of the Arrow columnar
format, and its Schema.fbs and Message.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from audit.dataset.flatbuffer import Table

# Members of the union Type.
_INT, _FLOAT, _BINARY, _TEXT, _BOOL = 2, 3, 4, 5, 6
_DATE, _TIMESTAMP, _LIST, _STRUCT, _FIXED_LIST = 8, 10, 12, 13, 16
_LARGE_BINARY, _LARGE_TEXT, _LARGE_LIST, _BINARY_VIEW, _TEXT_VIEW = 19, 20, 21, 23, 24

_WIDE = {_BINARY: _LARGE_BINARY, _TEXT: _LARGE_TEXT, _LIST: _LARGE_LIST}
# How many buffers of its own a value of each type has, validity first.
_BUFFERS = {
    **dict.fromkeys((_INT, _FLOAT, _BOOL, _DATE, _TIMESTAMP), 2),
    **dict.fromkeys((_BINARY, _TEXT, _LARGE_BINARY, _LARGE_TEXT), 3),
    **dict.fromkeys((_LIST, _LARGE_LIST), 2),
    **dict.fromkeys((_STRUCT, _FIXED_LIST), 1),
}
_WITH_OFFSETS = frozenset({*_WIDE, *_WIDE.values()})


@dataclass(frozen=True, slots=True)
class ArrowField:
    """The type of a column or of the values in it, and whether it may hold nulls."""

    kind: int
    nullable: bool
    details: tuple[int | bytes, ...]
    is_dictionary: bool
    children: tuple[ArrowField, ...]


def arrow_fields(schema_metadata: bytes) -> tuple[ArrowField, ...]:
    """The columns of a schema message. Raises ``struct.error`` or ``IndexError``."""
    return tuple(map(_field, Table.root(schema_metadata).table(2).tables(1)))


def _field(field: Table) -> ArrowField:
    kind = field.integer(2, "<B")
    details: tuple[int | bytes, ...] = ()
    if field.position(3):
        table = field.table(3)
        if kind == _INT:
            details = (table.integer(0, "<i"), table.integer(1, "<B"))
        elif kind in (_FLOAT, _DATE):
            details = (table.integer(0, "<h"),)
        elif kind == _TIMESTAMP:
            details = (table.integer(0, "<h"), table.text(1))
        elif kind == _FIXED_LIST:
            details = (table.integer(0, "<i"),)
    children = tuple(map(_field, field.tables(5)))
    nullable = bool(field.integer(1, "<B"))
    return ArrowField(kind, nullable, details, bool(field.position(4)), children)


def has_views(fields: tuple[ArrowField, ...]) -> bool:
    """Whether text or bytes anywhere in ``fields`` are of the types that Polars writes itself."""
    return any(f.kind in (_BINARY_VIEW, _TEXT_VIEW) or has_views(f.children) for f in fields)


def can_narrow(fields: tuple[ArrowField, ...], wide: tuple[ArrowField, ...]) -> bool:
    """Whether batches of the types ``wide`` can be brought to the types ``fields``."""
    return len(fields) == len(wide) and all(
        field.kind in _BUFFERS
        and wider.kind == _WIDE.get(field.kind, field.kind)
        and field.details == wider.details
        and not (field.is_dictionary or wider.is_dictionary)
        and can_narrow(field.children, wider.children)
        for field, wider in zip(fields, wide, strict=True)
    )


class NullsError(ValueError):
    """A column that may not hold nulls would have to."""


def narrowed(
    fields: tuple[ArrowField, ...], metadata: bytes, body: bytes, *, compress: bool
) -> tuple[bytes, bytes]:
    """Metadata and body of a record batch of the wide types of ``fields``, brought to ``fields``.

    The buffers of ``body`` are not compressed; ``compress`` compresses them with Zstandard.
    Raises ``NullsError``, and ``OverflowError`` for texts of more than 2 GiB.
    """
    batch = Table.root(metadata).table(2)
    nodes = list(batch.pairs(1))
    buffers = (body[start : start + size] for start, size in batch.pairs(2))
    parts = []
    for field, (_, nulls) in zip(_preorder(fields), nodes, strict=True):
        if nulls and not field.nullable:
            raise NullsError
        own = [next(buffers) for _ in range(_BUFFERS[field.kind])]
        if field.kind in _WIDE:
            own[1] = _narrow_offsets(own[1])
        parts += own
    if compress:
        parts = [_compressed(part) for part in parts]
    places = []
    position = 0
    for part in parts:
        places.append((position, len(part)))
        position += len(part) + -len(part) % 8
    padded = b"".join(part + bytes(-len(part) % 8) for part in parts)
    rows = batch.integer(0, "<q")
    return _batch_metadata(rows, nodes, places, len(padded), compress=compress), padded


def _preorder(fields: tuple[ArrowField, ...]) -> Iterator[ArrowField]:
    for field in fields:
        yield field
        yield from _preorder(field.children)


def _narrow_offsets(wide: bytes) -> bytes:
    offsets = np.frombuffer(wide, dtype="<i8")
    if offsets.size and offsets[-1] > np.iinfo(np.int32).max:
        raise OverflowError("texts of one batch take more than 2 GiB")
    return offsets.astype("<i4").tobytes()


def _compressed(part: bytes) -> bytes:
    import zstandard

    return struct.pack("<q", len(part)) + zstandard.compress(part) if part else b""


def _batch_metadata(
    rows: int,
    nodes: list[tuple[int, int]],
    buffers: list[tuple[int, int]],
    body_bytes: int,
    *,
    compress: bool,
) -> bytes:
    """A flatbuffer ``Message`` of version V5 around a ``RecordBatch``, laid out by hand.

    Its tables have their 8-byte fields at multiples of 8, and vectors their items.
    """
    nodes_at = 84
    buffers_at = nodes_at + 8 + 16 * len(nodes)
    end = buffers_at + 4 + 16 * len(buffers)
    parts = [
        struct.pack("<I 6H", 16, 12, 24, 16, 18, 4, 8),
        struct.pack("<iIqhB5x", 12, 56 - 20, body_bytes, 4, 3),
        struct.pack("<6H4x", 12, 24, 8, 4, 16, 20 if compress else 0),
        struct.pack("<iIqII", 16, nodes_at - 60, rows, buffers_at - 72, end + 8 - 76),
        struct.pack("<4xI", len(nodes)),
        *(struct.pack("<qq", *node) for node in nodes),
        struct.pack("<4xI", len(buffers)),
        *(struct.pack("<qq", *place) for place in buffers),
    ]
    if compress:
        parts.append(struct.pack("<4H ib3x", 8, 8, 4, 0, 8, 1))
    return b"".join(parts)


Block = tuple[int, int, int]
"""Where a message starts in a file, and the bytes of its metadata (prefix included) and body."""


def footer(schema_metadata: bytes, blocks: list[Block]) -> bytes:
    """The ``Footer`` of a file: a copy of its schema message, and where its batches are."""
    schema_at = 48 + 24 * len(blocks)
    schema_table = Table.root(schema_metadata).table(2).start
    return b"".join(
        [
            struct.pack("<I 6H", 16, 12, 20, 16, 4, 12, 8),
            struct.pack("<iIIIh2x", 12, schema_at + schema_table - 20, 44 - 24, 36 - 28, 4),
            struct.pack("<I4xI", 0, len(blocks)),
            *(struct.pack("<qi4xq", *block) for block in blocks),
            schema_metadata + bytes(-len(schema_metadata) % 8),
        ]
    )
