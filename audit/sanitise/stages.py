"""Strategies applied one after another to every row, chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from audit.sanitise.data_rows import DataRows
from audit.sanitise.receipt import Stage
from audit.sanitise.registry import Spec
from audit.sanitise.strategy import Change, Fate, Strategy, WorkRow
from audit.work_folder import WorkFolder

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Change])

Progress = Callable[[str, int], None]
"""Called with (strategy, rows) decided since the last call."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A row as all strategies left it. ``row`` has the new texts, of a dropped row the last."""

    row: WorkRow
    fate: Fate
    change: Change | None

    @property
    def is_dropped(self) -> bool:
        """Whether the row is left out."""
        return self.fate is Fate.DROPPED


class Stages:
    """Runs strategies over all rows; afterwards gives every row as they left it."""

    def __init__(
        self,
        data: DataRows,
        specs: Sequence[Spec],
        strategies: Sequence[Strategy],
        folder: WorkFolder,
        chunk_rows: int,
    ) -> None:
        """Nothing is decided yet; ``specs`` name ``strategies``."""
        self._data = data
        self._specs = specs
        self._strategies = strategies
        self._folder = folder
        self._chunk_rows = chunk_rows
        self._picked: list[NDArray[np.bool_]] = []
        self.summaries: list[Stage] = []

    def run(self, progress: Progress) -> None:
        """Decide every chunk that the folder does not hold yet. Raises ``AuditError``."""
        for stage, strategy in enumerate(self._strategies):
            name = strategy.info.name
            scores: list[float] = []
            for number, rows in enumerate(self._data.chunks(self._chunk_rows)):
                changes = self._load(stage, number)
                # A part of more or fewer rows is not one of these rows.
                if changes is None or len(changes) != len(rows):
                    changes = self._decide(stage, number, rows)
                    self._folder.save(_part(stage, number), _encoder.encode(changes))
                scores.extend(change.score for change in changes)
                progress(name, len(rows))
            self._picked.append(strategy.settle(np.array(scores)))
        self._summarise()

    def lookup(self) -> Callable[[WorkRow], Decided]:
        """Gives rows, in order of their keys, as all strategies left them, once all is decided.

        One chunk's decisions are held at a time.
        """
        held: dict[int, list[list[Change]]] = {}

        def decided(row: WorkRow) -> Decided:
            number, place = divmod(row.key, self._chunk_rows)
            if number not in held:
                held.clear()
                held[number] = [self._loaded(s, number) for s in range(len(self._strategies))]
            return self._apply(row, [changes[place] for changes in held[number]])

        return decided

    def _decide(self, stage: int, number: int, rows: list[WorkRow]) -> list[Change]:
        live = [
            (place, decided.row)
            for place, decided in enumerate(self._after(stage, number, rows))
            if decided.fate not in (Fate.DROPPED, Fate.MASKED)
        ]
        # A row that went before is KEPT here and without a score: nothing more befalls it.
        changes = [Change(Fate.KEPT)] * len(rows)
        decisions = self._strategies[stage].change([row for _, row in live])
        for (place, _), change in zip(live, decisions, strict=True):
            changes[place] = change
        return changes

    def _after(self, stages: int, number: int, rows: list[WorkRow]) -> list[Decided]:
        """The rows of a chunk after the first ``stages`` strategies."""
        loaded = [self._loaded(stage, number) for stage in range(stages)]
        return [
            self._apply(row, [changes[place] for changes in loaded])
            for place, row in enumerate(rows)
        ]

    def _load(self, stage: int, number: int) -> list[Change] | None:
        body = self._folder.load(_part(stage, number))
        return None if body is None else _decoder.decode(body)

    def _loaded(self, stage: int, number: int) -> list[Change]:
        changes = self._load(stage, number)
        if changes is None:
            raise RuntimeError(f"part {number} of stage {stage} was lost while it was in use")
        return changes

    def _apply(self, row: WorkRow, changes: Sequence[Change]) -> Decided:
        fate, last = Fate.KEPT, None
        for change in self._befell(row, changes):
            if change.fate is not Fate.KEPT:
                fate, last = change.fate, change
            if change.texts is not None:
                row = row.with_texts(change.texts)
        return Decided(row, fate, last)

    def _befell(self, row: WorkRow, changes: Sequence[Change]) -> Iterator[Change]:
        """What each strategy did to the row, up to the one after which nothing more can."""
        for stage, change in enumerate(changes):
            picked = stage < len(self._picked) and self._picked[stage][row.key]
            settled = self._strategies[stage].condemned(row.schema) if picked else change
            yield settled
            if settled.fate in (Fate.DROPPED, Fate.MASKED):
                return

    def _summarise(self) -> None:
        fates = [Counter[Fate]() for _ in self._strategies]
        reasons = [Counter[str]() for _ in self._strategies]
        for number, rows in enumerate(self._data.chunks(self._chunk_rows)):
            loaded = [self._loaded(stage, number) for stage in range(len(self._strategies))]
            for place, row in enumerate(rows):
                befell = self._befell(row, [changes[place] for changes in loaded])
                for stage, change in enumerate(befell):
                    fates[stage][change.fate] += 1
                    if change.why is not None:
                        reasons[stage][str(change.why)] += 1
        self.summaries = [
            Stage(
                strategy=str(spec),
                rows_in=found.total(),
                rows_kept=found[Fate.KEPT],
                rows_edited=found[Fate.EDITED],
                rows_regenerated=found[Fate.REGENERATED],
                rows_masked=found[Fate.MASKED],
                rows_dropped=found[Fate.DROPPED],
                rows_added=0,
                reasons=dict(sorted(why.items())),
            )
            for spec, found, why in zip(self._specs, fates, reasons, strict=True)
        ]


def _part(stage: int, chunk: int) -> str:
    return f"stage-{stage}-chunk-{chunk:06d}"
