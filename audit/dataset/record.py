"""The records that readers give to a scan: batches of rows, rejects and broken sources."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that could not be read. ``code`` is stable; ``message`` says what to do."""

    source: str
    line: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class BrokenSource:
    """A source that could not be read to its end: rows before the break are still scanned."""

    source: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One source once it has been read: sent with the last batch of that source.

    ``size_bytes`` and ``sha256`` are of the stored (possibly compressed) bytes.
    """

    source: str
    format: str
    schema: str
    rows: int
    rejected_rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of the input. ``rows`` follows ``detectors.rows.ROW_SCHEMA`` and may be empty.

    ``reject_counts`` counts every reject of the batch by code; ``rejects`` holds the first
    few of them, so that a file of nothing but bad rows stays in constant memory.
    ``schemas`` counts the rows by the shape that they were read as. ``bytes_read`` is the number
    of stored bytes consumed since the previous batch.
    ``rows_with_unread_text`` have text that training may see in columns that were not read, which
    ``unread_columns`` counts by name.
    """

    rows: pl.DataFrame
    rejects: tuple[Reject, ...] = ()
    reject_counts: Counter[str] = field(default_factory=Counter)
    schemas: Counter[str] = field(default_factory=Counter)
    broken: BrokenSource | None = None
    finished: SourceSummary | None = None
    bytes_read: int = 0
    rows_with_unread_text: int = 0
    unread_columns: Counter[str] = field(default_factory=Counter)
