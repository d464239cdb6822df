"""Parquet and Arrow files written anew: values that are kept never leave their columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from audit.dataset.arrow_output import write_arrow
from audit.dataset.arrow_rows import ARROW_FILE_MAGIC, arrow_batches
from audit.dataset.columnar import READ_ERRORS, first_line
from audit.dataset.decision import Decide, decided
from audit.dataset.faults import SourceBreak
from audit.dataset.json_edit import same
from audit.dataset.limits import Limits
from audit.dataset.output import Output, as_binary_file
from audit.dataset.parquet_footer import compression_of, row_group_heights
from audit.dataset.parquet_reader import parquet_frames
from audit.dataset.row_text import Row

_MOST_GROUP_ROWS = 1 << 17


def rewrite_parquet(path: Path, output: Output, decide: Decide) -> None:
    """Write the Parquet file at ``path`` as ``decide`` says, which another thread may call.

    Columns and their types stay, as do compression, key-value metadata (the features of Hugging
    Face) and the size of row groups up to 131,072 rows. Raises ``SourceBreak``, also for a row
    that its columns cannot hold, and ``ValueError`` for a decision that makes no sense.
    """
    frames = _Decided(decide)
    try:
        schema = pl.read_parquet_schema(path)
        # With the Arrow schema that its writer left, so that its readers find their types again.
        metadata = pl.read_parquet_metadata(path)
    except READ_ERRORS as error:
        raise SourceBreak(f"is not readable Parquet: {first_line(error)}") from error

    def read(*_: object) -> Iterator[pl.DataFrame]:
        return map(frames.rewritten, parquet_frames(path, None))

    try:
        register_io_source(read, schema=schema).sink_parquet(
            as_binary_file(output),
            compression=compression_of(path),
            row_group_size=min(max(row_group_heights(path), default=1) or 1, _MOST_GROUP_ROWS),
            metadata=metadata,
            engine="streaming",
        )
    except PolarsError as error:
        raise SourceBreak(f"cannot be written again: {first_line(error)}") from error


def rewrite_arrow(chunks: Iterator[bytes], output: Output, decide: Decide, limits: Limits) -> None:
    """Write an Arrow IPC file or stream as ``decide`` says, which another thread may call.

    Raises as ``rewrite_parquet`` does.
    """
    head = next(chunks, b"")
    while len(head) < len(ARROW_FILE_MAGIC) and (more := next(chunks, b"")):
        head += more
    batches = arrow_batches(chain([head], chunks), limits)
    first = next(batches)
    frames = _Decided(decide)
    rewritten = (frames.rewritten(batch.frame) for batch in chain([first], batches))
    write_arrow(rewritten, output, first, is_file=head.startswith(ARROW_FILE_MAGIC))


class _Decided:
    """Frames with the decisions on their rows applied, one frame after another."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self._done_rows = 0

    def rewritten(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What to write in the place of ``frame``, the next of the source."""
        taken: list[int] = []  # for every row to write, the one that it was or comes from
        changes: defaultdict[str, dict[int, object]] = defaultdict(dict)
        for i, row in enumerate(frame.iter_rows(named=True)):
            line = self._done_rows + i + 1
            for new in decided(self._decide, line, row).new_rows():
                if new is not None:
                    for name, value in _changes(frame.row(i, named=True), new, line):
                        changes[name][len(taken)] = value
                taken.append(i)
        first = self._done_rows + 1
        self._done_rows += frame.height
        if not changes and taken == list(range(frame.height)):
            return frame
        return pl.DataFrame(
            [_column(column, taken, changes.get(column.name, {}), first) for column in frame]
        )


def _changes(old: Row, new: Row, line: int) -> Iterator[tuple[str, object]]:
    for name, value in new.items():
        if name not in old:
            if value is not None:
                raise SourceBreak(f"has no column {name!r}, which the changed row needs", line)
        elif not same(old[name], value):
            yield name, value
    yield from ((name, None) for name in old.keys() - new.keys() if old[name] is not None)


def _column(
    column: pl.Series, taken: list[int], changes: dict[int, object], first: int
) -> pl.Series:
    places = list(taken)
    if changes:
        values = list(changes.values())
        line = first + taken[next(iter(changes))]
        problem = f"cannot hold a changed row: column {column.name!r} is {column.dtype!s:.200}"
        try:
            new = pl.Series(column.name, values, dtype=column.dtype, strict=True)
        except (PolarsError, TypeError, ValueError, OverflowError) as error:
            raise SourceBreak(problem, line) from error
        if not all(map(_holds, new.to_list(), values)):
            raise SourceBreak(problem, line)
        for position, place in enumerate(changes):
            places[place] = len(column) + position
        column = pl.concat([column, new])
    return column.gather(places)


def _holds(stored: object, value: object) -> bool:
    """Whether a column took ``value`` as it is: structs drop fields that they do not know."""
    if isinstance(value, dict):
        return isinstance(stored, dict) and all(
            _holds(stored.get(name), inner) for name, inner in value.items()
        )
    if isinstance(value, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(value)
            and all(map(_holds, stored, value))
        )
    # Numbers may change their type with the column's: 0 is 0.0 and false.
    return stored == value or (stored != stored and value != value)
