"""Copies of rows with other texts or without loss, and JSON text that is changed in place."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.dataset.edits import with_texts, without_loss
from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.json_edit import edited_json, same
from audit.dataset.passages import Place
from audit.dataset.row_text import Row
from audit.dataset.schema import RowReader
from audit.dataset.tokens import load_decoder

GOLDEN = Path(__file__).parents[1] / "golden" / "dataset"


def test_several_stretches_of_one_text() -> None:
    row: Row = {"text": "one two three", "id": 1}
    # The places are those of the old text, in whatever order they come.
    edits: dict[Place, str] = {("text", 8, 13): "3", ("text", 0, 3): "first", ("text", 4, 4): "+"}
    assert with_texts(row, edits) == {"text": "first +two 3", "id": 1}
    assert row == {"text": "one two three", "id": 1}


@pytest.mark.parametrize(
    "texts",
    [
        {("text", 0, 5): "", ("text", 4, 6): ""},
        {("text", 0, 50): ""},
        {("text", 5, 2): ""},
        {("text",): "", ("text", 0, 1): ""},
        {("list", "json", 0): "", ("list", 0, 1): ""},
        {("other",): ""},
        {("items", 7): ""},
        {("items",): ""},
        {("number",): ""},
        {(): ""},
    ],
)
def test_places_that_are_not_there(texts: dict[Place, str]) -> None:
    row: Row = {"text": "0123456789", "items": ["a"], "number": 3, "list": '["x"]'}
    with pytest.raises(ValueError, match=r"text|key|item"):
        with_texts(row, texts)


def test_train_detail_moves_with_its_text() -> None:
    said = "How are you? Fine."
    message: Row = {
        "from": "gpt",
        "value": said,
        "train_detail": [
            {"begin_offset": 0, "end_offset": 11, "train": False},
            {"begin_offset": 12, "end_offset": 15, "train": True},
            {"begin_offset": 16, "end_offset": 17, "train": True},
        ],
    }
    row: Row = {"conversations": [message]}
    turns = RowReader(None, None).turns(row).turns
    assert [(turn.text, turn.trained) for turn in turns] == [
        ("How are you?", False),
        (" Fine.", True),
    ]
    place = turns[1].place
    assert place == ("conversations", 0, "value", 12, 18)
    edited = with_texts(row, {place: " Very well indeed."})
    assert RowReader(None, None).read(edited)[2] == " Very well indeed."
    # Of a longer prompt, the trained text only moves.
    longer = with_texts(row, {("conversations", 0, "value", 0, 3): "Whatever"})
    assert RowReader(None, None).read(longer)[1:3] == ("Whatever are you?", " Fine.")


SILENT: list[tuple[Row, Row]] = [
    (
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
                {"role": "assistant", "content": "b", "weight": 0.5},
                {"role": "assistant", "content": "c", "weight": 0},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a", "weight": 0},
                {"role": "assistant", "content": "b", "weight": 0},
                {"role": "assistant", "content": "c", "weight": 0},
            ]
        },
    ),
    (
        {
            "conversations": [
                {"from": "human", "value": "q", "train": "true"},
                {"from": "gpt", "value": "a"},
                {"from": "gpt", "value": "b", "train": False},
                {"from": "gpt", "value": "c", "train": None},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "q", "train": "false"},
                {"from": "gpt", "value": "a", "train": False},
                {"from": "gpt", "value": "b", "train": False},
                {"from": "gpt", "value": "c", "train": False},
            ]
        },
    ),
    (
        {"segments": [{"label": 1, "text": "a"}, {"label": False, "text": "b"}]},
        {"segments": [{"label": 0, "text": "a"}, {"label": False, "text": "b"}]},
    ),
    ({"input_ids": [1, 2]}, {"input_ids": [1, 2], "labels": [-100, -100]}),
    (
        {"labels": [1, 2], "input_ids": [1, 2], "x": 1},
        {"labels": [-100, -100], "input_ids": [1, 2], "x": 1},
    ),
    ({"input_ids": "[1, 2]"}, {"input_ids": "[1, 2]", "labels": "[-100, -100]"}),
    (
        {"messages": '[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]'},
        {
            "messages": '[{"role":"user","content":"q"},'
            '{"role":"assistant","content":"a","weight":0}]'
        },
    ),
]


def token_reader() -> RowReader:
    return RowReader(None, load_decoder(str(GOLDEN / "tokenizer.json")))


@pytest.mark.parametrize(("row", "expected"), SILENT, ids=str)
def test_rows_without_loss(row: Row, expected: Row) -> None:
    before = copy.deepcopy(row)
    silent = without_loss(row, token_reader().read(row)[0])
    assert silent == expected
    assert row == before
    assert list(silent or {}) == list(expected)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.jsonl")), ids=lambda file: str(file.stem))
def test_golden_rows_without_loss_have_no_trained_text(file: Path) -> None:
    for line in file.read_text().splitlines():
        row = json.loads(line)
        try:
            schema = token_reader().read(row)[0]
        except RowFault:
            continue
        silent = without_loss(row, schema)
        assert (silent is None) == (
            schema not in ("messages", "conversations", "segments", "tokens")
        )
        if silent is not None:
            with pytest.raises(RowFault) as caught:
                token_reader().read(silent)
            assert caught.value.code is RejectCode.NO_TRAINED_TEXT


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        # Numbers, escapes, space and the order of keys stay as they are written.
        (
            '{"a" : 1.50,"b":"\\u00e9\\/", "c":[1E3 , NaN]}',
            {"a": 1.5, "b": "x", "c": [1000.0, math.nan]},
            '{"a" : 1.50,"b":"x", "c":[1E3 , NaN]}',
        ),
        # 18 digits more than a float holds.
        (
            '{"n":123456789012345678901234567890,"t":"a"}',
            {"n": 123456789012345678901234567890, "t": "b"},
            '{"n":123456789012345678901234567890,"t":"b"}',
        ),
        # 1, 1.0 and true are equal in Python and three things in JSON.
        ("[1, 1.0, true, 1]", [True, 1, 1.0, 1], "[true, 1, 1.0, 1]"),
        # Of duplicate keys, only the last is left: with two values no row can be read.
        ('{"t": "old", "t": "old", "u": 1}', {"t": "new", "u": 1}, '{"t": "new", "u": 1}'),
        ('{"t": 2, "t": 2}', {"t": 2, "v": 3}, '{"t": 2, "v": 3}'),
        # Keys that are added are written as the others are.
        ('{\n  "a": 1\n}', {"a": 1, "b": [2, 3]}, '{\n  "a": 1,\n  "b": [2, 3]\n}'),
        ('{"a":1,"b":{"c":2}}', {"a": 1, "b": {"c": 2, "d": 0}}, '{"a":1,"b":{"c":2,"d":0}}'),
        ('{"a": 1, "b": 2}', {"b": 2}, '{"b": 2}'),
        ('{"a": 1, "b": 2}', {"b": 2, "a": 1}, '{"b": 2, "a": 1}'),
        ('{"a": 1}', {}, "{}"),
        ("{}", {"a": "b"}, '{"a": "b"}'),
        ("[\n 1,\n 2\n]", [1, 2, 3], "[\n 1,\n 2,\n 3\n]"),
        ("[1, 2]", [1], "[1]"),
        ("[1, 2]", [], "[]"),
        ('{"a:b,c" :[]}', {"a:b,c": [1, 2]}, '{"a:b,c" :[1,2]}'),
        # ASCII stays ASCII, and other text is written as it is.
        ('{"t": "a"}', {"t": "é"}, '{"t": "\\u00e9"}'),
        ('{"t": "ü"}', {"t": "é\ud800"}, '{"t": "é\\ud800"}'),
        ('"a"', "b", '"b"'),
    ],
)
def test_json_text_is_changed_in_place(source: str, value: object, expected: str) -> None:
    assert edited_json(source, value) == expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_infinity=False)
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    old=JSON,
    new=JSON,
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    separators=st.sampled_from([None, (",", ":"), (" , ", " : ")]),
)
def test_edited_json_reads_as_the_new_value(
    old: object,
    new: object,
    indent: int | None,
    ascii_only: bool,
    separators: tuple[str, str] | None,
) -> None:
    for before, after in ((old, new), ({"k": [old], "l": 1}, {"k": [old, new], "m": new})):
        source = json.dumps(
            before, indent=indent, ensure_ascii=ascii_only, separators=separators
        ).encode("utf-8", "replace")
        edited = edited_json(source.decode(), after)
        assert same(json.loads(edited), after)
        edited.encode()
        assert edited_json(edited, after) == edited


def test_json_nested_as_deeply_as_parsers_go_is_written_anew() -> None:
    source = '{"t": "a", "deep": ' + "[" * 600 + "]" * 600 + "}"
    row = json.loads(source)
    assert json.loads(edited_json(source, {**row, "t": "b"})) == {**row, "t": "b"}
