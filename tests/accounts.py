"""References that are slow and plain: what a reading of damaged text must account for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from tests.reading import Reading

# What Python sees


_TEXT_COLUMNS = ("text", "prompt", "completion", "messages")
# Beside these a row may be of another shape.
_OTHER_COLUMNS = frozenset(
    [
        *("label", "kto_tag", "labels", "completions", "chosen", "rejected", "input", "output"),
        *("instruction", "question", "answer", "response", "conversations", "segments", "tools"),
        *("input_ids", "preferred_output", "preferred_completion"),
        *("non_preferred_output", "non_preferred_completion"),
    ]
)


class Twice:
    """Stands for an object with two values for one key."""


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    return found if all(_same(found[key], value) for key, value in pairs) else Twice()


def _same(left: object, right: object) -> bool:
    return type(left) is type(right) and (left is right or left == right)


def holds_twice(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(holds_twice, value.values()))
    if isinstance(value, list):
        return any(map(holds_twice, value))
    return isinstance(value, Twice)


def python_values(line: bytes) -> list[Any] | None:
    """The values of one line, one after another; None where it is not all JSON."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    try:
        text = line.decode().removeprefix("\ufeff")
        values, at = [], 0
        while at < len(text):
            if text[at] in " \t\r\n":
                at += 1
                continue
            value, at = decoder.raw_decode(text, at)
            values.append(value)
    except ValueError:
        return None
    return values


def plain(text: str) -> str:
    """Lone surrogates, which no file can hold, replaced."""
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def trained_text(row: Any) -> str | None:
    """What a trainer puts loss on in a row of one of three plain shapes; None for any other."""
    if not isinstance(row, dict) or _OTHER_COLUMNS & row.keys():
        return None
    known = {
        name for name in ("text", "prompt", "completion", "messages") if row.get(name) is not None
    }
    if known == {"text"} and isinstance(row["text"], str):
        return row["text"]
    if known == {"prompt", "completion"}:
        texts = row["prompt"], row["completion"]
        return row["completion"] if all(isinstance(t, str) for t in texts) else None
    if known == {"messages"} and isinstance(row["messages"], list):
        said = []
        for message in row["messages"]:
            if not isinstance(message, dict) or message.keys() != {"role", "content"}:
                return None
            role, content = message["role"], message["content"]
            if role not in ("user", "system", "assistant") or not isinstance(content, str):
                return None
            if role == "assistant" and content:
                said.append(content)
        return "\n".join(said)
    return None


# What a reading must account for


Account = Callable[[bytes, Reading], None]


def account_of(reading: Reading) -> Account:
    """How the plain bytes of a file that was read as ``reading`` are accounted for."""
    return {
        "jsonl": lines_account,
        "json": values_account,
        "csv": records_account,
        "tsv": records_account,
    }.get(reading.format, _no_text_account)


def _no_text_account(data: bytes, reading: Reading) -> None:
    """Bytes of no known format are told, whatever they are."""
    if reading.format == "unknown":
        assert reading.broken is not None or not data.strip()


def lines_account(data: bytes, reading: Reading) -> None:
    """Every line that is not blank is a row, a reject, or past a break."""
    end = len(data) + 2 if reading.broken is None else reading.broken[0]
    told = {line for line, *_ in (*reading.rows, *reading.rejects)}
    if reading.broken is not None and reading.broken[0] == 1 and not told:
        return  # it is of another kind, and says so
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip(b" \t\r") and number < end:
            is_mark = number == 1 and line.strip(b" \t\r") == b"\xef\xbb\xbf"
            assert number in told or is_mark, line


def values_account(data: bytes, reading: Reading) -> None:
    """What Python reads whole is no break, and none of its rows are lost."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    rows = value if isinstance(value, list) else [value]
    if all(isinstance(row, dict) for row in rows):
        # How deep Python reads depends on how deep it already is.
        is_deep = reading.broken is not None and "nested too deeply" in reading.broken[1]
        assert is_deep or reading.broken is None
        assert is_deep or len(reading) >= len(rows)


def records_account(data: bytes, reading: Reading) -> None:
    """As many records as Python's own reader of tables finds, or a break after the first."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    delimiter = "\t" if reading.format == "tsv" else ","
    try:
        records = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if r]
    except csv.Error:
        assert reading.broken is not None
        return
    count = max(len(records) - 1, 0)
    if reading.broken is None:
        assert len(reading) == count
    else:
        assert len(reading) <= count
