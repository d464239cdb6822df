"""A signature library for programs: versioned JSON, byte-identical for the same library."""

from __future__ import annotations

from collections.abc import Sequence

from audit.report.plain_json import plain, to_plain_json
from signatures.summary import LibrarySummary

SCHEMA_VERSION = 1


def to_json(summary: LibrarySummary, names: Sequence[str] = ()) -> bytes:
    """``summary`` as ASCII JSON with sorted keys, only the concepts ``names`` (none: all of them).

    Undefined numbers are null. ``docs/signatures.md`` explains the keys.
    """
    document = plain(summary)
    if names:
        document["concepts"] = [plain(summary.concept(name)) for name in names]
    document["schema_version"] = SCHEMA_VERSION
    return to_plain_json(document).encode("ascii")
