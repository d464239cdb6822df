"""JSON Lines and JSON files to values, one at a time.

Both accept what the parsers of trainers accept: what ``msgspec`` refuses is tried again with
Python's ``json``, so that a row cannot hide from the audit behind a NaN or a lone surrogate.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator

import msgspec

from audit.dataset.faults import RejectCode, RowFault, SourceBreak
from audit.dataset.limits import Limits
from audit.dataset.lines import Line
from audit.dataset.repeated_keys import may_repeat_keys, repeated_key, repeated_key_in

Numbered = tuple[int, object]
"""1-based line, and the value found there or the ``RowFault`` that stands for it."""

_decode_fast = msgspec.json.Decoder().decode
_python_decoder = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
# Joined files have one inside, before a line.
_BYTE_ORDER_MARK = "\ufeff"
# Rows on one line: a line of nothing but digits or brackets has as many values as characters.
_MOST_VALUES = 10_000
# A syntax error this far before the end of the buffer cannot be a value that is cut there.
_LONGEST_LITERAL = 16


def decode_json(data: bytes | str) -> object:
    """One JSON value, read as a trainer would. Raises ``RowFault``."""
    values = decode_values(data)
    if len(values) != 1:
        raise RowFault(RejectCode.BAD_JSON, "several JSON values where one was expected")
    if isinstance(values[0], RowFault):
        raise values[0]
    return values[0]


def decode_values(data: bytes | str) -> list[object]:
    """The JSON values of one line: nearly always one, but pyarrow reads several.

    A value that parsers read differently is a ``RowFault`` in its place. Raises ``RowFault``.
    """
    try:
        return [_checked(_decode_fast(data), data)]
    except RecursionError:
        raise RowFault(RejectCode.TOO_DEEP, "nested too deeply for any JSON reader") from None
    except (msgspec.MsgspecError, UnicodeError):
        pass
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError as error:
        raise RowFault(
            RejectCode.INVALID_UTF8, f"not UTF-8 at byte {error.start + 1}: save the file as UTF-8"
        ) from None
    return [value for value, _, _ in spanned_values(text)]


def spanned_values(text: str) -> list[tuple[object, int, int]]:
    """The JSON values of one line, and where each starts and ends. Raises ``RowFault``."""
    values: list[tuple[object, int, int]] = []
    position = _skip_space(text, text.startswith(_BYTE_ORDER_MARK))
    are_objects = True
    try:
        while position < len(text) or not values:
            value, end = _python_decoder.raw_decode(text, position)
            are_objects = are_objects and type(value) is dict
            if values and (not are_objects or len(values) == _MOST_VALUES):
                raise RowFault(RejectCode.BAD_JSON, "not JSON: too many values on one line")
            values.append((_checked(value, text[position:end]), position, end))
            position = _skip_space(text, end)
    except RecursionError:
        raise RowFault(RejectCode.TOO_DEEP, "nested too deeply for any JSON reader") from None
    except ValueError as error:
        raise RowFault(RejectCode.BAD_JSON, f"not JSON: {_first_line(error)}") from None
    return values


def _checked(value: object, source: bytes | str) -> object:
    """``value``, or the ``RowFault`` for an object in ``source`` that has two values for a key."""
    text = source.encode(errors="surrogatepass") if isinstance(source, str) else source
    return (may_repeat_keys(text, value) and repeated_key_in(source)) or value


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def values_of_lines(lines: Iterable[Line], limits: Limits) -> Iterator[Numbered]:
    """One value a line, which is taken only when its value is asked for; blank lines are skipped.

    A last line that neither ends nor parses means that the file was cut off there: then
    ``SourceBreak`` is raised.
    """
    cut: SourceBreak | None = None
    for number, line, terminated in lines:
        if not line:
            if line is None:
                yield number, _too_long(limits)
            continue
        try:
            value = _decode_fast(line)
            if may_repeat_keys(line, value):
                value = repeated_key_in(line) or value
            yield number, value
            continue
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            if not line.strip(b" \t\r"):
                continue
        try:
            values = decode_values(line)
        except RowFault as fault:
            if not terminated and fault.code is not RejectCode.TOO_DEEP:
                cut = SourceBreak(f"the last line has no end and is {fault.message}", number)
            else:
                yield number, fault
            continue
        for value in values:
            yield number, value
    if cut is not None:
        raise cut


def _too_long(limits: Limits) -> RowFault:
    return RowFault(RejectCode.LINE_TOO_LONG, f"line of more than {limits.max_line_bytes:,} bytes")


def read_json_values(
    chunks: Iterator[bytes], limits: Limits, columns: frozenset[str]
) -> Iterator[Numbered]:
    """The rows of a JSON file: elements of arrays, and objects that follow one another.

    An object with a list of objects under a key that is in no schema (``{"data": [{...}]}``) is
    a wrapper: its elements are the rows. ``columns`` are the keys that schemas know.
    Raises ``SourceBreak`` at the first syntax error: nothing can read on from there.
    """
    text = JsonText(chunks, limits)
    return ((line, value) for line, value, _ in values_with_starts(text, columns))


Started = tuple[int, object, int]
"""1-based line, value or ``RowFault``, and the character of the whole text that it starts at."""


def values_with_starts(text: JsonText, columns: frozenset[str]) -> Iterator[Started]:
    """The rows of ``text``, which stands at the end of each as it is given."""
    while character := text.peek():
        if character == "[":
            yield from _elements(text)
        elif character == "{":
            yield from _object_or_wrapper(text, columns)
        else:
            yield *text.value(), text.value_start


def _elements(text: JsonText) -> Iterator[Started]:
    text.take("[")
    if text.peek() != "]":
        yield *text.value(), text.value_start
        while text.peek() == ",":
            text.take(",")
            yield *text.value(), text.value_start
    text.take("]")


def _object_or_wrapper(text: JsonText, columns: frozenset[str]) -> Iterator[Started]:
    text.peek()
    line, start = text.line, text.offset
    fields: dict[str, object] = {}
    fault: RowFault | None = None
    is_wrapper = False
    text.take("{")
    while text.peek() != "}":
        if fields or is_wrapper:
            text.take(",")
        if text.peek() != '"':
            raise SourceBreak("not JSON: a key in quotes was expected", text.line)
        _, key = text.value()
        text.take(":")
        if str(key) not in columns and text.opens_list_of_objects():
            is_wrapper = True
            yield from _elements(text)
            continue
        _, value = text.value()
        if isinstance(value, RowFault):
            fault = value
        elif str(key) in fields and fields[str(key)] != value:
            fault = repeated_key(str(key))
        fields[str(key)] = value
    text.take("}")
    if fault is not None:
        yield line, fault, start
    elif not is_wrapper or columns & fields.keys():
        yield line, fields, start


class JsonText:
    """A window on JSON text: it holds the value being read and little more.

    ``offset`` is how many characters were read, ``value_start`` where the last value started.
    """

    def __init__(
        self, chunks: Iterator[bytes], limits: Limits, passed: list[str] | None = None
    ) -> None:
        """``passed`` is given every character that is read, in order."""
        self._chunks = chunks
        self._limits = limits
        # Bytes that are not UTF-8 become lone surrogates, so that only their row is lost.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._buffer = ""
        self._position = 0
        self._ended = False
        self._broken: SourceBreak | None = None
        self._has_escaped_bytes = False
        self._passed = passed
        self.line = 1
        self.offset = 0
        self.value_start = 0

    def peek(self) -> str:
        """The next character that is not space, or nothing at the end."""
        while True:
            self._move(_skip_space(self._buffer, self._position))
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._grow(1):
                if self._broken is not None:
                    raise SourceBreak(self._broken.message, self.line) from self._broken
                return ""

    def take(self, character: str) -> None:
        """Pass over ``character``, space before it included. Raises ``SourceBreak``."""
        found = self.peek()
        if found != character:
            if not found:
                raise SourceBreak(f"breaks off: {character!r} is missing at the end", self.line)
            raise SourceBreak(f"not JSON: {character!r} expected, {found!r} found", self.line)
        self._move(self._position + 1)

    def opens_list_of_objects(self) -> bool:
        """Whether what comes next is a list whose first item is an object."""
        if self.peek() != "[":
            return False
        skipped = 1
        while True:
            position = _skip_space(self._buffer, self._position + skipped)
            if position < len(self._buffer):
                return self._buffer[position] == "{"
            skipped = position - self._position
            if skipped > self._limits.max_line_bytes:
                raise SourceBreak(f"more than {skipped:,} spaces in a list", self.line)
            if not self._grow(1):
                return False

    def value(self) -> Numbered:
        """Any JSON value, with the line on which it begins."""
        if not self.peek():
            raise SourceBreak("breaks off: a value is missing at the end", self.line)
        line = self.line
        self.value_start = self.offset
        while True:
            try:
                value, end = _python_decoder.raw_decode(self._buffer, self._position)
            except RecursionError:
                raise SourceBreak("nested too deeply for any JSON reader", line) from None
            except ValueError as error:
                self._grow_or_fail(error, line)
                continue
            if end == len(self._buffer) and isinstance(value, int | float) and self._grow(1):
                continue  # the digits of a number may go on
            break
        value = _checked(value, self._buffer[self._position : end])
        raw_has_bad_bytes = self._has_escaped_bytes and _ESCAPED_BYTE.search(
            self._buffer, self._position, end
        )
        self._move(end)
        if raw_has_bad_bytes:
            return line, RowFault(RejectCode.INVALID_UTF8, "not UTF-8: save the file as UTF-8")
        return line, value

    def _grow_or_fail(self, error: ValueError, line: int) -> None:
        held = len(self._buffer) - self._position
        may_be_cut = isinstance(error, json.JSONDecodeError) and (
            error.msg.startswith("Unterminated string")
            or error.pos >= len(self._buffer) - _LONGEST_LITERAL
        )
        if may_be_cut and not self._ended:
            if held > self._limits.max_line_bytes:
                raise SourceBreak(
                    f"a JSON value of more than {self._limits.max_line_bytes:,} characters", line
                )
            # Doubling keeps the cost of parsing a long value again and again linear.
            if self._grow(max(held, 1)):
                return
        if may_be_cut and self._broken is not None:
            raise SourceBreak(self._broken.message, line) from self._broken
        if may_be_cut:
            raise SourceBreak("breaks off inside a JSON value", line)
        raise SourceBreak(f"not JSON: {_first_line(error)}", line)

    def _move(self, position: int) -> None:
        self.line += self._buffer.count("\n", self._position, position)
        if self._passed is not None:
            self._passed.append(self._buffer[self._position : position])
        self.offset += position - self._position
        self._position = position

    def _grow(self, characters: int) -> bool:
        """Read at least ``characters`` more, if there are any; tells whether there were."""
        if self._ended:
            return False
        parts = [self._buffer[self._position :]]
        grown = 0
        while grown < characters and not self._ended:
            try:
                chunk = next(self._chunks, b"")
            except SourceBreak as error:
                self._broken = error  # told once the text before it is used up
                chunk = b""
            part = self._decode(chunk, not chunk)
            self._ended = not chunk
            if not part.isascii() and _ESCAPED_BYTE.search(part):
                self._has_escaped_bytes = True
            parts.append(part)
            grown += len(part)
        self._buffer = "".join(parts)
        self._position = 0
        return grown > 0
