"""Inputs to batches of rows: the public entry of the readers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

import polars as pl

from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.formats import UNKNOWN, Format
from audit.dataset.limits import Limits
from audit.dataset.lines import LineBlock, line_blocks
from audit.dataset.record import Batch, BrokenSource, Reject, SourceSummary
from audit.dataset.schema import RowReader
from audit.dataset.sources import STDIN_NAME, Source, list_sources
from audit.dataset.stored import StoredBytes
from audit.dataset.tokens import load_decoder
from audit.dataset.uniform_rows import Texts, UniformRows, values_of_block
from audit.dataset.unread_text import UnreadText
from audit.errors import UsageError
from detectors.rows import ROW_SCHEMA

_BATCH_ROWS = 16384
_MAX_REJECT_EXAMPLES = 20
_CHANGED = "changed while it was read"
# Rows of a megabyte each must not fill the memory, whatever the number asked for.
_MAX_BATCH_CHARACTERS = 16 << 20
_FREE_CHARACTERS = 64 << 20


def read_batches(
    inputs: Sequence[str],
    *,
    schema: str | None = None,
    tokenizer: str | None = None,
    needs_answers: bool = True,
    batch_rows: int = _BATCH_ROWS,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    part: slice = slice(None),
) -> Iterator[Batch]:
    """Read every row of ``inputs``, in constant memory.

    ``inputs`` are files, folders, globs, URLs, or ``-`` for standard input. ``schema`` names the
    shape of every row; without it each row is read by its own. ``tokenizer`` is the path of a
    ``tokenizer.json`` (or its folder), needed for pre-tokenised rows only. Without
    ``needs_answers``, rows that hold a prompt alone are read, and those that hold none rejected.
    Of the sources, in their order, ``part`` are read.

    A batch holds rows of one source, and at most ``batch_rows`` rows and rejects together (fewer
    only at the end of a source, or where rows are longer than 16 KiB on average). The last batch
    of each source has ``finished``, and ``broken`` if the source could not be read to its end.

    Raises ``UsageError``, ``MissingExtraError`` or ``AuditError`` before anything is read, for
    inputs that do not exist and options that mean nothing; never for what a file holds.
    """
    if batch_rows < 1:
        raise UsageError(f"a batch needs at least 1 row, not {batch_rows}")
    reader = row_reader(schema, tokenizer, needs_answers=needs_answers)
    sources = list_sources(inputs).sources[part]
    return chain.from_iterable(_read_source(s, reader, batch_rows, limits) for s in sources)


def row_reader(
    schema: str | None, tokenizer: str | None, *, needs_answers: bool = True
) -> RowReader:
    """The reader of rows that `read_batches` has for these options. Raises as it does."""
    decode = None if tokenizer is None else load_decoder(tokenizer)
    return RowReader(schema, decode, needs_answers=needs_answers)


def _read_source(
    source: Source, reader: RowReader, batch_rows: int, limits: Limits
) -> Iterator[Batch]:
    name = printable(source.name)
    before = _standing(source)
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
        for batch in _read_opened(source, name, StoredBytes(raw), reader, batch_rows, limits):
            if batch.finished and not batch.broken and _standing(source) != before:
                batch = replace(batch, broken=BrokenSource(name, 0, _CHANGED))
            yield batch
    finally:
        closes()


def _standing(source: Source) -> tuple[int, int, int] | None:
    """What changes where a local file is written to, cut, removed or replaced. Rows that were not
    there when it was read, or are not any more, must not pass for scanned."""
    if source.path is None:
        return None
    try:
        found = source.path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class LinePiece:
    """Lines of a JSON Lines source, not decoded yet; the source is number ``place`` of all, and
    the piece number ``number`` of the source, both from 0. ``bytes_read`` are stored bytes."""

    place: int
    number: int
    source: str
    blocks: tuple[LineBlock, ...]
    bytes_read: int


@dataclass(frozen=True, slots=True)
class LineSource:
    """A source all of whose pieces were cut. ``broken`` if it was not read to its end; of its rows
    nothing is known here but what they were cut from."""

    place: int
    source: str
    opened: Format
    stored: StoredBytes
    broken: BrokenSource | None


@dataclass(frozen=True, slots=True)
class WholeSource:
    """A source that `read_batches` has to read, in one."""

    place: int


def cut_sources(
    inputs: Sequence[str],
    piece_bytes: int,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Iterator[LinePiece | LineSource | WholeSource]:
    """Cut ``inputs`` into work for several readers, in order: a JSON Lines file gives its pieces of
    about ``piece_bytes``, then itself. Raises as `read_batches`, before the first.
    """
    sources = list_sources(inputs).sources
    return chain.from_iterable(
        _cut(source, place, piece_bytes, limits) for place, source in enumerate(sources)
    )


def _cut(
    source: Source, place: int, piece_bytes: int, limits: Limits
) -> Iterator[LinePiece | LineSource | WholeSource]:
    if source.path is None:  # what is no file may not be there a second time
        yield WholeSource(place)
        return
    before = _standing(source)
    try:
        raw = source.open()
    except OSError:
        yield WholeSource(place)
        return
    with raw:
        stored = StoredBytes(raw)
        opened = Format(source, stored, limits)
        name = printable(source.name)
        broken: BrokenSource | None = None
        try:
            chunks = opened.chunks()
        except SourceBreak:
            chunks = None
        if chunks is None or opened.kind != "jsonl":
            yield WholeSource(place)
            return
        number = held_bytes = read_bytes = 0
        held: list[LineBlock] = []
        try:
            for block in line_blocks(chunks, limits.max_line_bytes):
                held.append(block)
                held_bytes += len(block.data or b"")
                if held_bytes >= piece_bytes:
                    newly_read = stored.size_bytes - read_bytes
                    yield LinePiece(place, number, name, tuple(held), newly_read)
                    number, held_bytes, held = number + 1, 0, []
                    read_bytes += newly_read
            stored.drain()
        except SourceBreak as error:
            broken = BrokenSource(name, error.line, error.message)
            with suppress(SourceBreak):
                stored.drain()
        if held:
            yield LinePiece(place, number, name, tuple(held), stored.size_bytes - read_bytes)
        if broken is None and _standing(source) != before:
            broken = BrokenSource(name, 0, _CHANGED)
        yield LineSource(place, name, opened, stored, broken)


def read_piece(
    piece: LinePiece,
    reader: RowReader,
    *,
    batch_rows: int = _BATCH_ROWS,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Iterator[Batch]:
    """The rows of ``piece``; the last batch is ``broken`` where its last line is cut off."""
    filling = _Filling(piece.source, reader, batch_rows)
    broken: BrokenSource | None = None
    try:
        yield from filling.full_batches(_entries(piece.blocks, reader, limits))
    except SourceBreak as error:
        broken = BrokenSource(piece.source, error.line, error.message)
    yield replace(filling.last_batch(), broken=broken)


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
    filling = _Filling(name, reader, batch_rows)
    broken: BrokenSource | None = None
    opened = Format(source, stored, limits)
    try:
        for batch in filling.full_batches(_entries(opened.blocks(), reader, limits)):
            yield replace(batch, bytes_read=filling.newly_read(stored))
            if filling.characters > max(_FREE_CHARACTERS, limits.max_ratio * stored.size_bytes):
                # Columns may hold one text for many rows: unpacking is no bound for them.
                message = f"holds more than {limits.max_ratio:g} times its size of text"
                broken = BrokenSource(name, filling.line, message)
                break
    except SourceBreak as error:
        broken = BrokenSource(name, error.line, error.message)
    try:
        stored.drain()
    except SourceBreak as error:
        broken = broken or BrokenSource(name, error.line, error.message)
    last = filling.last_batch()
    yield replace(
        last,
        bytes_read=filling.newly_read(stored),
        broken=broken,
        finished=summary_of(name, opened, stored, filling.schemas, filling.rejected_rows),
    )


def summary_of(
    name: str, opened: Format, stored: StoredBytes, schemas: Counter[str], rejected_rows: int
) -> SourceSummary:
    """Of a source that was read to its end; ``schemas`` counts its rows."""
    return SourceSummary(
        source=name,
        format=opened.name,
        schema=", ".join(shape for shape, _ in schemas.most_common()) or UNKNOWN,
        rows=schemas.total(),
        rejected_rows=rejected_rows,
        size_bytes=stored.size_bytes,
        sha256=stored.sha256,
    )


class _Filling:
    """Fills batches with the rows of one source.

    ``schemas``, ``rejected_rows`` and ``characters`` count those of the batches that were given;
    ``line`` is that of the last row.
    """

    def __init__(self, name: str, reader: RowReader, batch_rows: int) -> None:
        self._name = name
        self._reader = reader
        self._batch_rows = batch_rows
        self._building = _Building(name)
        self._reported_bytes = 0
        self.schemas: Counter[str] = Counter()
        self.rejected_rows = self.characters = self.line = 0

    def full_batches(self, entries: Iterator[tuple[int, object]]) -> Iterator[Batch]:
        """All batches but the last. Raises ``SourceBreak`` as ``entries`` do."""
        for line, value in entries:
            self.line = line
            if isinstance(value, Texts):
                yield from self._take(line, value)
            else:
                self._read(line, value)
                if self._is_full():
                    yield self.last_batch()

    def last_batch(self) -> Batch:
        """What was not given yet."""
        done, self._building = self._building, _Building(self._name)
        batch = done.batch(self._reader.take_unread())
        self.characters += done.characters
        self.schemas.update(batch.schemas)
        self.rejected_rows += batch.reject_counts.total()
        return batch

    def newly_read(self, stored: StoredBytes) -> int:
        """Bytes of the source that were read since this was asked last."""
        before, self._reported_bytes = self._reported_bytes, stored.size_bytes
        return self._reported_bytes - before

    def _is_full(self) -> bool:
        building = self._building
        return building.records >= self._batch_rows or building.characters >= _MAX_BATCH_CHARACTERS

    def _take(self, line: int, texts: Texts) -> Iterator[Batch]:
        while len(texts):
            fitting, texts = texts.split(self._batch_rows - self._building.records)
            self._building.extend(line, fitting)
            line += len(fitting)
            self.line = line - 1
            if self._is_full():
                yield self.last_batch()

    def _read(self, line: int, value: object) -> None:
        try:
            if isinstance(value, RowFault):
                raise value
            shape, prompt, completion, rejected = self._reader.read(value)
        except RowFault as fault:
            self._building.reject(line, fault)
        else:
            self._building.add(line, shape, prompt, completion, rejected)


def _entries(
    blocks: Iterable[LineBlock | tuple[int, object]], reader: RowReader, limits: Limits
) -> Iterator[tuple[int, object]]:
    """Of every row its line, and its value or its ``RowFault``; ``Texts`` for many at once."""
    uniform = UniformRows() if reader.detects_answers else None
    cut: SourceBreak | None = None
    for entry in blocks:
        if not isinstance(entry, LineBlock):
            yield entry
            continue
        try:
            yield from values_of_block(entry, uniform, limits)
        except SourceBreak as error:  # of the last line; why it has no end may be told next
            cut = error
    if cut is not None:
        raise cut


def printable(name: str) -> str:
    """A file name as text: bytes of it that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


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
        self._schemas: Counter[str] = Counter()
        self.records = 0
        self.characters = 0

    def add(
        self, line: int, schema: str, prompt: str, completion: str, rejected: str | None
    ) -> None:
        self._schemas[schema] += 1
        self._lines.append(line)
        self._prompts.append(prompt)
        self._completions.append(completion)
        self._rejected.append(rejected)
        self.records += 1
        self.characters += len(prompt) + len(completion) + len(rejected or "")

    def extend(self, line: int, texts: Texts) -> None:
        """Add rows of consecutive lines, the first of which is ``line``."""
        count = len(texts)
        self._schemas[texts.schema] += count
        self._lines.extend(range(line, line + count))
        self._prompts.extend(texts.prompts)
        self._completions.extend(texts.completions)
        self._rejected.extend([None] * count)
        self.records += count
        self.characters += sum(map(len, texts.prompts)) + sum(map(len, texts.completions))

    def reject(self, line: int, fault: RowFault) -> None:
        if len(self._rejects) < _MAX_REJECT_EXAMPLES:
            message = fault.message.encode("utf-8", "replace").decode()
            self._rejects.append(Reject(self._source, line, str(fault.code), message))
        self._reject_counts[str(fault.code)] += 1
        self.records += 1

    def frame(self) -> pl.DataFrame:
        columns = {
            "source": pl.repeat(self._source, len(self._lines), dtype=pl.String, eager=True),
            "line": self._lines,
            "prompt": self._prompts,
            "completion": self._completions,
            "rejected": self._rejected,
        }
        return pl.DataFrame(columns, schema=ROW_SCHEMA)

    def batch(
        self,
        unread: UnreadText,
    ) -> Batch:
        return Batch(
            rows=self.frame(),
            rejects=tuple(self._rejects),
            reject_counts=self._reject_counts,
            schemas=self._schemas,
            rows_with_unread_text=unread.rows,
            unread_columns=unread.columns,
        )
