"""Turns of rows: every text in its order with its place, and rows rewritten through the places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from audit.dataset.edits import with_texts
from audit.dataset.faults import RowFault
from audit.dataset.passages import Place, Turn
from audit.dataset.placed import IN_JSON, Placed, place_of
from audit.dataset.row_text import Row
from audit.dataset.schema import RowReader
from audit.dataset.tokens import load_decoder

GOLDEN = Path(__file__).parents[1] / "golden" / "dataset"
GOLDEN_ROWS: list[Row] = [
    json.loads(line)
    for file in sorted(GOLDEN.glob("*.jsonl"))
    for line in file.read_text().splitlines()
]
# What a row with this shape holds as JSON text, as in a cell of a table.
PACKED = ("messages", "conversations", "segments", "history", "completions", "labels", "input")


def reader() -> RowReader:
    return RowReader(None, load_decoder(str(GOLDEN / "tokenizer.json")))


def text_at(row: object, place: Place) -> str:
    """The text at ``place``, found by nothing but its definition."""
    value = row
    steps = list(place)
    while steps:
        step = steps.pop(0)
        if isinstance(value, str):
            if step == IN_JSON:
                value = json.loads(value)
            else:
                value = value[cast(int, step) : cast(int, steps.pop(0))]
        else:
            value = value[step]  # type: ignore[index]
    assert isinstance(value, str)
    return value


def packed(row: Row) -> Row:
    return {
        name: json.dumps(value, indent=1)
        if name in PACKED and isinstance(value, list | dict)
        else value
        for name, value in row.items()
    }


def readable(rows: list[Row]) -> list[Row]:
    found = []
    for row in rows:
        try:
            reader().read(row)
        except RowFault:
            continue
        found.append(row)
    return found


ROWS = readable(GOLDEN_ROWS + [packed(row) for row in GOLDEN_ROWS])


def test_most_golden_rows_are_readable() -> None:
    # All but the one that is a prompt alone.
    assert len(ROWS) == 2 * len(GOLDEN_ROWS) - 2


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_turns_are_what_is_read(row: Row) -> None:
    turns = reader().turns(row)
    assert (turns.schema, turns.prompt, turns.completion, turns.rejected) == reader().read(row)
    assert "\n".join(t.text for t in turns.turns if t.trained) == turns.completion
    assert "\n".join(t.text for t in turns.turns if not t.trained) == turns.prompt
    assert all(type(turn.text) is str for turn in turns.turns)
    for turn in turns.turns:
        if turn.place is not None:
            assert text_at(row, turn.place) == turn.text


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_trained_texts_can_be_replaced(row: Row) -> None:
    before = json.dumps(row)
    turns = reader().turns(row)
    texts: dict[Place, str] = {}
    expected = []
    for i, turn in enumerate(turns.turns):
        if turn.trained and turn.place is not None:
            # The space before a word belongs to it where the prompt is implicit.
            text = turn.text[: len(turn.text) - len(turn.text.lstrip())] + f"nëw {i}" * (i + 1)
            texts[turn.place] = text
            expected.append(text)
        elif turn.trained:
            expected.append(turn.text)
    edited = with_texts(row, texts)
    after = reader().read(edited)
    assert after[2] == "\n".join(expected)
    assert (after[0], after[1], after[3]) == (turns.schema, turns.prompt, turns.rejected)
    assert list(edited) == list(row)
    assert json.dumps(row) == before
    # Everything comes back when the old texts are put back.
    back = {
        turn.place: turn.text for turn in turns.turns if turn.trained and turn.place is not None
    }
    again = reader().turns(edited).turns
    restored = with_texts(
        edited,
        {
            new.place: old.text
            for new, old in zip(again, turns.turns, strict=True)
            if new.place is not None and old.place in back
        },
    )
    assert json.dumps(restored) == before


def turns_of(row: Row) -> tuple[Turn, ...]:
    return RowReader(None, None).turns(row).turns


def test_a_chat_in_its_order() -> None:
    row: Row = {
        "tools": [{"name": "clock"}],
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
            {"role": "assistant", "content": "x", "weight": 0},
            {"role": "tool", "content": "t"},
            {"role": "assistant", "reasoning": "hm", "content": "y", "tool_calls": [{"name": "f"}]},
        ],
    }
    assert turns_of(row) == (
        Turn("system", '[{"name":"clock"}]', False, None),
        Turn("system", "S", False, ("messages", 0, "content")),
        Turn("user", "a", False, ("messages", 1, "content", 0, "text")),
        Turn("user", "b", False, ("messages", 1, "content", 1, "text")),
        Turn("assistant", "x", False, ("messages", 2, "content")),
        Turn("user", "t", False, ("messages", 3, "content")),
        Turn("assistant", "hm", True, ("messages", 4, "reasoning")),
        Turn("assistant", "y", True, ("messages", 4, "content")),
        Turn("assistant", "f", True, None),
    )


def test_alpaca_in_its_order() -> None:
    row: Row = {
        "instruction": "i",
        "input": "n",
        "output": "o",
        "system": "s",
        "history": [["q", "a"]],
    }
    assert turns_of(row) == (
        Turn("system", "s", False, ("system",)),
        Turn("user", "q", False, ("history", 0, 0)),
        Turn("assistant", "a", True, ("history", 0, 1)),
        Turn("user", "i", False, ("instruction",)),
        Turn("user", "n", False, ("input",)),
        Turn("assistant", "o", True, ("output",)),
    )


def test_an_implicit_prompt_is_a_stretch_of_the_text() -> None:
    row: Row = {"chosen": "Q: sky A: a cat", "rejected": "Q: sky A: a cow"}
    assert turns_of(row) == (
        Turn("user", "Q: sky A: a", False, ("chosen", 0, 11)),
        Turn("assistant", " cat", True, ("chosen", 11, 15)),
    )
    assert with_texts(row, {("chosen", 11, 15): " dog", ("chosen", 0, 1): "Question"}) == {
        "chosen": "Question: sky A: a dog",
        "rejected": "Q: sky A: a cow",
    }


def test_text_pushed_down_is_no_turn() -> None:
    row: Row = {"prompt": "p", "completion": "c", "label": False}
    turns = RowReader(None, None).turns(row)
    assert turns.rejected == "c"
    assert turns.turns == (Turn("user", "p", False, ("prompt",)),)


def test_messages_in_a_cell() -> None:
    cell = '[ {"role":"user", "content":"q"},\n {"role":"assistant", "content":"a", "n":1.50} ]'
    row: Row = {"messages": cell, "id": "7"}
    place = ("messages", IN_JSON, 1, "content")
    assert turns_of(row)[1] == Turn("assistant", "a", True, place)
    # The layout and the number stay as they were written.
    assert with_texts(row, {place: 'b"'}) == {
        "messages": cell.replace('"a"', r'"b\""'),
        "id": "7",
    }


def test_lone_surrogates_stay_in_turns() -> None:
    turns = RowReader(None, None).turns({"text": "a\ud800b"})
    assert turns.completion == "a\ufffdb"
    assert turns.turns == (Turn("assistant", "a\ud800b", True, ("text",)),)


def test_bytes_and_tokens_have_no_place() -> None:
    assert turns_of({"text": "ü".encode()}) == (Turn("assistant", "ü", True, None),)
    row: Row = {"input_ids": [0, 1, 2, 3], "labels": [-100, -100, 2, 3]}
    assert reader().turns(row).turns == (
        Turn("user", "the sky", False, None),
        Turn("assistant", "is blue", True, None),
    )


def test_a_row_nested_as_deeply_as_parsers_go_is_read() -> None:
    deep: object = "x"
    for _ in range(900):
        deep = [deep]
    row: Row = {"prompt": "p", "completion": "c", "text": deep}
    assert [turn.text for turn in turns_of(row)] == ["p", "c"]


@pytest.mark.parametrize("row", [[1], {"messages": "x"}, {"body": "x"}, {"prompt": "p"}])
def test_faults_are_those_of_reading(row: object) -> None:
    with pytest.raises(RowFault) as read:
        RowReader(None, None).read(row)
    with pytest.raises(RowFault) as turned:
        RowReader(None, None).turns(row)
    assert (read.value.code, read.value.message) == (turned.value.code, turned.value.message)


def test_stretches_of_stretches() -> None:
    text = Placed("abcdef", ("text",))
    assert place_of(text) == ("text",)
    assert place_of(text[:]) == ("text",)
    assert place_of(text[1:][1:3]) == ("text", 2, 4)
    assert text[1:][1:3] == "cd"
    assert place_of(text[::2]) is None
    assert place_of(text[0]) is None
    assert place_of(text.upper()) is None
