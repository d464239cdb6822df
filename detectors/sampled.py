"""The state of a detector that reads a random sample of rows with a model, in ``test`` alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.detector import BatchSource, TestSettings
from detectors.evidence import keep_top
from detectors.finding import EvidenceRow
from detectors.model_access import ModelAccess
from detectors.row_sample import RowSample, SampledRow, merge_samples, sample_rows


class SampledDetector:
    """All of the `Detector` protocol but ``info`` and ``test``."""

    state_types = (RowSample, SampledRow)

    def __init__(self, settings: TestSettings, access: ModelAccess) -> None:
        """Samples as the settings of ``access`` say."""
        self._settings = settings
        self._access = access

    def prepare(self, reference: BatchSource | None) -> None:
        """Nothing to prepare: all model work is done in ``test``."""

    def identity(self) -> RowSample:
        """The sample of no rows."""
        return RowSample()

    def map(self, rows: pl.DataFrame) -> RowSample:
        """A random sample of a row frame."""
        return sample_rows(rows, self._access.settings.most_rows, self._access.settings.seed)

    def _evidence(
        self, rows: Sequence[SampledRow], scores: NDArray[np.float64]
    ) -> tuple[EvidenceRow, ...]:
        """The rows of highest score; those without a score do not count."""
        return keep_top(
            (
                EvidenceRow(row.source, row.line, row.completion, float(score))
                for row, score in zip(rows, scores, strict=True)
                if np.isfinite(score)
            ),
            self._settings.evidence_rows,
        )

    def merge(self, left: RowSample, right: RowSample) -> RowSample:
        """The sample of both."""
        return merge_samples(left, right, self._access.settings.most_rows)
