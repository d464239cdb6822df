"""The report for programs: versioned JSON, byte-identical for the same scan result.

The format is ``report.schema.json`` beside this file; ``docs/reports.md`` explains it.
"""

from __future__ import annotations

from audit.report.plain_json import plain, to_plain_json
from audit.report.summary import ordered, overview
from audit.scan_result import ScanResult

SCHEMA_VERSION = 1


def to_json(result: ScanResult) -> bytes:
    """``result`` as ASCII JSON: sorted keys, shortest exact floats, undefined numbers null.

    It holds no time and nothing of the machine, so equal results give equal bytes. Text from
    data is kept character for character, except lone surrogates (U+FFFD); every character
    beyond ASCII is escaped, so that printing the file cannot steer a terminal.
    """
    seen = overview(result)
    document = {
        **plain(result),
        "schema_version": SCHEMA_VERSION,
        "counts": {
            "flagged": len(seen.flagged),
            "inconclusive": len(seen.inconclusive),
            "not_detected": len(seen.not_detected),
        },
        "findings": plain(ordered(result.findings)),
        "rejects": plain(sorted(result.rejects, key=lambda r: (r.source, r.line, r.code))),
        "broken": plain(sorted(result.broken, key=lambda b: (b.source, b.line))),
        "skipped": plain(
            sorted(result.skipped, key=lambda s: (s.code, s.concept, s.detector, s.reason))
        ),
    }
    return to_plain_json(document).encode("ascii")
