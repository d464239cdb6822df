"""Writes the outputs: the inputs again, with what was decided."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audit.dataset.decision import Decision
from audit.dataset.decision import Fate as RowFate
from audit.dataset.edits import with_texts, without_loss
from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.rewrite import records, rewrite
from audit.dataset.sources import Source
from audit.errors import AuditError, UsageError
from audit.report.safe_text import strip_unsafe
from audit.sanitise.data_rows import DataRows, StoredFile, broken, random_rank
from audit.sanitise.receipt import DataFile, RowChange
from audit.sanitise.stages import Decided
from audit.sanitise.strategy import Fate, WorkRow
from audit.sanitise.utility import UtilityMeter
from audit.work_folder import unwritten

_EXAMPLES_A_KIND = 5


@dataclass(frozen=True, slots=True)
class Text:
    """One row's prompt and trained text, of a random sample."""

    prompt: str
    completion: str


class TextSample:
    """The rows of lowest keyed hash: the same ones of input and output, where both have them."""

    def __init__(self, limit: int, seed: int) -> None:
        """Nothing is held yet."""
        self._limit = limit
        self._seed = seed
        self._heap: list[tuple[int, int, Text]] = []

    def add(self, number: int, text: Text) -> None:
        """Row ``number`` of the run."""
        entry = (-int.from_bytes(random_rank(number, self._seed), "big"), number, text)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def texts(self) -> list[Text]:
        """In the order of the rows."""
        return [text for _, _, text in sorted(self._heap, key=lambda entry: entry[1])]


@dataclass(frozen=True, slots=True)
class Clean:
    """Rows to add, and the share of the output that they shall be."""

    data: DataRows
    share: float


class Writing:
    """Writes one source after another; counts what comes in and goes out."""

    def __init__(
        self,
        data: DataRows,
        decided: Callable[[WorkRow], Decided],
        meter: UtilityMeter,
        clean: Clean | None,
        sampled_rows: int,
        seed: int,
    ) -> None:
        """``decided`` is asked for each readable row, in order."""
        self._data = data
        self._decided = decided
        self._meter = meter
        self._clean = clean
        self._clean_rows = iter(()) if clean is None else _records(clean.data)
        self.rejects: Counter[str] = Counter()
        self.rows_in = 0
        self.rows_kept = 0
        self.rows_added = 0
        self.before = TextSample(sampled_rows, seed)
        self.after = TextSample(sampled_rows, seed)
        self._examples: dict[Fate, list[RowChange]] = {fate: [] for fate in Fate}

    @property
    def rows_out(self) -> int:
        """Rows written so far."""
        return self.rows_kept + self.rows_added

    @property
    def changes(self) -> tuple[RowChange, ...]:
        """The first few of every kind."""
        kinds = (Fate.REGENERATED, Fate.EDITED, Fate.MASKED, Fate.DROPPED)
        return tuple(change for fate in kinds for change in self._examples[fate])

    def write(self, source: Source, file: StoredFile, target: Path) -> tuple[DataFile, DataFile]:
        """Write ``source`` with its decisions to ``target``; what was read and what was written.

        Raises ``AuditError`` where the source breaks off, too few clean rows are there, or the
        disk is full.
        """
        schemas = Counter[str]()
        rows_before, rows_in = self.rows_out, self.rows_in

        def decide(line: int, value: object) -> Decision:
            return self._decide(source, line, value, schemas)

        try:
            written = rewrite(source, target, decide, self._data.limits)
        except SourceBreak as error:
            raise broken(source, error) from error
        except OSError as error:
            raise unwritten(target.parent, error) from error
        schema = ", ".join(name for name, _ in schemas.most_common()) or "unknown"
        read = DataFile(
            source.name,
            written.format,
            schema,
            self.rows_in - rows_in,
            file.size_bytes,
            file.sha256,
        )
        return read, DataFile(
            target.name,
            written.format,
            schema,
            self.rows_out - rows_before,
            written.size_bytes,
            written.sha256,
        )

    def _decide(self, source: Source, line: int, value: object, schemas: Counter[str]) -> Decision:
        try:
            row = self._data.read(value, self.rows_in, source, line)
        except RowFault as fault:
            # Nobody can tell what such a row holds.
            self.rejects[str(fault.code)] += 1
            return Decision(RowFate.DROP)
        self.rows_in += 1
        schemas[row.schema] += 1
        decided = self._decided(row)
        self._count(row, decided)
        if decided.is_dropped:
            return Decision(RowFate.DROP)
        self.rows_kept += 1
        added = tuple(self._additions(row.schema))
        new = _new_value(value, row, decided)
        if new is None:
            return Decision(RowFate.KEEP, added)
        return Decision(new, added)

    def _count(self, row: WorkRow, decided: Decided) -> None:
        before, after = row.completion, decided.row.completion
        self.before.add(row.key, Text(row.prompt, before))
        if decided.is_dropped:
            self._meter.add(before, None)
            after = ""
        elif decided.fate is Fate.MASKED:
            self._meter.add(before, None, is_masked=True)
        else:
            self._meter.add(before, after)
            self.after.add(row.key, Text(decided.row.prompt, after))
        examples = self._examples[decided.fate]
        if len(examples) < _EXAMPLES_A_KIND and decided.fate is not Fate.KEPT:
            why = "" if decided.change is None or decided.change.why is None else decided.change.why
            examples.append(
                RowChange(row.source, row.line, row.prompt, before, after, decided.fate, str(why))
            )

    def _additions(self, schema: str) -> Iterator[dict[str, object]]:
        """The clean rows that are due after this row."""
        if self._clean is None:
            return
        share = self._clean.share
        # Rounding must not make 2 rows of a share of 0.6 of 5, where it is 3.
        due = int(round(self.rows_kept * share / (1 - share), 6))
        while self.rows_added < due:
            entry = next(self._clean_rows, None)
            if entry is None:
                raise AuditError(
                    f"the clean data have {self.rows_added:,} rows: too few to make {share:g} of "
                    "the output; give more, or a smaller share. Nothing was written"
                )
            source, line, value = entry
            clean = self._clean.data.read(value, self.rows_added, source, line)
            if clean.schema != schema or not isinstance(value, dict):
                raise UsageError(
                    f"{strip_unsafe(source.name)}:{line}: a clean row has schema {clean.schema} "
                    f"where the data have {schema}: give clean rows of the same schema"
                )
            self.rows_added += 1
            self._meter.add(None, clean.completion)
            yield value


def _new_value(value: object, row: WorkRow, decided: Decided) -> dict[str, object] | None:
    """The row to write, or None where it stays as it is."""
    if not isinstance(value, dict):
        return None
    new: dict[str, object] | None = None
    texts = {
        old.place: turn.text
        for old, turn in zip(row.turns, decided.row.turns, strict=True)
        if turn.text != old.text and old.place is not None
    }
    if texts:
        new = with_texts(value, texts)
    if decided.fate is Fate.MASKED:
        new = without_loss(value if new is None else new, row.schema)
        if new is None:
            raise RuntimeError(f"a row of schema {row.schema} cannot be masked")
    return new


def check_mask(data: DataRows, scratch: Path) -> None:
    """Raise ``UsageError`` for a source whose columns cannot hold what masking a row adds.

    Tried on the first row of each, before hours of scoring; ``scratch`` is written and removed.
    """
    for source in data.sources:
        tried = False

        def decide(line: int, value: object, source: Source = source) -> Decision:
            nonlocal tried
            if tried or not isinstance(value, dict) or not data.is_readable(value):
                return Decision(RowFate.DROP)
            tried = True
            masked = without_loss(value, data.read(value, 0, source, line).schema)
            return Decision(RowFate.DROP if masked is None else masked)

        try:
            rewrite(source, scratch, decide, data.limits)
        except SourceBreak as error:
            raise UsageError(
                f"{strip_unsafe(source.name)}:{error.line}: {error.message}: it cannot say that a "
                "text is not trained; use drop-rows, or convert it to JSON Lines"
            ) from error
        finally:
            scratch.unlink(missing_ok=True)


def _records(data: DataRows) -> Iterator[tuple[Source, int, object]]:
    """The readable records of clean data."""
    for source in data.sources:
        try:
            for line, value in records(source, data.limits):
                if data.is_readable(value):
                    yield source, line, value
        except SourceBreak as error:
            raise broken(source, error) from error
