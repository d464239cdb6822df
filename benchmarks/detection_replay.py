"""The real detectors on rows that were scored beforehand: many resampled sets in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.detection_rows import concepts
from detectors.condition_scores import ConditionScores, FunctionScore
from detectors.model_access import ModelSettings
from detectors.model_rows import ReadProgress, ScoredRow
from detectors.row_sample import RowSample
from signatures.concept import Concept


class ReplayedAccess:
    """Stands where a `ModelAccess` does; its reader only knows ``rows``."""

    student = None

    def __init__(self, rows: Sequence[ScoredRow], *, sequential: bool = True) -> None:
        self.settings = ModelSettings(most_rows=max(1, len(rows)), sequential=sequential)
        self._reader = _Replay({id(row.row): row for row in rows})

    def reader(self, concepts: tuple[Concept, ...]) -> _Replay:
        return self._reader

    def show(self, what: str) -> ReadProgress:
        return lambda done, wanted: None


class _Replay:
    rows_left_out = 0

    def __init__(self, scored: dict[int, ScoredRow]) -> None:
        self._scored = scored
        self._arms: tuple[list[ScoredRow], list[ScoredRow]] = ([], [])
        self.rows_read = 0

    def open(self, data: RowSample, reference: RowSample | None) -> None:
        self.rows_read = 0
        self._arms = (
            [self._scored[id(row)] for row in data.rows],
            [self._scored[id(row)] for row in (reference.rows if reference else ())],
        )

    def read(
        self, data_rows: int, reference_rows: int, progress: ReadProgress
    ) -> tuple[list[ScoredRow], list[ScoredRow]]:
        self.rows_read = min(data_rows, len(self._arms[0]))
        return self._arms[0][:data_rows], self._arms[1][:reference_rows]

    def texts(self) -> list[str]:
        return [""] * (1 + max(max(row.token_ids) for row in self._scored.values()))


def without_concept(rows: Sequence[ScoredRow], column: int) -> list[ScoredRow]:
    """The rows as a library without the concept at ``column`` would have scored them."""
    return [replace(row, scores=_without(row.scores, column)) for row in rows]


def _without(scores: ConditionScores, column: int) -> ConditionScores:
    kept = [index for index in range(len(scores.log_martingale_nats)) if index != column]
    both = np.ix_(kept, kept)
    return replace(
        scores,
        likelihood=_part(scores.likelihood, kept, both),
        divergence=_part(scores.divergence, kept, both),
        surprisal_excess_nats=scores.surprisal_excess_nats[[0, *(index + 1 for index in kept)]],
        log_martingale_nats=scores.log_martingale_nats[kept],
        preferred=scores.preferred[[0, *(index + 1 for index in kept)]],
    )


def _part(function: FunctionScore, kept: list[int], both: tuple[NDArray[np.intp], ...]):
    return FunctionScore(function.score[kept], function.predicted[both], function.covariance[both])


def sample_of(rows: Sequence[ScoredRow]) -> RowSample:
    """The rows, in their order, as a detector's state."""
    return RowSample(tuple(row.row for row in rows), len(rows))


class Concepts:
    """What a detector asks of a library: the eight concepts less ``without``, and no decoy."""

    def __init__(self, without: str = "") -> None:
        self._kept = tuple(concept for concept in concepts() if concept.name != without)

    def traits(self):
        return self._kept

    def decoys(self):
        return ()
