"""Rows without loss: what says so in every schema, and what cannot say it."""

import json

import polars as pl
import pytest

from audit.errors import UsageError
from tests.sanitise_runs import GOLDEN, MODEL, read_rows, run, write_rows

ALL = "mask:share=1,by=random"

MESSAGES = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "1, 2"},
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "3, 4", "weight": 1},
    ]
}
CONVERSATIONS = {
    "conversations": [
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "1, 2"},
    ]
}
SEGMENTS = {"segments": [{"label": False, "text": "Q: "}, {"label": True, "text": "1, 2"}]}
TOKENS = {"input_ids": [0, 1, 2, 3], "labels": [-100, -100, 2, 3]}


def masked(tmp_path, row, *before):
    file = write_rows(tmp_path / "rows.jsonl", [row])
    output = tmp_path / "out.jsonl"
    result = run(
        file, output, *before, ALL, concepts=("owl",), tokenizer=str(GOLDEN / "tokenizer.json")
    )
    (new,) = read_rows(output)
    return new, result


@pytest.mark.parametrize(
    ("row", "column", "marks"),
    [
        (MESSAGES, "messages", [{}, {"weight": 0}, {}, {"weight": 0}]),
        (CONVERSATIONS, "conversations", [{}, {"train": False}]),
        (SEGMENTS, "segments", [{}, {"label": False}]),
    ],
)
def test_every_trained_text_is_marked_and_no_other(tmp_path, row, column, marks):
    new, result = masked(tmp_path, row)
    assert new == {
        column: [{**turn, **mark} for turn, mark in zip(row[column], marks, strict=True)]
    }
    assert result.stages[0].rows_masked == 1
    assert (result.tokens.before, result.tokens.kept) == (result.tokens.masked, 0)


def test_labels_of_tokens_are_ignored_ones(tmp_path):
    new, _ = masked(tmp_path, TOKENS)
    assert new == {"input_ids": [0, 1, 2, 3], "labels": [-100] * 4}


def test_what_was_edited_before_stays_edited(tmp_path):
    new, result = masked(tmp_path, MESSAGES, "replace:share=1,by=random,draw=uniform")
    assert [stage.rows_in for stage in result.stages] == [1, 1]
    for place in (1, 3):
        assert new["messages"][place]["weight"] == 0
        assert new["messages"][place]["content"] != MESSAGES["messages"][place]["content"]


def test_only_the_picked_rows_are_marked(tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [MESSAGES] * 9)
    output = tmp_path / "out.jsonl"
    result = run(file, output, "mask:share=0.34,by=random")
    lines = output.read_bytes().splitlines()
    old = file.read_bytes().splitlines()[0]
    assert result.stages[0].rows_masked == 3
    assert sum(line == old for line in lines) == 6
    assert sum(b'"weight": 0' in line for line in lines) == 3


def test_a_table_that_cannot_say_it_is_told_before_rows_are_scored(tmp_path):
    chat = pl.DataFrame([CONVERSATIONS])
    file = tmp_path / "rows.parquet"
    chat.write_parquet(file)
    calls = MODEL.calls
    with pytest.raises(UsageError, match="cannot say that a text is not trained") as error:
        run(file, tmp_path / "out.parquet", "mask:share=1", concepts=("owl",))
    assert "\n" not in str(error.value)
    assert MODEL.calls == calls
    # With the column there, it can.
    turns = [{**turn, "train": True} for turn in CONVERSATIONS["conversations"]]
    turns[0]["train"] = False
    pl.DataFrame([{"conversations": turns}]).write_parquet(file)
    run(file, tmp_path / "out.parquet", ALL)
    (row,) = pl.read_parquet(tmp_path / "out.parquet").to_dicts()
    assert [turn["train"] for turn in row["conversations"]] == [False, False]


def test_messages_in_a_cell_are_marked_in_their_json(tmp_path):
    file = tmp_path / "rows.csv"
    pl.DataFrame([{"messages": json.dumps(MESSAGES["messages"]), "id": 1}]).write_csv(file)
    run(file, tmp_path / "out.csv", ALL)
    (row,) = pl.read_csv(tmp_path / "out.csv").to_dicts()
    assert [turn.get("weight") for turn in json.loads(row["messages"])] == [None, 0, None, 0]
