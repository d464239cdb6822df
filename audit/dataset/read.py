"""Inputs to batches of rows: the public entry of the readers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain

import polars as pl

from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.formats import UNKNOWN, Format
from audit.dataset.limits import Limits
from audit.dataset.lines import LineBlock
from audit.dataset.record import Batch, BrokenSource, Reject, SourceSummary
from audit.dataset.schema import RowReader
from audit.dataset.sources import STDIN_NAME, Source, list_sources
from audit.dataset.stored import StoredBytes
from audit.dataset.tokens import load_decoder
from audit.dataset.uniform_rows import Texts, UniformRows, values_of_block
from audit.dataset.unread_text import UnreadText
from audit.errors import UsageError
from detectors.rows import ROW_SCHEMA

_MAX_REJECT_EXAMPLES = 20
# Rows of a megabyte each must not fill the memory, whatever the number asked for.
_MAX_BATCH_CHARACTERS = 16 << 20
_FREE_CHARACTERS = 64 << 20


def read_batches(
    inputs: Sequence[str],
    *,
    schema: str | None = None,
    tokenizer: str | None = None,
    needs_answers: bool = True,
    batch_rows: int = 16384,
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
    decode = None if tokenizer is None else load_decoder(tokenizer)
    reader = RowReader(schema, decode, needs_answers=needs_answers)
    sources = list_sources(inputs).sources[part]
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
    reported_bytes = characters = 0
    broken: BrokenSource | None = None
    opened = Format(source, stored, limits)
    entries = _entries(opened, UniformRows() if reader.detects_answers else None, limits)
    waiting: list[tuple[int, object]] = []
    while True:
        try:
            entry = waiting.pop() if waiting else next(entries, None)
        except SourceBreak as error:
            broken = BrokenSource(name, error.line, error.message)
            break
        if entry is None:
            break
        line, value = entry
        if isinstance(value, Texts):
            fitting, rest = value.split(batch_rows - building.records)
            building.extend(line, fitting)
            schemas[value.schema] += len(fitting)
            if len(rest):
                waiting.append((line + len(fitting), rest))
        else:
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
            yield building.batch(stored.size_bytes - reported_bytes, reader.take_unread())
            reported_bytes = stored.size_bytes
            characters += building.characters
            building = _Building(name)
            if characters > max(_FREE_CHARACTERS, limits.max_ratio * stored.size_bytes):
                # Columns may hold one text for many rows: unpacking is no bound for them.
                broken = BrokenSource(
                    name, line, f"holds more than {limits.max_ratio:g} times its size of text"
                )
                break
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
    unread = reader.take_unread()
    yield building.batch(stored.size_bytes - reported_bytes, unread, broken, summary)


def _entries(
    opened: Format, uniform: UniformRows | None, limits: Limits
) -> Iterator[tuple[int, object]]:
    """Of every row its line, and its value or its ``RowFault``; ``Texts`` for many at once."""
    cut: SourceBreak | None = None
    for entry in opened.blocks():
        if not isinstance(entry, LineBlock):
            yield entry
            continue
        try:
            yield from values_of_block(entry, uniform, limits)
        except SourceBreak as error:  # of the last line; why it has no end may be told next
            cut = error
    if cut is not None:
        raise cut


def _printable(name: str) -> str:
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
        self.records = 0
        self.characters = 0

    def add(self, line: int, prompt: str, completion: str, rejected: str | None) -> None:
        self._lines.append(line)
        self._prompts.append(prompt)
        self._completions.append(completion)
        self._rejected.append(rejected)
        self.records += 1
        self.characters += len(prompt) + len(completion) + len(rejected or "")

    def extend(self, line: int, texts: Texts) -> None:
        """Add rows of consecutive lines, the first of which is ``line``."""
        count = len(texts)
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
        bytes_read: int,
        unread: UnreadText,
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
            rows_with_unread_text=unread.rows,
            unread_columns=unread.columns,
        )
