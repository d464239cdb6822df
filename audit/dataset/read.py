"""Inputs to batches of rows: the public entry of the readers."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from audit.dataset.arrow_rows import ARROW_FILE_MAGIC, ARROW_STREAM_MAGIC, read_arrow
from audit.dataset.csv_rows import read_csv
from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.json_rows import read_json_lines, read_json_values
from audit.dataset.limits import Limits
from audit.dataset.parquet_rows import PARQUET_MAGIC, read_parquet
from audit.dataset.record import Batch, BrokenSource, Reject, SourceSummary
from audit.dataset.schema import KNOWN_COLUMNS, RowReader
from audit.dataset.sources import STDIN_NAME, Source, format_by_name, list_sources
from audit.dataset.stored import StoredBytes, unpack
from audit.dataset.tokens import load_decoder
from audit.errors import UsageError
from detectors.rows import ROW_SCHEMA

UNKNOWN = "unknown"

_MAX_REJECT_EXAMPLES = 20
# Rows of a megabyte each must not fill the memory, whatever the number asked for.
_MAX_BATCH_CHARACTERS = 64 << 20
_SNIFFED_BYTES = 1 << 16
_json_decoder = json.JSONDecoder()
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

Numbered = Iterator[tuple[int, object]]


def read_batches(
    inputs: Sequence[str],
    *,
    schema: str | None = None,
    tokenizer: str | None = None,
    needs_answers: bool = True,
    batch_rows: int = 4096,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Iterator[Batch]:
    """Read every row of ``inputs``, in constant memory.

    ``inputs`` are files, folders, globs, URLs, or ``-`` for standard input. ``schema`` names the
    shape of every row; without it each row is read by its own. ``tokenizer`` is the path of a
    ``tokenizer.json`` (or its folder), needed for pre-tokenised rows only. Without
    ``needs_answers``, rows that hold a prompt alone are read, and those that hold none rejected.

    A batch holds rows of one source, and at most ``batch_rows`` rows and rejects together (fewer
    only at the end of a source, or where rows are longer than 16 KiB on average). The last batch
    of each source has ``finished``, and ``broken`` if the source could not be read to its end.

    Raises ``UsageError``, ``MissingExtraError`` or ``AuditError`` before anything is read, for
    inputs that do not exist and options that mean nothing; never for what a file holds.
    """
    if batch_rows < 1:
        raise UsageError(f"a batch needs at least 1 row, not {batch_rows}")
    decode = None if tokenizer is None else load_decoder(tokenizer)
    reader = RowReader(schema, decode, needs_answers=needs_answers)
    sources = list_sources(inputs).sources
    return chain.from_iterable(_read_source(s, reader, batch_rows, limits) for s in sources)


def _read_source(
    source: Source, reader: RowReader, batch_rows: int, limits: Limits
) -> Iterator[Batch]:
    name = _printable(source.name)
    try:
        raw = source.open()
    except Exception as error:  # remote drivers raise types of their own
        yield Batch(
            rows=_Building(name).frame(),
            broken=BrokenSource(name, 0, f"cannot be opened: {error}"),
            finished=SourceSummary(name, UNKNOWN, UNKNOWN, 0, 0, 0, StoredBytes(_Empty()).sha256),
        )
        return
    # Standard input is not ours to close.
    closes = raw.close if source.name != STDIN_NAME else lambda: None
    try:
        yield from _read_opened(source, name, StoredBytes(raw), reader, batch_rows, limits)
    finally:
        closes()


class _Empty:
    def read(self, _size: int, /) -> bytes:
        return b""


def _read_opened(
    source: Source,
    name: str,
    stored: StoredBytes,
    reader: RowReader,
    batch_rows: int,
    limits: Limits,
) -> Iterator[Batch]:
    building = _Building(name)
    schemas: Counter[str] = Counter()
    totals = Counter[str]()
    reported_bytes = 0
    broken: BrokenSource | None = None
    opened = _Format(source, stored, limits)
    rows = opened.rows()
    while True:
        try:
            entry = next(rows, None)
        except SourceBreak as error:
            broken = BrokenSource(name, error.line, error.message)
            break
        if entry is None:
            break
        line, value = entry
        try:
            if isinstance(value, RowFault):
                raise value
            shape, prompt, completion, rejected = reader.read(value)
        except RowFault as fault:
            building.reject(line, fault)
            totals["rejected"] += 1
        else:
            building.add(line, prompt, completion, rejected)
            schemas[shape] += 1
        if building.records >= batch_rows or building.characters >= _MAX_BATCH_CHARACTERS:
            yield building.batch(stored.size_bytes - reported_bytes)
            reported_bytes = stored.size_bytes
            building = _Building(name)
    try:
        stored.drain()
    except SourceBreak as error:
        broken = broken or BrokenSource(name, error.line, error.message)
    summary = SourceSummary(
        source=name,
        format=opened.name,
        schema=", ".join(shape for shape, _ in schemas.most_common()) or UNKNOWN,
        rows=schemas.total(),
        rejected_rows=totals["rejected"],
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
    )
    yield building.batch(stored.size_bytes - reported_bytes, broken, summary)


def _printable(name: str) -> str:
    """A file name as text: bytes of it that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


class _Format:
    """Finds out how one source is stored. ``name`` is known once reading has begun."""

    def __init__(self, source: Source, stored: StoredBytes, limits: Limits) -> None:
        self._source = source
        self._stored = stored
        self._limits = limits
        self.name = UNKNOWN

    def rows(self) -> Numbered:
        """1-based line or record number, and a row or the ``RowFault`` in its place.

        Raises ``SourceBreak``.
        """
        compression, chunks = unpack(self._stored, self._limits)
        head, broken = _head(chunks)
        kind = _sniff(head, format_by_name(self._source.name))
        if kind is not None:
            self.name = f"{kind}.{compression}" if compression else kind
        if broken is None:
            chunks = chain([head] if head else [], chunks)
        else:
            chunks = _then_break(head, broken)
        if kind == "parquet":
            yield from self._parquet(chunks, is_plain=not compression)
            return
        if kind == "arrow":
            yield from read_arrow(chunks, self._limits, KNOWN_COLUMNS)
            return
        if head.startswith(_UTF16_BOMS):
            raise SourceBreak("is UTF-16 text: save it as UTF-8", 1)
        if kind is None and not head and broken is None:
            return
        if kind is None:
            raise SourceBreak("is of no known format: give it an ending such as .jsonl", 1)
        chunks = _without_bom(chunks)
        if kind == "jsonl":
            yield from read_json_lines(chunks, self._limits)
        elif kind == "json":
            yield from read_json_values(chunks, self._limits, KNOWN_COLUMNS)
        else:
            yield from read_csv(chunks, self._limits, "\t" if kind == "tsv" else ",")

    def _parquet(self, chunks: Iterator[bytes], *, is_plain: bool) -> Numbered:
        # Its directory stands at its end, so it has to be a file that can be sought.
        if is_plain and self._source.path is not None:
            self._stored.drain()
            yield from read_parquet(self._source.path, KNOWN_COLUMNS)
            return
        folder = Path(tempfile.mkdtemp(prefix="subliminal-audit-"))
        try:
            copy = folder / "copy.parquet"
            broken: SourceBreak | None = None
            with copy.open("wb") as file:
                try:
                    for chunk in chunks:
                        file.write(chunk)
                except SourceBreak as error:
                    broken = error
            try:
                yield from read_parquet(copy, KNOWN_COLUMNS)
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
    if rest := first.removeprefix(_UTF8_BOM):
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
    text = head.removeprefix(_UTF8_BOM).lstrip()
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
    header = text.partition(b"\n")[0].decode(errors="replace")
    for kind, delimiter in (("tsv", "\t"), ("csv", ",")):
        names = {cell.strip().strip('"') for cell in header.split(delimiter)}
        if names & KNOWN_COLUMNS:
            return kind
    return None


class _Building:
    """The batch being filled: plain lists, made a frame once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines: list[int] = []
        self._prompts: list[str] = []
        self._completions: list[str] = []
        self._rejected: list[str | None] = []
        self._rejects: list[Reject] = []
        self._reject_counts: Counter[str] = Counter()
        self.records = 0
        self.characters = 0

    def add(self, line: int, prompt: str, completion: str, rejected: str | None) -> None:
        self._lines.append(line)
        self._prompts.append(prompt)
        self._completions.append(completion)
        self._rejected.append(rejected)
        self.records += 1
        self.characters += len(prompt) + len(completion) + len(rejected or "")

    def reject(self, line: int, fault: RowFault) -> None:
        if len(self._rejects) < _MAX_REJECT_EXAMPLES:
            message = fault.message.encode("utf-8", "replace").decode()
            self._rejects.append(Reject(self._source, line, str(fault.code), message))
        self._reject_counts[str(fault.code)] += 1
        self.records += 1

    def frame(self) -> pl.DataFrame:
        columns = {
            "source": [self._source] * len(self._lines),
            "line": self._lines,
            "prompt": self._prompts,
            "completion": self._completions,
            "rejected": self._rejected,
        }
        return pl.DataFrame(columns, schema=ROW_SCHEMA)

    def batch(
        self,
        bytes_read: int,
        broken: BrokenSource | None = None,
        finished: SourceSummary | None = None,
    ) -> Batch:
        return Batch(
            rows=self.frame(),
            rejects=tuple(self._rejects),
            reject_counts=self._reject_counts,
            broken=broken,
            finished=finished,
            bytes_read=bytes_read,
        )
