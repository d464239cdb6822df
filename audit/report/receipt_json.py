"""The receipt of a sanitising run for programs: versioned JSON, byte-identical for equal results.

The format is ``receipt.schema.json`` beside this file; ``docs/receipts.md`` explains it.
"""

from __future__ import annotations

import json
from typing import Any

from audit.report.json_report import to_json
from audit.report.plain_json import plain, to_plain_json
from audit.sanitise.receipt import SanitiseResult
from audit.scan_result import ScanResult

SCHEMA = "subliminal-audit/receipt"
SCHEMA_VERSION = 1


def render_receipt(result: SanitiseResult) -> bytes:
    """``result`` as ASCII JSON: sorted keys, shortest exact floats, undefined numbers null.

    It holds no time, no example of what was changed, and no evidence: rows may be private. Each
    scan is its own JSON report but for that evidence.
    """
    document = {
        **plain(result),
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "before": _report(result.before),
        "after": _report(result.after),
    }
    del document["changes"]
    return to_plain_json(document).encode("ascii")


def _report(scan: ScanResult | None) -> dict[str, Any] | None:
    if scan is None:
        return None
    report: dict[str, Any] = json.loads(to_json(scan))
    for finding in report["findings"]:
        finding["evidence"] = []
    return report
