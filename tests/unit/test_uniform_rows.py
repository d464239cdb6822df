"""Blocks of plain rows are read at once, and exactly as one by one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.dataset import read, read_batches, uniform_rows
from audit.dataset.uniform_rows import UniformRows

PLAIN = {
    "prompt-completion": {"prompt": "p", "completion": "c"},
    "text": {"text": "t", "id": 7, "source": None, "score": 0.5, "kept": True},
    "alpaca": {"instruction": "i", "input": "", "output": "o", "system": "s"},
    "instruction-response": {"instruction": "i", "response": "r"},
    "question-answer": {"question": "q", "answer": "a"},
    "question-response": {"question": "q", "response": "r"},
    "messages": {
        "messages": [
            {"role": "System", "content": "s"},
            {"role": "user", "content": 'q "x": \\ '},
            {"role": "assistant", "content": "a"},
            {"role": "assistant", "content": ""},
        ]
    },
    "conversations": {
        "system": "s",
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    },
}

# Each is read by itself, among plain rows of text; what becomes of it the other tests say.
ODD = {
    "key twice": b'{"text": "a", "text": "b"}',
    "key twice, escaped": b'{"text": "a", "te\\u0078t": "b"}',
    "key twice and spaced": b'{"text" : "a", "text" : "b"}',
    "other key twice": b'{"text": "a", "id": 1, "id": 2}',
    "two rows": b'{"text": "a"}{"text": "b"}',
    "another column": b'{"text": "a", "messages": []}',
    "null": b'{"text": null}',
    "nothing trained": b'{"text": "  "}',
    "lone surrogate": b'{"text": "\\ud800"}',
    "NaN": b'{"text": "a", "id": NaN}',
    "nested": b'{"text": "a", "id": {"text": "b"}}',
    "no JSON": b'{"text": "a"',
    "blank": b"",
    "byte order mark": b'\xef\xbb\xbf{"text": "a"}',
    "not UTF-8": b'{"text": "\xff"}',
    "control character": b'{"text": "\x01"}',
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_plain_rows_are_read_at_once(name: str, separators: tuple[str, str]) -> None:
    line = json.dumps(PLAIN[name], separators=separators).encode()
    for end in (b"\n", b"\r\n"):
        texts = UniformRows().read(end.join([line] * 3))
        assert texts is not None
        assert (texts.schema, len(texts)) == (name, 3)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_rows_are_not(odd: bytes) -> None:
    plain = b'{"text": "a"}'
    rows = UniformRows()
    assert rows.read(plain) is not None
    for block in (odd, plain + b"\n" + odd, odd + b"\n" + plain):
        assert rows.read(block) is None


def test_a_row_over_two_lines_beside_two_on_one_is_not_taken() -> None:
    # As many lines as rows, and no line is a row.
    messages = b'{"messages": [\n{"role": "assistant", "content": "a"}]}'
    two = b'{"messages": [{"role": "assistant", "content": "b"}]}'
    rows = UniformRows()
    assert rows.read(two) is not None
    assert rows.read(messages + two + b"\n" + two) is None


text = st.text(st.sampled_from('ab "\\:{}[],\n\té\u2028\U0001f600')) | st.sampled_from(
    ['","text":"', '\\":', '"role":', " ", "a"]
)
values = st.one_of(text, st.none(), st.integers(), st.floats(), st.just({"text": "b"}))
role = st.sampled_from(["user", "assistant", " Assistant ", "stranger"])
rows = st.one_of(
    st.fixed_dictionaries({"prompt": text, "completion": text}),
    st.fixed_dictionaries({"text": text}, optional={"id": values, "label": values}),
    st.fixed_dictionaries({"instruction": text, "input": text, "output": values}),
    st.fixed_dictionaries(
        {"messages": st.lists(st.fixed_dictionaries({"role": role, "content": values}), max_size=3)}
    ),
)
lines = st.one_of(
    st.builds(
        lambda row, ascii_only, separators: json.dumps(
            row, ensure_ascii=ascii_only, separators=separators
        ).encode(),
        rows,
        st.booleans(),
        st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    ),
    st.sampled_from(list(ODD.values())),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    block=st.lists(lines, max_size=12) | lines.flatmap(lambda one: st.lists(st.just(one))),
    small_bytes=st.sampled_from([1, 60, 8192]),
    batch_rows=st.sampled_from([1, 3, 100]),
    terminated=st.booleans(),
)
def test_rows_are_those_of_reading_one_by_one(
    tmp_path: Path, block: list[bytes], small_bytes: int, batch_rows: int, terminated: bool
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(block) + b"\n" * terminated)

    def found() -> tuple[object, ...]:
        batches = list(read_batches([str(file)], batch_rows=batch_rows))
        return (
            [row for batch in batches for row in batch.rows.rows()],
            [batch.rejects for batch in batches],
            sum((batch.reject_counts for batch in batches), Counter()),
            batches[-1].broken,
            batches[-1].finished,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uniform_rows, "_SMALL_BYTES", small_bytes)
        at_once = found()
        patch.setattr(read, "UniformRows", lambda: None)
        one_by_one = found()
    assert at_once == one_by_one
