"""Whether the directory at the end of an Arrow IPC file tells the same as its messages.

Trainers find batches by the directory, and take the names of columns from it; the audit reads the
messages one after another. Where both do not agree, a trainer would read other rows. See "IPC File
Format" of the Arrow columnar format, and its File.fbs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from audit.dataset.faults import SourceBreak
from audit.dataset.flatbuffer import Table

Place = tuple[int, int]
"""The byte of the file at which a message starts, and the bytes of its body."""

_MAGIC = b"ARROW1"
_TAIL_BYTES = len(_MAGIC) + 4
_MOST_PADDING_BYTES = 64
# A field that is its own descendant has no end, and few schemas have a thousand.
_MOST_FIELDS = 100_000


@dataclass(slots=True)
class FoundMessages:
    """Where the batches of a file stand, in order."""

    dictionaries: list[Place] = field(default_factory=list)
    batches: list[Place] = field(default_factory=list)


def check_directory(tail: bytes, schema: bytes, found: FoundMessages) -> None:
    """Raise ``SourceBreak`` unless ``tail``, all after the last message, names what was ``found``.

    ``schema`` is the metadata of the schema message. Raises ``struct.error`` or ``IndexError``
    where ``tail`` makes no sense.
    """
    if len(tail) < _TAIL_BYTES or not tail.endswith(_MAGIC):
        raise SourceBreak("breaks off: the Arrow file has no directory at its end")
    (footer_bytes,) = struct.unpack_from("<i", tail, len(tail) - _TAIL_BYTES)
    start = len(tail) - _TAIL_BYTES - footer_bytes
    if footer_bytes < 0 or not 0 <= start <= _MOST_PADDING_BYTES:
        raise SourceBreak("is corrupt Arrow: it holds bytes that are in no message")
    footer = Table.root(tail[start : start + footer_bytes])
    told = [[(at, body) for at, _, body in footer.structs(i, "<qi4xq")] for i in (2, 3)]
    if told != [found.dictionaries, found.batches]:
        raise SourceBreak("is corrupt Arrow: its directory names other batches than it holds")
    if _columns(footer.table(1)) != _columns(Table.root(schema).table(2)):
        raise SourceBreak("is corrupt Arrow: its directory names other columns than its schema")


def has_dictionaries(schema: bytes) -> bool:
    """Whether any column of a schema message, whose metadata ``schema`` is, has a dictionary."""
    return any(is_dictionary for *_, is_dictionary in _columns(Table.root(schema).table(2)))


def _columns(schema: Table) -> list[tuple[int, bytes, int, bool]]:
    """Depth, name, type and whether it is a dictionary, of every field; parents come first."""
    found = []
    waiting = [(0, column) for column in reversed(schema.tables(1))]
    while waiting:
        depth, column = waiting.pop()
        found.append((depth, column.text(0), column.integer(2, "<B"), column.position(4) != 0))
        if len(found) > _MOST_FIELDS:
            raise SourceBreak(f"is corrupt Arrow: more than {_MOST_FIELDS:,} columns")
        waiting += [(depth + 1, child) for child in reversed(column.tables(5))]
    return found
