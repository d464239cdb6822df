"""Which format a source has, and its rows in it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from audit.dataset.arrow_rows import ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC, read_arrow
from audit.dataset.csv_rows import read_csv
from audit.dataset.faults import SourceBreak
from audit.dataset.json_rows import read_json_values, values_of_lines
from audit.dataset.limits import Limits
from audit.dataset.lines import LineBlock, line_blocks, split_lines
from audit.dataset.parquet_rows import PARQUET_MAGIC, read_parquet
from audit.dataset.schema import KNOWN_COLUMNS
from audit.dataset.sources import Source, format_by_name
from audit.dataset.stored import StoredBytes, unpack

UNKNOWN = "unknown"
UTF8_BOM = b"\xef\xbb\xbf"

_SNIFFED_BYTES = 1 << 16
_json_decoder = json.JSONDecoder()
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_PACKINGS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "LZ4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}

Numbered = Iterator[tuple[int, object]]


class Format:
    """Finds out how one source is stored.

    ``kind`` (``jsonl``, ...; None: unknown), ``compression`` (``""``, ``gz`` or ``zst``), ``name``
    (of both) and ``has_bom`` are known once reading has begun.
    """

    def __init__(self, source: Source, stored: StoredBytes, limits: Limits) -> None:
        """``stored`` are the bytes of ``source``, from the beginning."""
        self._source = source
        self._stored = stored
        self._limits = limits
        self.name = UNKNOWN
        self.kind: str | None = None
        self.compression = ""
        self.has_bom = False

    @property
    def delimiter(self) -> str:
        """What parts the cells of a table in text."""
        return "\t" if self.kind == "tsv" else ","

    def rows(self, columns: frozenset[str] | None) -> Numbered:
        """1-based line or record number, and a row or the ``RowFault`` in its place.

        Of columnar files, rows have the known ``columns`` only, or all. Raises ``SourceBreak``.
        """
        yield from self._rows(self.chunks(), columns)

    def blocks(self) -> Iterator[LineBlock | tuple[int, object]]:
        """What ``rows`` gives of the known columns, but JSON Lines in blocks, not yet decoded."""
        chunks = self.chunks()
        if self.kind == "jsonl":
            yield from line_blocks(chunks, self._limits.max_line_bytes)
        else:
            yield from self._rows(chunks, KNOWN_COLUMNS)

    def _rows(self, chunks: Iterator[bytes], columns: frozenset[str] | None) -> Numbered:
        if self.kind == "parquet":
            with self.parquet_file(chunks) as path:
                yield from read_parquet(path, self._limits, columns)
        elif self.kind == "arrow":
            yield from read_arrow(chunks, self._limits, columns)
        elif self.kind == "jsonl":
            lines = split_lines(chunks, self._limits.max_line_bytes)
            yield from values_of_lines(lines, self._limits)
        elif self.kind == "json":
            yield from read_json_values(chunks, self._limits, KNOWN_COLUMNS)
        elif self.kind is not None:
            yield from read_csv(chunks, self._limits, self.delimiter)

    def chunks(self) -> Iterator[bytes]:
        """The plain bytes, without byte order mark; none where ``kind`` is None.

        Raises ``SourceBreak``, at once for text that is in no known format.
        """
        self.compression, chunks = unpack(self._stored, self._limits)
        head, broken = _head(chunks)
        self.kind = _sniff(head, format_by_name(self._source.name))
        if self.kind is not None:
            self.name = f"{self.kind}.{self.compression}" if self.compression else self.kind
        if broken is None:
            chunks = chain([head] if head else [], chunks)
        else:
            chunks = _then_break(head, broken)
        if self.kind in ("parquet", "arrow"):
            return chunks
        if head.startswith(_UTF16_BOMS):
            raise SourceBreak("is UTF-16 text: save it as UTF-8", 1)
        for magic, packing in _PACKINGS.items():
            if head.startswith(magic):
                raise SourceBreak(f"is packed as {packing}: unpack it, or use gzip or Zstandard", 1)
        if self.kind is None and (head or broken is not None):
            raise SourceBreak("is of no known format: give it an ending such as .jsonl", 1)
        self.has_bom = head.startswith(UTF8_BOM)
        return _without_bom(chunks)

    @contextmanager
    def parquet_file(self, chunks: Iterator[bytes]) -> Iterator[Path]:
        """A path of the Parquet file in ``chunks``, whose directory stands at its end.

        Raises ``SourceBreak`` where ``chunks`` break off, after what could be read of the rest.
        """
        if not self.compression and self._source.path is not None:
            self._stored.drain()
            yield self._source.path
            return
        try:
            folder = Path(tempfile.mkdtemp(prefix="subliminal-audit-"))
        except OSError as error:
            raise SourceBreak(f"cannot be copied to a temporary file: {error}") from error
        try:
            copy = folder / "copy.parquet"
            broken: SourceBreak | None = None
            try:
                with copy.open("wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
            except SourceBreak as error:
                broken = error
            except OSError as error:
                broken = SourceBreak(f"cannot be copied to a temporary file: {error}")
            try:
                yield copy
            except SourceBreak as error:
                raise SourceBreak((broken or error).message, error.line) from error
            if broken is not None:
                raise broken
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _head(chunks: Iterator[bytes]) -> tuple[bytes, SourceBreak | None]:
    head = b""
    try:
        while len(head) < _SNIFFED_BYTES and (chunk := next(chunks, b"")):
            head += chunk
    except SourceBreak as error:
        return head, error
    return head, None


def _then_break(head: bytes, broken: SourceBreak) -> Iterator[bytes]:
    if head:
        yield head
    raise broken


def _without_bom(chunks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(chunks, b"")
    if rest := first.removeprefix(UTF8_BOM):
        yield rest
    yield from chunks


def _sniff(head: bytes, by_name: str | None) -> str | None:
    """The format: by its magic, else by its ending, else by its first characters."""
    if head.startswith(PARQUET_MAGIC) or (by_name == "parquet" and head):
        return "parquet"
    if head.startswith((ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC)) or (by_name == "arrow" and head):
        return "arrow"
    if by_name in ("csv", "tsv") or not head:
        return by_name
    text = head.removeprefix(UTF8_BOM).lstrip()
    if by_name is None and not text.startswith((b"{", b"[")):
        return _sniff_table(text)
    # The endings .json and .jsonl are mixed up in the wild, so the content decides.
    if _is_multiline_json(text.decode(errors="replace")):
        return "json"
    if by_name == "jsonl":
        return "jsonl"
    lines = [line for line in text.split(b"\n", 3)[:2] if line.strip()]
    return "jsonl" if len(lines) == 2 and any(_is_json_object(line) for line in lines) else "json"


def _is_multiline_json(text: str) -> bool:
    """Whether ``text`` begins with a list of objects, or with an object of several lines."""
    start = re.match(r"\[\s*(?=\{)", text)
    try:
        _, end = _json_decoder.raw_decode(text, start.end() if start else 0)
    except (ValueError, RecursionError):
        return False
    if start:
        return text[end:].lstrip()[:1] in (",", "]")
    return text.startswith("{") and "\n" in text[:end]


def _is_json_object(line: bytes) -> bool:
    try:
        return isinstance(_json_decoder.decode(line.decode(errors="replace")), dict)
    except (ValueError, RecursionError):
        return False


def _sniff_table(text: bytes) -> str | None:
    header = re.split(rb"[\r\n]", text, maxsplit=1)[0].decode(errors="replace")
    for kind, delimiter in (("tsv", "\t"), ("csv", ",")):
        names = {cell.strip().strip('"') for cell in header.split(delimiter)}
        if names & KNOWN_COLUMNS:
            return kind
    return None
