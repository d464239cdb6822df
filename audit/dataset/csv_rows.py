"""CSV and TSV to rows, one at a time, with the line on which each begins."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from audit.dataset.faults import RejectCode, RowFault, SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.lines import Line, split_lines

CsvRow = dict[str, str | None]

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def read_csv(
    chunks: Iterator[bytes], limits: Limits, delimiter: str
) -> Iterator[tuple[int, CsvRow | RowFault]]:
    """Rows under the names of the header line; an empty cell is ``None``.

    A row with fewer cells than the header has ``None`` for the rest, as pandas reads it; one
    with more is a ``RowFault``. Where the header repeats a name, its first column counts.
    Raises ``SourceBreak``, also for a quote that is never closed.
    """
    return CsvTable(split_lines(chunks, limits.max_line_bytes), limits, delimiter).rows()


class CsvTable:
    """A table that is read line by line, a line being taken only when its record is asked for.

    ``columns`` tells the cell of each name of the header and ``width`` how many cells it has,
    once a row was read; ``record_line`` is where the last record begins.
    """

    def __init__(self, lines: Iterator[Line], limits: Limits, delimiter: str) -> None:
        """``lines`` are not longer than ``limits`` allow."""
        # The csv module has only this process-wide bound, far below the length of real rows.
        csv.field_size_limit(max(csv.field_size_limit(), limits.max_line_bytes))
        self._feed = _Feed(lines)
        self._records = csv.reader(self._feed, delimiter=delimiter)
        self.columns: dict[str, int] = {}
        self.width = 0

    @property
    def record_line(self) -> int:
        """1-based line."""
        return self._feed.record_line

    def rows(self) -> Iterator[tuple[int, CsvRow | RowFault]]:
        """What ``read_csv`` gives."""
        feed = self._feed
        while True:
            feed.start_record()
            try:
                cells = next(self._records)
            except StopIteration:
                return
            except RowFault as fault:
                yield feed.line, fault
                continue
            except csv.Error as error:
                yield feed.record_line, RowFault(RejectCode.BAD_CSV, f"not CSV: {error}")
                continue
            if feed.ended:
                raise SourceBreak(
                    "breaks off: a quote is opened here and never closed", feed.record_line
                )
            if not cells:
                continue
            if not self.width:
                self.width = len(cells)
                self.columns = {name.strip(): i for i, name in reversed(list(enumerate(cells)))}
                continue
            yield feed.record_line, self._row(cells)

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
        row = {name: cells[i] or None for name, i in self.columns.items()}
        if feed.has_escaped_bytes and any(c and _ESCAPED_BYTE.search(c) for c in row.values()):
            return RowFault(RejectCode.INVALID_UTF8, "not UTF-8: save the file as UTF-8")
        return row


class _Feed:
    """The lines that ``csv.reader`` asks for, and how many it took for the current record."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.line = 0
        self.record_line = 0
        self.terminated = True
        self.has_escaped_bytes = False
        self.ended = False

    def __iter__(self) -> _Feed:
        return self

    def start_record(self) -> None:
        self.record_line = 0
        self.has_escaped_bytes = False

    def __next__(self) -> str:
        entry = next(self._lines, None)
        if entry is None:
            # Asked for more inside a record: csv.reader then gives what it has.
            self.ended = True
            raise StopIteration
        self.line, line, self.terminated = entry
        self.record_line = self.record_line or self.line
        if not self.terminated:
            next(self._lines, None)  # tells if the source broke off, so that the line is cut
        if line is None:
            raise RowFault(RejectCode.LINE_TOO_LONG, "longer than the limit for one line")
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError:
            self.has_escaped_bytes = True
            return line.decode(errors="surrogateescape") + "\n"
