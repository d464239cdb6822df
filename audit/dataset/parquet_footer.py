"""What the footer of a Parquet file says that Polars does not tell.

The rows of each row group are needed for damaged files too. Pages need not have checksums, so that
part of a damaged page may decode to rubbish; only a row group that decodes as a whole can be
trusted.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

_TAIL_BYTES = 8
_ROW_GROUPS = 4  # field of FileMetaData in the format's parquet.thrift
_NUM_ROWS = 3  # fields of RowGroup
_COLUMNS = 1
_META_DATA = 3  # field of ColumnChunk
_CODEC = 4  # field of ColumnMetaData

Compression = Literal["uncompressed", "snappy", "gzip", "brotli", "lz4", "zstd"]

# CompressionCodec; Polars writes LZ4_RAW where it says lz4, and never LZO.
_CODECS: dict[int, Compression] = {
    0: "uncompressed",
    1: "snappy",
    2: "gzip",
    4: "brotli",
    5: "lz4",
    6: "zstd",
    7: "lz4",
}


def row_group_heights(path: Path) -> list[int]:
    """Rows of each row group in order; empty where the footer cannot be read."""
    try:
        return [int(group[_NUM_ROWS]) for group in _row_groups(path)]
    except _UNREADABLE:
        return []


def compression_of(path: Path) -> Compression:
    """How the first column is compressed; ``zstd`` where the footer does not tell."""
    try:
        return _CODECS[_row_groups(path)[0][_COLUMNS][0][_META_DATA][_CODEC]]
    except _UNREADABLE:
        return "zstd"


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, struct.error, RecursionError)


def _row_groups(path: Path) -> Any:
    with path.open("rb") as file:
        file.seek(-_TAIL_BYTES, 2)
        (footer_bytes,) = struct.unpack("<I", file.read(4))
        file.seek(-_TAIL_BYTES - footer_bytes, 2)
        return _CompactThrift(file.read(footer_bytes)).struct()[_ROW_GROUPS]


class _CompactThrift:
    """Structs of Thrift's compact protocol as dictionaries by field number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def struct(self) -> dict[int, object]:
        fields: dict[int, object] = {}
        number = 0
        while (header := self._byte()) != 0:
            step = header >> 4
            number = number + step if step else self._zigzag()
            kind = header & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> object:
        if kind in (1, 2, 3):  # booleans in lists, and bytes
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind in (7, 8):  # doubles and texts: not needed
            size = 8 if kind == 7 else self._varint()
            self._position += size
            return None
        if kind in (9, 10):
            header = self._byte()
            size = header >> 4
            size = self._varint() if size == 15 else size
            return [self._value(header & 0x0F) for _ in range(size)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"Thrift type {kind} has no place in a Parquet footer")

    def _byte(self) -> int:
        value = self._data[self._position]
        self._position += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
