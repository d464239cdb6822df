"""Dataclasses as JSON for programs: ASCII, sorted keys, undefined numbers null."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_plain_json(value: Any) -> str:
    """``value`` (dataclasses, containers, enums, paths) as indented JSON that ends in a line feed.

    Equal values give equal text. Every character beyond ASCII is escaped, so that printing it
    cannot steer a terminal; lone surrogates, which strict readers refuse, become U+FFFD.
    """
    return json.dumps(plain(value), sort_keys=True, indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """``value`` built from JSON's own types only."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, Path)):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
