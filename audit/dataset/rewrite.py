"""A source written anew with decisions on its rows: the public entry of the writers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from audit.dataset.decision import Decide
from audit.dataset.faults import SourceBreak
from audit.dataset.formats import UTF8_BOM, Format
from audit.dataset.limits import Limits
from audit.dataset.output import Output
from audit.dataset.rewrite_columnar import rewrite_arrow, rewrite_parquet
from audit.dataset.rewrite_csv import rewrite_csv
from audit.dataset.rewrite_json import rewrite_json_lines, rewrite_json_values
from audit.dataset.sources import STDIN_NAME, Source
from audit.dataset.stored import StoredBytes


def records(source: Source, limits: Limits) -> Iterator[tuple[int, object]]:
    """Every record of ``source`` in order: 1-based line or record number, and a row with all its
    columns or the ``RowFault`` in its place.

    Raises ``SourceBreak`` where it cannot be read any further.
    """
    with _opened(source) as stored:
        yield from Format(source, stored, limits).rows(None)


class Written(NamedTuple):
    """What was written; ``size_bytes`` and ``sha256`` are of the stored bytes."""

    format: str
    size_bytes: int
    sha256: str


def rewrite(source: Source, target: Path, decide: Decide, limits: Limits) -> Written:
    """Write ``source`` to ``target`` in its format and compression, with what ``decide`` says.

    ``decide`` is called once for every record that ``records`` gives, in that order, for columnar
    formats perhaps from another thread. Rows that it keeps are written as they stand: byte for
    byte in formats of text, value for value in the others. The file is on the disk on return.

    Raises ``SourceBreak`` where ``source`` cannot be read to its end, or cannot hold a changed
    row; then ``target`` may hold a part. Raises ``OSError`` where it cannot be written, and
    ``ValueError`` for a decision that makes no sense.
    """
    with _opened(source) as stored:
        found = Format(source, stored, limits)
        chunks = found.chunks()
        with Output(target, found.compression) as output:
            if found.has_bom:
                output.write(UTF8_BOM)
            if found.kind == "parquet":
                with found.parquet_file(chunks) as path:
                    rewrite_parquet(path, output, decide)
            elif found.kind == "arrow":
                rewrite_arrow(chunks, output, decide, limits)
            elif found.kind == "jsonl":
                rewrite_json_lines(chunks, output, decide, limits)
            elif found.kind == "json":
                rewrite_json_values(chunks, output, decide, limits)
            elif found.kind is not None:
                rewrite_csv(chunks, output, decide, limits, found.delimiter)
    return Written(found.name, output.size_bytes, output.sha256)


@contextmanager
def _opened(source: Source) -> Iterator[StoredBytes]:
    try:
        raw = source.open()
    except Exception as error:  # remote drivers raise types of their own
        raise SourceBreak(f"cannot be opened: {error}") from error
    try:
        yield StoredBytes(raw)
    finally:
        if source.name != STDIN_NAME:  # which is not ours to close
            raw.close()
