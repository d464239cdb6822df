"""Reads flatbuffers, in which Arrow describes its messages, without their generated code."""

from __future__ import annotations

import struct
from collections.abc import Iterator


class Table:
    """A table of a flatbuffer: fields by number. Raises ``struct.error`` or ``IndexError``."""

    def __init__(self, data: bytes, start: int) -> None:
        """The table at byte ``start`` of ``data``."""
        self._data = data
        self.start = start
        self._vtable = start - struct.unpack_from("<i", data, start)[0]
        if self._vtable < 0:
            raise IndexError("a flatbuffer table lies outside its message")
        (self._vtable_bytes,) = struct.unpack_from("<H", data, self._vtable)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that ``data`` is of."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def position(self, field: int) -> int:
        """Where the field stands, or 0 if it has its default."""
        slot = 4 + 2 * field
        if slot + 2 > self._vtable_bytes:
            return 0
        offset = int(struct.unpack_from("<H", self._data, self._vtable + slot)[0])
        return self.start + offset if offset else 0

    def integer(self, field: int, kind: str) -> int:
        """A number of the ``struct`` format ``kind``; 0 where the field has its default."""
        position = self.position(field)
        return int(struct.unpack_from(kind, self._data, position)[0]) if position else 0

    def table(self, field: int) -> Table:
        """A table in this one, which has to be there."""
        return Table(self._data, self._target(field))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two 64-bit integers."""
        return ((first, second) for first, second in self.structs(field, "<qq"))

    def structs(self, field: int, kind: str) -> Iterator[tuple[int, ...]]:
        """A vector of structs of the ``struct`` format ``kind``."""
        if not self.position(field):
            return
        start = self._target(field)
        (count,) = struct.unpack_from("<I", self._data, start)
        for i in range(count):
            yield struct.unpack_from(kind, self._data, start + 4 + struct.calcsize(kind) * i)

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        if not self.position(field):
            return []
        start = self._target(field)
        (count,) = struct.unpack_from("<I", self._data, start)
        slots = (start + 4 + 4 * i for i in range(count))
        return [Table(self._data, at + struct.unpack_from("<I", self._data, at)[0]) for at in slots]

    def text(self, field: int) -> bytes:
        """A string as its bytes; nothing where there is none."""
        if not self.position(field):
            return b""
        start = self._target(field)
        (size,) = struct.unpack_from("<I", self._data, start)
        return self._data[start + 4 : start + 4 + size]

    def _target(self, field: int) -> int:
        position = self.position(field)
        if not position:
            raise IndexError("a flatbuffer table lacks a field")
        return position + int(struct.unpack_from("<I", self._data, position)[0])
