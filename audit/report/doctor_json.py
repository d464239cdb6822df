"""What works on this machine, for programs."""

from __future__ import annotations

from audit.doctor import Diagnosis
from audit.report.plain_json import plain, to_plain_json

SCHEMA = "subliminal-audit/doctor"
SCHEMA_VERSION = 1


def render_diagnosis(diagnosis: Diagnosis) -> bytes:
    """``diagnosis`` as ASCII JSON; docs/doctor.md says what its keys mean."""
    return to_plain_json(
        {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **plain(diagnosis)}
    ).encode("ascii")
