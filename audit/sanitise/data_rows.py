"""The rows of all inputs in order, read as often as a run needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.rewrite import records
from audit.dataset.schema import RowReader, clean_text
from audit.dataset.sources import STDIN_NAME, Source, list_sources
from audit.dataset.tokens import load_decoder
from audit.errors import AuditError, UsageError
from audit.sanitise.strategy import WorkRow

_READ_BYTES = 1 << 20


class DataRows:
    """Files as rows; ``sources`` are in the order in which they are read."""

    def __init__(self, inputs: Sequence[str], schema: str | None, tokenizer: str | None) -> None:
        """Nothing is read yet. Raises ``UsageError`` for inputs that cannot be read twice."""
        self.sources = list_sources(inputs).sources
        if any(source.name == STDIN_NAME for source in self.sources):
            raise UsageError("data are read more than once: they cannot be standard input")
        self.limits = Limits()
        self._reader = RowReader(schema, None if tokenizer is None else load_decoder(tokenizer))
        self._rows: int | None = None  # what the first reading found

    def read(self, value: object, key: int, source: Source, line: int) -> WorkRow:
        """One record as a row.

        Raises ``RowFault``, and ``AuditError`` for a row more than were there before.
        """
        if isinstance(value, RowFault):
            raise value
        found = self._reader.turns(value)
        if self._rows is not None and key >= self._rows:
            raise _changed(source)
        turns = tuple(replace(turn, text=clean_text(turn.text)) for turn in found.turns)
        return WorkRow(key, source.name, line, found.schema, turns)

    @cached_property
    def files(self) -> tuple[StoredFile, ...]:
        """The sources' bytes when they were first asked for."""
        return tuple(map(stored_file, self.sources))

    def check_unchanged(self) -> None:
        """Raise ``AuditError`` for a source that is not what it was: rows may have moved."""
        for source, file in zip(self.sources, self.files, strict=True):
            if stored_file(source) != file:
                raise _changed(source)

    def is_readable(self, value: object) -> bool:
        """Whether a record is a row."""
        try:
            if isinstance(value, RowFault):
                return False
            self._reader.turns(value)
        except RowFault:
            return False
        return True

    def rows(self) -> Iterator[WorkRow]:
        """Every readable row, numbered. Raises ``AuditError`` for a source that breaks off."""
        key = 0
        for source in self.sources:
            try:
                for line, value in records(source, self.limits):
                    try:
                        row = self.read(value, key, source, line)
                    except RowFault:
                        continue
                    key += 1
                    yield row
            except SourceBreak as error:
                raise broken(source, error) from error
        if self._rows is None:
            self._rows = key

    def chunks(self, size_rows: int) -> Iterator[list[WorkRow]]:
        """The rows in lists of ``size_rows``, the last perhaps shorter."""
        chunk: list[WorkRow] = []
        for row in self.rows():
            chunk.append(row)
            if len(chunk) == size_rows:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def random_rank(number: int, seed: int) -> bytes:
    """Orders rows at random by their numbers alone: the lowest ranks are a random sample."""
    key = seed.to_bytes(8, "little", signed=True)
    return hashlib.blake2b(number.to_bytes(8, "little"), key=key, digest_size=8).digest()


def _changed(source: Source) -> AuditError:
    return AuditError(f"{source.name} changed while it was read; nothing was written")


def broken(source: Source, error: SourceBreak, outcome: str = "nothing was written") -> AuditError:
    """What a run says of data that cannot be read to their end: it must not write a part."""
    where = f":{error.line}" if error.line else ""
    return AuditError(f"{source.name}{where}: {error.message}; {outcome}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a source's stored bytes are."""

    size_bytes: int
    sha256: str


def stored_file(source: Source) -> StoredFile:
    """Read the source's bytes once. Raises ``AuditError`` in one line."""
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with source.open() as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
                size_bytes += len(data)
    except Exception as error:  # remote drivers raise types of their own
        raise AuditError(f"{source.name} cannot be read: {error}") from error
    return StoredFile(size_bytes, digest.hexdigest())
