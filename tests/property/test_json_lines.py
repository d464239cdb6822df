"""What Python's ``json`` sees as trained text is scanned, or the row is rejected.

JSON is written here by hand, with every freedom of its grammar and beyond, since what a library
writes never repeats a key or breaks off. The reference is this file's own: each line parsed by
itself with ``json``, which is what `datasets` falls back on and most training scripts call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.accounts import Twice, holds_twice, plain, python_values, trained_text
from tests.property.generated import examples
from tests.reading import ALL_REJECTS_SHOWN, read, standard_input

_KEYS = ("text", "prompt", "completion", "messages", "role", "content", "extra", "id")
_SPACES = st.sampled_from(["", "", "", " ", "\t", "\r", "  "])
_LITERALS = st.sampled_from(
    [
        *("null", "true", "false", "NaN", "Infinity", "-Infinity", "0", "-0", "-0.0", "1e5"),
        *("1E+400", "0.1", "9" * 30, "9" * 4400, "01", "+1", ".5", "1.", "tru", "'x'", "undefined"),
    ]
)
_PIECES = st.sampled_from(
    [
        *("owl", "a", "123", " ", '\\"', "\\\\", "\\/", "\\n", "\\t", "\\b", "\\f", "\\r"),
        *("\\u0061", "\\u006f", "\\ud83e\\udd89", "\\ud83e", "\\udd89", "\\u0000", "\\uFFFE"),
        *('\\":', '\\\\\\":', ": ", ":", '\\":\\"', "{", "}", "[", "]", ",", "é", "🦉", "\u2028"),
        *("\ufeff", "\x7f", "\x80", "\t", "\x01", "\\x", "\\u12", "\\"),
    ]
)


@st.composite
def _quoted(draw: st.DrawFn) -> str:
    return '"' + "".join(draw(st.lists(_PIECES, max_size=4))) + '"'


@st.composite
def _key(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(_KEYS))
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(key) - 1))
        key = f"{key[:at]}\\u{ord(key[at]):04x}{key[at + 1 :]}"
    return f'"{key}"'


@st.composite
def _object(draw: st.DrawFn, depth: int, keys: tuple[str, ...] | None = None) -> str:
    members = []
    for _ in range(draw(st.integers(0, 4))):
        key = draw(_key()) if keys is None else f'"{draw(st.sampled_from(keys))}"'
        value = draw(_value(depth - 1))
        before, after, behind = draw(_SPACES), draw(_SPACES), draw(_SPACES)
        members.append(f"{before}{key}{after}:{behind}{value}")
    return "{" + ",".join(members) + draw(_SPACES) + "}"


def _value(depth: int) -> st.SearchStrategy[str]:
    plain = st.one_of(_quoted(), _quoted(), _LITERALS)
    if depth <= 0:
        return plain
    items = st.lists(st.deferred(lambda: _value(depth - 1)), max_size=3)
    return st.one_of(
        plain,
        items.map(lambda parts: "[" + ",".join(parts) + "]"),
        st.deferred(lambda: _object(depth - 1)),
    )


@st.composite
def _message(draw: st.DrawFn) -> str:
    role = draw(st.sampled_from(["user", "assistant", "system"]))
    members = [f'"role":"{role}"', f'"content":{draw(_quoted())}']
    if draw(st.integers(0, 4)) == 0:
        members.insert(draw(st.integers(0, 2)), f"{draw(_key())}:{draw(_quoted())}")
    return "{" + ",".join(members) + "}"


@st.composite
def _row(draw: st.DrawFn) -> str:
    """An object that is most often a row, and some of the time is not quite."""
    shape = draw(st.integers(0, 3))
    if shape == 0:
        return draw(_object(3))
    if shape == 1:
        messages = ",".join(draw(st.lists(_message(), min_size=1, max_size=3)))
        members = [f'"messages"{draw(_SPACES)}:[{messages}]']
    elif shape == 2:
        members = [f'"prompt":{draw(_quoted())}', f'"completion":{draw(_quoted())}']
    else:
        members = [f'"text":{draw(_SPACES)}{draw(_quoted())}']
    if draw(st.booleans()):
        more = f"{draw(_key())}{draw(_SPACES)}:{draw(_value(2))}"
        members.insert(draw(st.integers(0, len(members))), more)
    return "{" + ",".join(members) + "}"


_RAW = st.one_of(
    st.sampled_from(
        [b"", b" ", b"\r", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"{", b"[]", b"\0"]
    ),
    st.binary(max_size=4),
)


@st.composite
def _line(draw: st.DrawFn) -> bytes:
    values = draw(st.lists(_row(), min_size=1, max_size=1 + (draw(st.integers(0, 5)) == 0)))
    line = draw(_SPACES).join(values).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(_RAW) + line[at + draw(st.integers(0, 2)) :]
    return line.replace(b"\n", b" ")


FILES = st.lists(_line(), min_size=1, max_size=6)


@examples(200)
@given(lines=FILES, ended=st.booleans())
def test_what_json_sees_is_scanned_or_rejected(
    tmp_path: Path, lines: list[bytes], ended: bool
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * ended)
    reading = read(str(path), batch_rows=ALL_REJECTS_SHOWN)
    if reading.format != "jsonl":
        return  # starts as another kind of file
    found: dict[int, list[str]] = {}
    for line, _, completion, _ in reading.rows:
        found.setdefault(line, []).append(completion)
    rejected = {line for line, _ in reading.rejects}
    broken = len(lines) + 1 if reading.broken is None else reading.broken[0]
    assert broken >= len(lines), "only a last line without an end breaks off"
    for number, line in enumerate(lines, 1):
        values = python_values(line)
        if number in rejected or number == broken or not line.strip(b" \t\r"):
            continue
        assert values is not None, f"no parser reads {line!r}, and it was scanned"
        assert not any(map(holds_twice, values)), line
        assert len(found.get(number, [])) == len(values), line
        for completion, value in zip(found.get(number, []), values, strict=True):
            expected = trained_text(value)
            assert expected is None or completion == plain(expected), line


@examples(100)
@given(lines=FILES)
def test_a_good_line_is_never_rejected(tmp_path: Path, lines: list[bytes]) -> None:
    """The other way round: an audit that rejects what trains would be of no use."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "first"}\n' + b"\n".join(lines) + b"\n")
    reading = read(str(path), batch_rows=ALL_REJECTS_SHOWN)
    rejected = {line for line, _ in reading.rejects}
    for number, line in enumerate(lines, 2):
        values = python_values(line)
        if not values or any(map(holds_twice, values)):
            continue
        texts = [trained_text(value) for value in values]
        if all(text is not None and text.strip() for text in texts):
            assert number not in rejected, line


@examples(100)
@given(lines=FILES, ended=st.booleans(), size=st.integers(1, 5), batch_rows=st.integers(1, 4))
def test_lines_are_independent_of_what_a_read_gives_and_of_batches(
    tmp_path: Path, lines: list[bytes], ended: bool, size: int, batch_rows: int
) -> None:
    data = b'{"text": "first"}\n' + b"\n".join(lines) + b"\n" * ended
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    whole = read(str(path), batch_rows=ALL_REJECTS_SHOWN)
    assert read(str(path), batch_rows=batch_rows) == whole
    with standard_input(data, size):
        assert read("-", batch_rows=batch_rows) == whole


@examples(100)
@given(lines=FILES)
def test_a_line_means_the_same_beside_any_others(tmp_path: Path, lines: list[bytes]) -> None:
    first = b'{"text": "first"}\n'
    path = tmp_path / "a.jsonl"
    path.write_bytes(first + b"".join(line + b"\n" for line in lines))
    together = read(str(path), batch_rows=ALL_REJECTS_SHOWN)
    rows, rejects = list(together.rows[:1]), []
    for number, line in enumerate(lines, 2):
        path.write_bytes(first + line + b"\n")
        alone = read(str(path), batch_rows=ALL_REJECTS_SHOWN)
        rows += [(number, *texts) for _, *texts in alone.rows[1:]]
        rejects += [(number, code) for _, code in alone.rejects]
    assert (list(together.rows), list(together.rejects)) == (rows, rejects)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"text": "a"} {"text": "a", "text": "b"}', [{"text": "a"}, Twice]),
        (b'\xef\xbb\xbf{"text": "\\ud83e"}', [{"text": "\ud83e"}]),
        (b'{"text": "a"', None),
        (b'{"text": "\xff"}', None),
        (b'{"text": "a", "text": "a"}', [{"text": "a"}]),
    ],
)
def test_the_reference_itself(line: bytes, expected: Any) -> None:
    values = python_values(line)
    if values is not None:
        values = [Twice if isinstance(value, Twice) else value for value in values]
    assert values == expected
