"""What SA003 and SA004 have in common: rows read under every concept's prompt."""

from __future__ import annotations

from detectors.detector import TestSettings
from detectors.finding import Reason
from detectors.model_access import ModelAccess
from detectors.model_evidence import MISFIT_NATS
from detectors.row_sample import RowSample
from detectors.sampled import SampledDetector
from signatures.library import SignatureLibrary


class ReadingDetector(SampledDetector):
    """Reads the rows of both samples with one reader for all detectors of a scan."""

    def __init__(
        self, library: SignatureLibrary, settings: TestSettings, access: ModelAccess
    ) -> None:
        """Test the library's traits, calibrated by its decoys, with the model of ``access``."""
        super().__init__(settings, access)
        self._traits = library.traits()
        self._concepts = (*self._traits, *library.decoys())
        self._reader = access.reader(self._concepts)

    @staticmethod
    def _available(data: RowSample, reference: RowSample | None) -> int:
        """How many rows of each side can be compared."""
        return min(len(sample.rows) for sample in (data, reference) if sample is not None)

    def _reason(self, smallest: float, misfit_nats: float) -> Reason | None:
        """Why a test that is not significant may not say "not detected"."""
        if abs(misfit_nats) > MISFIT_NATS:
            return Reason.OTHER_MODEL_FAMILY
        if smallest > self._settings.teacher_share_of_interest:
            return Reason.LOW_POWER
        return None
