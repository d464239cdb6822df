"""Finds JSON objects that have a key twice, with different values.

Python's ``json`` keeps the last value, other parsers keep the first or refuse the row: whatever is
scanned, a trainer may read the other one. Nearly no row has such an object, so that the exact look
comes after one that only counts.
"""

from __future__ import annotations

import json
import re

from audit.dataset.faults import RejectCode, RowFault

_SPACED_COLON = re.compile(rb'"[ \t\r\n]+:')
_CONTAINERS = frozenset((dict, list))


def repeated_key(key: str) -> RowFault:
    """The fault of a row with two values for ``key``."""
    return RowFault(
        RejectCode.DUPLICATE_KEY,
        f"the key {key[:40]!r} has two values, and parsers differ in which they keep",
    )


def may_repeat_keys(source: bytes, value: object) -> bool:
    """Whether the JSON text ``source`` may have more keys than its ``value``; False is certain.

    Each key has a colon. Where texts have some too: a key ends in a quote and a colon, a text has
    those only behind a backslash, but for space or an escaped backslash, where the answer is True.
    """
    if type(value) is dict:
        keys = len(value)
        for member in value.values():
            if type(member) in _CONTAINERS:
                keys += _key_count(member)
    else:
        keys = _key_count(value)
    if source.count(b":") == keys:
        return False
    marks = source.count(b'":')
    if b"\\" in source:
        marks -= source.count(b'\\":')
        if b'\\\\"' in source:
            return True
    return marks != keys or _SPACED_COLON.search(source) is not None


def repeated_key_in(source: bytes | str) -> RowFault | None:
    """The fault of an object in the JSON text ``source`` with two values for one key, if any."""
    found: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) < len(pairs):
            # The last value counts: any other that is not equal was hidden by it.
            found.extend(key for key, value in pairs if members[key] != value)
        return members

    try:
        json.loads(source, object_pairs_hook=unique)
    except RecursionError:
        return RowFault(RejectCode.TOO_DEEP, "nested too deeply for any JSON reader")
    except ValueError as error:
        return RowFault(RejectCode.BAD_JSON, f"not JSON for every parser: {error}")
    return repeated_key(found[0]) if found else None


def _key_count(value: object) -> int:
    count = 0
    waiting = [value]
    while waiting:
        container = waiting.pop()
        if type(container) is dict:
            count += len(container)
            waiting += [member for member in container.values() if type(member) in _CONTAINERS]
        elif type(container) is list:
            waiting += [member for member in container if type(member) in _CONTAINERS]
    return count
