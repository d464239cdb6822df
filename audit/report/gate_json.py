"""A gate for programs: versioned JSON, byte-identical for equal results.

The format is ``gate.schema.json`` beside this file; ``docs/gate.md`` explains it.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from audit.gate.config import Suppression
from audit.gate.result import GateResult, GateVerdict, SetDecision
from audit.report.json_report import to_json as scan_to_json
from audit.report.plain_json import to_plain_json

SCHEMA = "subliminal-audit/gate"
SCHEMA_VERSION = 1


def to_json(result: GateResult) -> bytes:
    """``result`` as ASCII JSON: sorted keys, shortest exact floats, undefined numbers null.

    It holds what was decided, not when: no time, no date of today, nothing of the machine.
    """
    config = result.config
    verdicts = Counter(decision.verdict for decision in result.sets)
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool_version": result.tool_version,
        "verdict": result.verdict,
        "exit_code": int(result.exit_code),
        "config": config.file,
        "changed_since": result.changed_since,
        "fail_on": config.fail_on,
        "budgets": config.budgets,
        "baseline": config.baseline,
        "baseline_missing": result.baseline_missing,
        "counts": {verdict.value.replace(" ", "_"): verdicts[verdict] for verdict in GateVerdict},
        "sets": [_set(decision) for decision in result.sets],
        "expired_suppressions": [_suppression(s) for s in result.expired],
        "unused_suppressions": [_suppression(s) for s in result.unused],
        "stale_baseline_entries": result.stale,
    }
    return to_plain_json(document).encode("ascii")


def _set(decision: SetDecision) -> dict[str, Any]:
    scan = decision.scan
    return {
        "name": decision.name,
        "paths": decision.paths,
        "verdict": decision.verdict,
        "not_scanned": decision.not_scanned,
        "holds": decision.holds,
        "accepted": () if scan is None else scan.accepted,
        "undecided_concepts": None if scan is None else decision.undecided,
        "report": None if scan is None else json.loads(scan_to_json(scan.result)),
    }


def _suppression(suppression: Suppression) -> dict[str, Any]:
    # A date is no JSON; every other field is text.
    return {
        field: str(getattr(suppression, field))
        for field in ("data", "concept", "code", "owner", "reason", "expires")
    }
