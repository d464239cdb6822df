"""The result of a data set that could not be scanned, so that no report leaves it out."""

from __future__ import annotations

from collections.abc import Sequence

from audit.dataset.record import BrokenSource
from audit.scan import library_identity
from audit.scan_result import Outcome, ScanResult
from audit.version import tool_version
from signatures.library import SignatureLibrary


def unread_result(
    outcome: Outcome,
    message: str,
    paths: Sequence[str],
    library: SignatureLibrary,
    library_path: str,
    false_discovery_rate: float,
) -> ScanResult:
    """A result without rows and findings. ``message`` says in a line why ``paths`` were not read,
    and ``outcome`` is ``NOTHING_SCANNABLE`` or ``INCOMPLETE``."""
    broken = (BrokenSource(", ".join(paths), 0, message),)
    return ScanResult(
        tool_version=tool_version(),
        outcome=outcome,
        headline=message,
        sources=(),
        reference=(),
        baseline="",
        rows_scanned=0,
        rows_rejected=0,
        reject_counts={},
        rejects=(),
        broken=broken if outcome is Outcome.INCOMPLETE else (),
        library=library_identity(library, library_path),
        detectors=(),
        concepts=(),
        findings=(),
        skipped=(),
        limits=(),
        model=None,
        false_discovery_rate=false_discovery_rate,
    )
