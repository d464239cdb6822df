"""The state of a detector that reads a random sample of rows with a model, in ``test`` alone."""

from __future__ import annotations

import polars as pl

from detectors.detector import BatchSource, TestSettings
from detectors.model_access import ModelAccess
from detectors.row_sample import RowSample, merge_samples, sample_rows


class SampledDetector:
    """All of the `Detector` protocol but ``info`` and ``test``."""

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

    def merge(self, left: RowSample, right: RowSample) -> RowSample:
        """The sample of both."""
        return merge_samples(left, right, self._access.settings.most_rows)
