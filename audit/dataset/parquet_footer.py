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
_SCHEMA = 2  # fields of FileMetaData in the format's parquet.thrift
_ROWS_IN_FILE = 3
_ROW_GROUPS = 4
_REPETITION = 3  # fields of SchemaElement
_NAME = 4
_REPEATED = 2
_NUM_ROWS = 3  # fields of RowGroup
_COLUMNS = 1
_OTHER_FILE = 1  # fields of ColumnChunk
_META_DATA = 3
_PATH = 3  # fields of ColumnMetaData
_CODEC = 4
_NUM_VALUES = 5

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


def contradiction(path: Path) -> str | None:
    """What in the footer contradicts itself, so that readers which go by other fields of it would
    read other rows; goes on from the name of the file."""
    try:
        footer = _footer(path)
        groups = footer[_ROW_GROUPS]
        repeated = {e[_NAME] for e in footer[_SCHEMA] if e.get(_REPETITION) == _REPEATED}
        rows = sum(int(group[_NUM_ROWS]) for group in groups)
        if rows != footer[_ROWS_IN_FILE]:
            return f"announces {footer[_ROWS_IN_FILE]:,} rows and holds {rows:,}"
        for group in groups:
            for column in group[_COLUMNS]:
                if _OTHER_FILE in column:
                    return "has columns in another file"
                facts = column[_META_DATA]
                if len(facts[_PATH]) > 1 or facts[_PATH][0] in repeated:
                    continue  # lists have more values than rows
                if facts[_NUM_VALUES] != group[_NUM_ROWS]:
                    return (
                        f"has a column of {facts[_NUM_VALUES]:,} values in a row group of "
                        f"{group[_NUM_ROWS]:,} rows"
                    )
    except _UNREADABLE:
        return "has a footer that makes no sense"
    return None


def compression_of(path: Path) -> Compression:
    """How the first column is compressed; ``zstd`` where the footer does not tell."""
    try:
        return _CODECS[_row_groups(path)[0][_COLUMNS][0][_META_DATA][_CODEC]]
    except _UNREADABLE:
        return "zstd"


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, IndexError, struct.error, RecursionError)


def _row_groups(path: Path) -> Any:
    return _footer(path)[_ROW_GROUPS]


def _footer(path: Path) -> Any:
    with path.open("rb") as file:
        file.seek(-_TAIL_BYTES, 2)
        (footer_bytes,) = struct.unpack("<I", file.read(4))
        file.seek(-_TAIL_BYTES - footer_bytes, 2)
        return _CompactThrift(file.read(footer_bytes)).struct()


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
        if kind in (7, 8):  # doubles, which are not needed, and texts
            size = 8 if kind == 7 else self._varint()
            start = self._position
            self._position += size
            return self._data[start : self._position]
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
