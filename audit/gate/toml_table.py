"""Reads a table of a settings file: every key is known, and every value has its type.

Whatever is wrong becomes one line that names the file, the table and the key.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from audit.errors import UsageError

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a table",
    datetime.datetime: "a date with a time",
    datetime.date: "a date",
    datetime.time: "a time",
}


class Table:
    """One table, with typed access to its keys."""

    def __init__(
        self, values: Mapping[str, Any], keys: Collection[str], *, file: str, name: str
    ) -> None:
        """``name`` is what people call the table, ``[tool.audit.budgets]``.

        Raises ``UsageError`` for a key that is not one of ``keys``.
        """
        self._values = values
        self._where = f"{file}: {name}"
        for key in values:
            if key not in keys:
                close = difflib.get_close_matches(key.replace("_", "-").lower(), keys, n=1)
                known = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(keys)}"
                raise UsageError(f"{self._where} has no key '{key}': {known}")

    def fault(self, key: str, message: str) -> UsageError:
        """What to raise where ``key`` holds something that it cannot mean."""
        return UsageError(f"{self._where}: '{key}' {message}")

    def require(self, *keys: str) -> None:
        """Raise ``UsageError`` where one of ``keys`` is missing."""
        for key in keys:
            if key not in self._values:
                raise UsageError(f"{self._where} lacks '{key}'")

    def text(self, key: str) -> str | None:
        """Text that is not blank, or None without the key."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._wrong(key, "text", value)
        self._check_text(key, value)
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """One text or a list of them, or None without the key."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "text or a list of texts", value)
        for item in value:
            self._check_text(key, item)
        return tuple(value)

    def choice(self, key: str, choices: Collection[str]) -> str | None:
        """One of ``choices``, or None without the key."""
        value = self.text(key)
        if value is not None and value not in choices:
            listed = ", ".join(f"'{choice}'" for choice in choices)
            raise self.fault(key, f"must be one of {listed}, not '{value}'")
        return value

    def whole(self, key: str, at_least: int) -> int | None:
        """A whole number of ``at_least`` or more, or None without the key."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number", value)
        if value < at_least:
            raise self.fault(key, f"must be at least {at_least}, not {value}")
        return value

    def number(self, key: str) -> float | None:
        """A number, or None without the key. It may be NaN or infinite."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong(key, "a number", value)
        return float(value)

    def date(self, key: str) -> datetime.date | None:
        """A date without a time, or None without the key."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
            raise self._wrong(key, "a date without quotes, such as 2026-12-31", value)
        return value

    def table(self, key: str) -> dict[str, Any]:
        """The table below this one, empty without the key."""
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "a table", value)
        return value

    def tables(self, key: str) -> list[dict[str, Any]]:
        """The tables of a list of tables, none without the key."""
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(key, "a list of tables, written with [[ ]]", value)
        return value

    def _check_text(self, key: str, value: str) -> None:
        if not value.strip():
            raise self.fault(key, "is empty")
        if "\0" in value:
            raise self.fault(key, "holds a null character, which no path or name can")

    def _wrong(self, key: str, wanted: str, value: object) -> UsageError:
        return self.fault(key, f"must be {wanted}, not {_KINDS.get(type(value), 'this')}")
