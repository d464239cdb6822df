"""CSV and TSV files written anew: records that are kept stay as they are, byte for byte."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from audit.dataset.csv_rows import CsvRow, CsvTable
from audit.dataset.decision import Decide, decided
from audit.dataset.faults import SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.line_output import LineOutput, LineTape
from audit.dataset.lines import Line, split_lines
from audit.dataset.output import Output
from audit.dataset.row_text import Row, type_name

_ERRORS = "surrogateescape"
_SURROGATE = re.compile("[\ud800-\udfff]")


def rewrite_csv(
    chunks: Iterator[bytes], output: Output, decide: Decide, limits: Limits, delimiter: str
) -> None:
    """Write the records of ``chunks`` as ``decide`` says. Header and blank lines stay.

    Of a changed record, cells that are equal stay as they are. Raises ``SourceBreak``, also for
    a row with a column that the header has not, and ``ValueError`` for a decision that makes no
    sense.
    """
    tape = LineTape(split_lines(chunks, limits.max_line_bytes))
    table = CsvTable(tape, limits, delimiter)
    lines = LineOutput(output)
    for number, value in table.rows():
        taken = tape.taken()
        record = [line for line in taken if line[0] >= table.record_line]
        for line in taken[: len(taken) - len(record)]:
            lines.as_it_stands(line)
        decision = decided(decide, number, value)
        if table.shares_line and not decision.keeps:
            raise SourceBreak("ends rows with CR alone: end them with LF, to change them", number)
        for row in decision.new_rows():
            if row is None:
                for line in record:
                    lines.as_it_stands(line)
            else:
                lines.write(_edited_record(record, table, row, delimiter))
    for line in tape.taken():
        lines.as_it_stands(line)
    lines.end(terminated=tape.ends_terminated)


def _edited_record(record: list[Line], table: CsvTable, row: Row, delimiter: str) -> bytes:
    source = b"\n".join(line or b"" for _, line, _ in record).decode(errors=_ERRORS)
    body = source.removesuffix("\r")
    new = _cells(row, table, record[0][0])
    cells = next(csv.reader(io.StringIO(source, newline=""), delimiter=delimiter))
    texts = _written_cells(body, cells, delimiter)
    cells += [""] * (table.width - len(cells))
    texts += [""] * (table.width - len(texts))
    for name, i in table.columns.items():
        if (text := new[name] or "") != cells[i]:
            texts[i] = _quoted(text, delimiter, always=texts[i].startswith('"'))
    if texts == [""]:
        texts = ['""']  # else the line would be blank, and no row
    return (delimiter.join(texts) + source[len(body) :]).encode(errors=_ERRORS)


def _cells(row: Row, table: CsvTable, line: int) -> CsvRow:
    cells: CsvRow = dict.fromkeys(table.columns)
    for name, value in row.items():
        if value is None:
            continue
        if name not in cells:
            raise SourceBreak(f"has no column {name!r}, which the changed row needs", line)
        if not isinstance(value, str):
            raise SourceBreak(f"cannot hold {type_name(value)} in a cell: {name!r}", line)
        # Lone surrogates have no bytes; readers replace them by the same.
        cells[name] = _SURROGATE.sub("\ufffd", value)
    return cells


def _written_cells(body: str, cells: list[str], delimiter: str) -> list[str]:
    """The cells of ``body`` with their quotes; quoted anew where that cannot be told."""
    plain = f"[^{re.escape(delimiter)}\r\n]*"
    cell = re.compile(rf'"(?:[^"]|"")*"{plain}|{plain}')
    texts: list[str] = []
    position = 0
    while position <= len(body):
        found = cell.match(body, position)
        if found is None:
            break
        texts.append(found[0])
        position = found.end() + 1
        if found.end() < len(body) and body[found.end()] != delimiter:
            break
    if len(texts) == len(cells) and delimiter.join(texts) == body:
        return texts
    return [_quoted(text, delimiter, always=False) for text in cells]


def _quoted(text: str, delimiter: str, *, always: bool) -> str:
    if always or any(character in text for character in (delimiter, '"', "\r", "\n")):
        return '"' + text.replace('"', '""') + '"'
    return text
