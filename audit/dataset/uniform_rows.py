"""The texts of many JSON lines at once, where all are rows of one plain shape.

Nearly every file is: then msgspec decodes a whole block into the columns that the schema reads,
some four times as fast as row by row. Whatever is not plain in every respect (another column, a
null, a spelling that parsers read differently) is left to the reader of single rows, which decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from audit.dataset.json_rows import values_of_lines
from audit.dataset.limits import Limits
from audit.dataset.lines import LineBlock
from audit.dataset.messages import speaker_of_role
from audit.dataset.row_text import ASSISTANT
from audit.dataset.schema import KNOWN_COLUMNS, schema_fitting

# Columns of a schema that takes all of them as text: what is untrained, and what is trained.
_TEXT_COLUMNS: dict[str, tuple[tuple[str, ...], str]] = {
    "prompt-completion": (("system", "prompt"), "completion"),
    "alpaca": (("system", "instruction", "input"), "output"),
    "instruction-response": (("system", "instruction", "input"), "response"),
    "question-answer": (("system", "input", "question"), "answer"),
    "question-response": (("system", "question"), "response"),
    "text": ((), "text"),
}
_MESSAGE_COLUMNS = {"messages": (), "conversations": ("system",)}
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")

# Values that no schema reads: none of them may hold keys of its own.
_Other = str | int | float | bool | None
_MOST_COLUMNS = 64
_KEPT_SHAPES = 16
_SMALL_BYTES = 8192

_LF, _CR, _SPACE, _QUOTE, _COLON, _OPEN, _BACKSLASH, _CLOSE = b'\n\r ":{\\}'
_SPACED_COLON = re.compile(rb'"[ \t\r\n]+:')


@dataclass(frozen=True, slots=True)
class Texts:
    """The rows of consecutive lines, all read as ``schema``. Each has trained text."""

    schema: str
    prompts: list[str]
    completions: list[str]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.prompts)

    def split(self, rows: int) -> tuple[Texts, Texts]:
        """The first ``rows`` of them, and the rest."""
        if rows >= len(self):
            return self, Texts(self.schema, [], [])
        return (
            Texts(self.schema, self.prompts[:rows], self.completions[:rows]),
            Texts(self.schema, self.prompts[rows:], self.completions[rows:]),
        )


@dataclass(frozen=True, slots=True)
class _Shape:
    """How rows with certain columns are decoded, and made texts of."""

    decode: Callable[[bytes], list[Any]]
    keys: Callable[[list[Any]], int]
    texts: Callable[[list[Any]], Texts | None]


class UniformRows:
    """Decodes blocks of JSON lines; remembers the shapes that it met."""

    def __init__(self) -> None:
        """Nothing was met yet."""
        self._shapes: dict[tuple[tuple[str, type], ...], _Shape | None] = {}
        self._last: _Shape | None = None

    def read(self, data: bytes) -> Texts | None:
        """The rows of the lines in ``data`` (no LF at the end), one a line; None if any of them
        has to be read by itself."""
        lines = _objects_in_lines(data)
        if not lines:
            return None
        if (found := self._read_as(self._last, data, lines)) is not None:
            return found
        shape = self._shape_of(data[: data.find(b"\n")] if lines > 1 else data)
        if shape is self._last:
            return None
        found = self._read_as(shape, data, lines)
        if found is not None:
            self._last = shape
        return found

    def _read_as(self, shape: _Shape | None, data: bytes, lines: int) -> Texts | None:
        if shape is None:
            return None
        try:
            rows = shape.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if len(rows) != lines or _key_marks(data) != shape.keys(rows):
            return None
        return shape.texts(rows)

    def _shape_of(self, line: bytes) -> _Shape | None:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if not isinstance(row, dict) or len(row) > _MOST_COLUMNS:
            return None
        key = tuple((name, type(value)) for name, value in row.items())
        if key in self._shapes:
            return self._shapes[key]
        shape = _shape_for(row)
        if len(self._shapes) < _KEPT_SHAPES:
            self._shapes[key] = shape
        return shape


def values_of_block(
    block: LineBlock, uniform: UniformRows | None, limits: Limits
) -> Iterator[tuple[int, object]]:
    """What `json_rows.values_of_lines` gives of the lines of ``block``, with ``Texts`` in place of
    values that ``uniform`` can read together, at the number of their first line.

    Raises ``SourceBreak`` as that does.
    """
    waiting = [block]
    while waiting:
        block = waiting.pop()
        texts = None if uniform is None or block.data is None else uniform.read(block.data)
        if texts is not None:
            yield block.number, texts
        elif (
            uniform is None
            or len(block.data or b"") < _SMALL_BYTES
            or not (halves := block.halves())
        ):
            yield from values_of_lines(block.lines(), limits)
        else:  # one odd row is no reason to read all others one by one
            waiting += reversed(halves)


def _shape_for(row: dict[str, Any]) -> _Shape | None:
    columns = frozenset(row)
    schema = schema_fitting(columns)
    if schema is None:
        return None
    types: dict[str, Any]
    if schema.name in _TEXT_COLUMNS:
        asked, answer = _TEXT_COLUMNS[schema.name]
        types = {answer: str}
    elif schema.name in _MESSAGE_COLUMNS:
        asked, answer = _MESSAGE_COLUMNS[schema.name], schema.name
        if (message := _message_type(row[answer])) is None:
            return None
        types = {answer: list[message]}  # type: ignore[valid-type]
    else:
        return None
    before = [name for name in asked if name in columns]
    types |= dict.fromkeys(before, str)
    # Other columns that some schema knows may make a row another's, or hold what trainers read.
    if columns & KNOWN_COLUMNS != types.keys():
        return None
    fields = {f"column_{i}": name for i, name in enumerate(row)}
    struct = msgspec.defstruct(
        "Row",
        [(field, types.get(name, _Other)) for field, name in fields.items()],
        rename=fields,
        forbid_unknown_fields=True,
        gc=False,
    )
    getters = {name: attrgetter(field) for field, name in fields.items()}
    get_before, get_answer = [getters[name] for name in before], getters[answer]
    decode = msgspec.json.Decoder(struct).decode_lines
    width = len(fields)
    if schema.name in _TEXT_COLUMNS:
        return _Shape(
            decode,
            lambda rows: width * len(rows),
            lambda rows: _texts_of_columns(
                schema.name,
                [list(map(get, rows)) for get in get_before],
                list(map(get_answer, rows)),
            ),
        )
    return _Shape(
        decode,
        lambda rows: width * len(rows) + 2 * sum(map(len, map(get_answer, rows))),
        lambda rows: _texts_of_messages(
            schema.name,
            [list(map(get, rows)) for get in get_before],
            list(map(get_answer, rows)),
        ),
    )


def _message_type(messages: object) -> type[msgspec.Struct] | None:
    """Of messages of a role and a text, like the first of ``messages``; None if that is another."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        return None
    for role in _ROLE_KEYS:
        for content in _CONTENT_KEYS:
            if messages[0].keys() == {role, content}:
                return msgspec.defstruct(
                    "Message",
                    [("role", str), ("content", str)],
                    rename={"role": role, "content": content},
                    forbid_unknown_fields=True,
                    gc=False,
                )
    return None


def _texts_of_columns(schema: str, before: list[list[str]], completions: list[str]) -> Texts | None:
    if not all(map(str.strip, completions)):
        return None
    if len(before) == 1:
        prompts = before[0]
    elif before:
        prompts = ["\n".join(filter(None, parts)) for parts in zip(*before, strict=True)]
    else:
        prompts = [""] * len(completions)
    return Texts(schema, prompts, completions)


def _texts_of_messages(
    schema: str, before: list[list[str]], conversations: list[list[Any]]
) -> Texts | None:
    prompts, completions = [], []
    speakers = _Speakers()
    try:
        for messages in conversations:
            asked: list[str] = []
            answered: list[str] = []
            for message in messages:
                if content := message.content:
                    said = answered if speakers[message.role] == ASSISTANT else asked
                    said.append(content)
                else:
                    speakers[message.role]
            prompts.append("\n".join(asked))
            completions.append("\n".join(answered))
    except KeyError:
        return None
    if before:
        parts = zip(*before, prompts, strict=True)
        prompts = ["\n".join(filter(None, part)) for part in parts]
    return _texts_of_columns(schema, [prompts], completions)


class _Speakers(dict[str, str]):
    """Who speaks in each role that was met. Raises ``KeyError`` for a role that none knows."""

    def __missing__(self, role: str) -> str:
        speaker = self[role] = speaker_of_role(role)
        return speaker


def _objects_in_lines(data: bytes) -> int:
    """How many lines ``data`` has, if each seems to hold one object; else 0.

    msgspec takes an LF between any two tokens. Between two braces that close and open there is
    none in a row (a comma is), so that each LF parts two rows, and as many rows as lines are one
    in each.
    """
    if not data.startswith(b"{"):
        return 0
    codes = np.frombuffer(data, dtype=np.uint8)
    feeds = np.flatnonzero(codes == _LF)
    if len(feeds):
        if feeds[-1] == len(codes) - 1 or (codes[feeds + 1] != _OPEN).any():
            return 0
        ends = codes[feeds - 1]
        if (ends == _CR).any():
            ends = np.where(ends == _CR, codes[feeds - 2], ends)
        if (ends != _CLOSE).any():
            return 0
    return len(feeds) + 1


def _key_marks(data: bytes) -> int:
    """How many keys the objects of ``data`` have, two of one name counted as two; -1: not known.

    ``data`` are rows of known keys, in none of which is a backslash. So a quote and a colon end a
    key, unless a backslash stands before them, which is in a text.
    """
    codes = np.frombuffer(data, dtype=np.uint8)
    colons = codes[1:] == _COLON
    marks = (codes[:-1] == _QUOTE) & colons
    count = int(np.count_nonzero(marks))
    if np.count_nonzero((codes[:-1] <= _SPACE) & colons) and _SPACED_COLON.search(data):
        return -1
    if b"\\" in data:
        count -= int(np.count_nonzero((codes[:-2] == _BACKSLASH) & marks[1:]))
    return count
