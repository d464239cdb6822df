"""A verification for programs: versioned JSON, byte-identical for equal results.

The format is ``verify.schema.json`` beside this file; ``docs/verify_reports.md`` explains it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from audit.report.plain_json import plain, to_plain_json
from audit.verify.result import SelfCheck, VerifyResult
from audit.verify.transfer_statistics import LogOdds

SCHEMA = "subliminal-audit/verification"
CHECK_SCHEMA = "subliminal-audit/self-check"
SCHEMA_VERSION = 1


def render_verification(result: VerifyResult) -> bytes:
    """``result`` as ASCII JSON: sorted keys, shortest exact floats, undefined numbers null.

    The log-odds are in it, so that every figure can be computed again. It holds no time, and no row
    of the data.
    """
    tables = {
        "base": _log_odds(result.base),
        "students": {arm: _log_odds(odds) for arm, odds in result.students.items()},
    }
    others = {f.name: getattr(result, f.name) for f in fields(result) if f.name not in tables}
    return _rendered(SCHEMA, {**others, **tables, "self_check": _check(result.self_check)})


def render_check(check: SelfCheck) -> bytes:
    """``check`` alone, likewise."""
    return _rendered(CHECK_SCHEMA, _check(check))


def _rendered(schema: str, content: dict[str, Any]) -> bytes:
    document = {**content, "schema": schema, "schema_version": SCHEMA_VERSION}
    return to_plain_json(document).encode("ascii")


def _log_odds(odds: LogOdds) -> dict[str, Any]:
    return {"concept": odds.concept.tolist(), "off_target": odds.off_target.tolist()}


def _check(check: SelfCheck) -> dict[str, Any]:
    """How long it took is left out: the same check again gives the same bytes."""
    document: dict[str, Any] = plain(check)
    del document["seconds"], document["ghost"]["seconds"]
    document["ghost"]["passed"] = check.ghost.passed
    return document
