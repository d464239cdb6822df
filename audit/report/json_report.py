"""The report for programs: versioned JSON, byte-identical for the same scan result.

The format is ``report.schema.json`` beside this file; ``docs/reports.md`` explains it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from typing import Any

from audit.report.summary import ordered, overview
from audit.scan_result import ScanResult

SCHEMA_VERSION = 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(result: ScanResult) -> bytes:
    """``result`` as ASCII JSON: sorted keys, shortest exact floats, undefined numbers null.

    It holds no time and nothing of the machine, so equal results give equal bytes. Text from
    data is kept character for character, except lone surrogates (U+FFFD); every character
    beyond ASCII is escaped, so that printing the file cannot steer a terminal.
    """
    seen = overview(result)
    document = {
        **_plain(result),
        "schema_version": SCHEMA_VERSION,
        "counts": {
            "flagged": len(seen.flagged),
            "inconclusive": len(seen.inconclusive),
            "not_detected": len(seen.not_detected),
        },
        "findings": _plain(ordered(result.findings)),
        "rejects": _plain(sorted(result.rejects, key=lambda r: (r.source, r.line, r.code))),
        "broken": _plain(sorted(result.broken, key=lambda b: (b.source, b.line))),
        "skipped": _plain(
            sorted(result.skipped, key=lambda s: (s.code, s.concept, s.detector, s.reason))
        ),
    }
    text = json.dumps(document, sort_keys=True, indent=2, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    """``value`` built from JSON's own types only."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # JSON can write a lone surrogate, but strict readers refuse the whole document.
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
