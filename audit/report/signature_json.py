"""A signature library for programs: versioned JSON, byte-identical for the same library."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from signatures.summary import LibrarySummary

SCHEMA_VERSION = 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(summary: LibrarySummary, names: Sequence[str] = ()) -> bytes:
    """``summary`` as ASCII JSON with sorted keys, only the concepts ``names`` (none: all of them).

    Undefined numbers are null. ``docs/signatures.md`` explains the keys.
    """
    document = _plain(summary)
    if names:
        document["concepts"] = [_plain(summary.concept(name)) for name in names]
    document["schema_version"] = SCHEMA_VERSION
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
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
