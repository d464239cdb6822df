"""CSV and TSV to rows, one at a time, with the line on which each begins."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from audit.dataset.faults import RejectCode, RowFault, SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.lines import Line, split_lines
from audit.dataset.repeated_keys import repeated_key
from audit.dataset.schema import KNOWN_COLUMNS

CsvRow = dict[str, str | None]

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_UP_TO_CR = re.compile("[^\r]*\r|[^\r]+")


def read_csv(
    chunks: Iterator[bytes], limits: Limits, delimiter: str
) -> Iterator[tuple[int, CsvRow | RowFault]]:
    """Rows under the names of the header line; an empty cell is ``None``.

    A row with fewer cells than the header has ``None`` for the rest, as pandas reads it; one
    with more is a ``RowFault``, as is one whose columns of one known name differ. Lines end at LF
    or CR, as in every CSV parser. Raises ``SourceBreak``, also for a quote that is never closed and
    for a record that is longer than a line may be: where the next one begins cannot be told then.
    """
    return CsvTable(split_lines(chunks, limits.max_line_bytes), limits, delimiter).rows()


class CsvTable:
    """A table that is read line by line, a line being taken only when its record is asked for.

    ``columns`` tells the cell of each name of the header and ``width`` how many cells it has,
    once a row was read; ``record_line`` is where the last record begins, and ``shares_line``
    whether others are on its line, parted by CR alone.
    """

    def __init__(self, lines: Iterator[Line], limits: Limits, delimiter: str) -> None:
        """``lines`` are not longer than ``limits`` allow."""
        # The csv module has only this process-wide bound, far below the length of real rows.
        csv.field_size_limit(max(csv.field_size_limit(), limits.max_line_bytes))
        self._feed = _Feed(lines, limits.max_line_bytes)
        self._records = csv.reader(self._feed, delimiter=delimiter)
        self.columns: dict[str, int] = {}
        self.width = 0
        self._twins: list[tuple[str, int, int]] = []

    @property
    def record_line(self) -> int:
        """1-based line."""
        return self._feed.record_line

    @property
    def shares_line(self) -> bool:
        """Of the last record."""
        return self._feed.shares_line

    def rows(self) -> Iterator[tuple[int, CsvRow | RowFault]]:
        """What ``read_csv`` gives."""
        feed = self._feed
        while True:
            feed.start_record()
            try:
                cells = next(self._records)
            except StopIteration:
                return
            except csv.Error as error:
                raise SourceBreak(f"not CSV: {error}", feed.record_line) from error
            if feed.ended:
                raise SourceBreak(
                    "breaks off: a quote is opened here and never closed", feed.record_line
                )
            if not cells:
                continue
            if not self.width:
                self._name_columns(cells)
                continue
            yield feed.record_line, self._row(cells)

    def _name_columns(self, names: list[str]) -> None:
        self.width = len(names)
        # A name that is written exactly so is what a trainer asks for; else space is no part of it.
        for i, name in enumerate(names):
            if name == name.strip():
                self.columns.setdefault(name, i)
        for i, name in enumerate(names):
            first = self.columns.setdefault(name.strip(), i)
            if first != i and name.strip() in KNOWN_COLUMNS:
                self._twins.append((name.strip(), first, i))

    def _row(self, cells: list[str]) -> CsvRow | RowFault:
        feed = self._feed
        if len(cells) > self.width:
            return RowFault(
                RejectCode.BAD_CSV, f"{len(cells)} cells under a header of {self.width}"
            )
        if len(cells) < self.width:
            if not feed.terminated:
                raise SourceBreak(
                    "breaks off: the last line has too few cells and no end", feed.record_line
                )
            cells += [""] * (self.width - len(cells))
        for name, first, other in self._twins:
            if cells[first] != cells[other]:
                return repeated_key(name)
        row = {name: cells[i] or None for name, i in self.columns.items()}
        if feed.has_escaped_bytes and any(c and _ESCAPED_BYTE.search(c) for c in row.values()):
            return RowFault(RejectCode.INVALID_UTF8, "not UTF-8: save the file as UTF-8")
        return row


class _Feed:
    """The lines that ``csv.reader`` asks for, and how many it took for the current record."""

    def __init__(self, lines: Iterator[Line], max_record_bytes: int) -> None:
        self._lines = lines
        self._max_record_bytes = max_record_bytes
        self._record_bytes = 0
        self._waiting: list[str] = []
        self.line = 0
        self.record_line = 0
        self.terminated = True
        self.has_escaped_bytes = False
        self._began_inside = False
        self.ended = False

    def __iter__(self) -> _Feed:
        return self

    @property
    def shares_line(self) -> bool:
        return self._began_inside or bool(self._waiting)

    def start_record(self) -> None:
        self._began_inside = bool(self._waiting)
        self.record_line = self.line if self._waiting else 0
        self.has_escaped_bytes = self.has_escaped_bytes and bool(self._waiting)
        self._record_bytes = 0

    def __next__(self) -> str:
        if self._waiting:
            return self._waiting.pop()
        entry = next(self._lines, None)
        if entry is None:
            # Asked for more inside a record: csv.reader then gives what it has.
            self.ended = True
            raise StopIteration
        self.line, line, self.terminated = entry
        self.record_line = self.record_line or self.line
        if not self.terminated:
            next(self._lines, None)  # tells if the source broke off, so that the line is cut
        self._record_bytes += self._max_record_bytes + 1 if line is None else len(line)
        if line is None or self._record_bytes > self._max_record_bytes:
            raise SourceBreak(
                f"a record of more than {self._max_record_bytes:,} bytes", self.record_line
            )
        try:
            text = line.decode() + "\n"
        except UnicodeDecodeError:
            self.has_escaped_bytes = True
            text = line.decode(errors="surrogateescape") + "\n"
        if "\r" in text[:-2]:
            self._waiting = _UP_TO_CR.findall(text)
            if self._waiting[-1] == "\n":
                self._waiting[-2:] = [self._waiting[-2] + "\n"]
            self._waiting.reverse()
            return self._waiting.pop()
        return text
