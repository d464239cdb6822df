"""What makes a finding the same finding in another scan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from audit.scan_result import ScanResult
from detectors.finding import EvidenceRow


def finding_fingerprint(
    code: str, concept: str, result: ScanResult, evidence: Sequence[EvidenceRow]
) -> str:
    """SHA-256, in hexadecimal, of the detector's ``code``, the concept, the signature library and
    the texts of the evidence rows in any order: rows may move, and their contents may not."""
    content = [code, concept, result.library.content_sha256, sorted(row.text for row in evidence)]
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
