"""Every schema: what of a row is trained, untrained and pushed down, derived by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.dataset import SCHEMAS, RejectCode, read_batches
from audit.dataset.faults import RowFault
from audit.dataset.schema import RowReader
from audit.errors import UsageError

GOLDEN = Path(__file__).parents[1] / "golden" / "dataset"

Expected = tuple[str, str, str | None]
EXPECTED: dict[str, list[Expected]] = {
    "openai-chat": [
        (
            '[{"type":"function","function":{"name":"weather"}}]\n'
            "Be brief.\nWeather in Oslo?\nrain",
            'weather {"city": "Oslo"}\nIt rains.',
            None,
        ),
        ("Look\nhere\nNo.\nAgain", "Yes.", None),
        ("Think", "Hm.\nDone.\nI cannot.", None),
    ],
    "openai-preference": [("Number?", "12", "13"), ("Again?", "14", "15")],
    "prompt-completion": [("Continue: 1, 2", "3, 4", None), ("Hi\nHello\nNumber?", "7", None)],
    "text": [("", "All of this is trained.", None)],
    "preference": [
        ("Sky?", "blue", "green"),
        ("Sky?", "blue", "green"),
        ("Sky?", "blue", "green"),
        ("Human: Sky? Assistant: a", " cat", " cow"),
        ("Sky?", "blue", "green"),
        ("Sky?", "blue", "green"),
        ("Name it\nSky", "blue", "green"),
    ],
    "kto": [
        ("Sky?", "blue", None),
        ("Sky?", "", "green"),
        ("Sky?", "blue", None),
        ("Sky?", "", "green"),
        ("Sky?", "", "green"),
        ("Sky?", "blue", None),  # its label is neither true nor false: an extra column
    ],
    "stepwise": [("2+2+2?", "2+2=4", "4+2=7"), ("1+1?", "2", None)],
    "conversations": [
        (
            '[{"name": "clock"}]\nBe kind.\nTime?\nnoon',
            '{"name": "clock"}\nIt is noon.',
            None,
        ),
        ("S\nB", "A\nC", None),
        # Offsets 9 to 18, both included, of "I'm doing very well, thank you!".
        ("How are you?\nI'm doing\n, thank you!", " very well", None),
    ],
    "alpaca": [
        ("Be exact.\nHi\nReady?\nAdd\n1 and 2", "Hello\nYes\n3", None),
        ("Add 2 and 2", "4", None),
    ],
    "segments": [("Q: Sky?\nQ: Grass?", "blue\ngreen", None)],
    "instruction-response": [("Name a colour", "red", None)],
    "question-answer": [("1+1?", "2", None)],
    "question-response": [("1+1?", "2", None)],
    "tokens": [
        ("the sky", "is blue", None),
        # What is trained is the label, not the input at its place.
        ("[UNK]", "is\nblue", None),
        ("", "the blue", None),
    ],
}
SUMMARY = {
    "openai-chat": "messages",
    "kto": "kto, kto-messages, kto-conversations, kto-alpaca, prompt-completion",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_rows(name: str) -> None:
    (batch,) = read_batches([str(GOLDEN / f"{name}.jsonl")], tokenizer=str(GOLDEN))

    rows = list(batch.rows.select("prompt", "completion", "rejected").iter_rows())
    assert batch.rejects == ()
    assert rows == EXPECTED[name]
    assert batch.rows["line"].to_list() == list(range(1, len(rows) + 1))
    assert batch.finished is not None
    assert sorted(batch.finished.schema.split(", ")) == sorted(SUMMARY.get(name, name).split(", "))


def test_every_schema_has_a_golden_file() -> None:
    seen = {"prompt"}
    for file in GOLDEN.glob("*.jsonl"):
        for batch in read_batches([str(file)], tokenizer=str(GOLDEN)):
            assert batch.finished is not None
            seen.update(batch.finished.schema.split(", "))
    assert seen - {"unknown"} == {schema.name for schema in SCHEMAS}


@pytest.mark.parametrize("schema", [schema.name for schema in SCHEMAS])
def test_every_schema_can_be_named(schema: str) -> None:
    with pytest.raises(RowFault) as caught:
        RowReader(schema, None).read({"nothing": "known"})
    assert caught.value.code is RejectCode.SCHEMA_MISMATCH


def read(row: object, schema: str | None = None) -> tuple[str, str, str, str | None]:
    return RowReader(schema, None).read(row)


def test_a_named_schema_wins_over_the_order_of_detection() -> None:
    row = {"text": "all", "prompt": "p", "completion": "c"}
    assert read(row) == ("prompt-completion", "p", "c", None)
    assert read(row, "text") == ("text", "", "all", None)


def test_an_unknown_schema_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known are: openai-preference, preference"):
        read_batches([str(GOLDEN)], schema="sharegtp")


def test_null_columns_do_not_count() -> None:
    row = {"messages": None, "chosen": None, "text": "t", "label": None}
    assert read(row) == ("text", "", "t", None)


def test_a_file_of_several_schemas_is_read_row_by_row(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    file.write_text(
        '{"text": "a"}\n{"prompt": "p", "completion": "c"}\n{"weird": 1}\n{"text": "b"}\n'
    )
    (batch,) = read_batches([str(file)])
    assert batch.rows["completion"].to_list() == ["a", "c", "b"]
    assert dict(batch.reject_counts) == {"unknown_schema": 1}
    assert batch.finished is not None
    assert batch.finished.schema == "text, prompt-completion"


FAULTY: list[tuple[object, RejectCode]] = [
    ([1, 2], RejectCode.NOT_AN_OBJECT),
    ("text", RejectCode.NOT_AN_OBJECT),
    (None, RejectCode.NOT_AN_OBJECT),
    ({}, RejectCode.UNKNOWN_SCHEMA),
    ({"body": "x"}, RejectCode.UNKNOWN_SCHEMA),
    ({"prompt": "x"}, RejectCode.PROMPT_ONLY),
    ({"prompt": "x", "completion": ""}, RejectCode.NO_TRAINED_TEXT),
    ({"prompt": "x", "completion": "  \n"}, RejectCode.NO_TRAINED_TEXT),
    ({"messages": []}, RejectCode.NO_TRAINED_TEXT),
    ({"messages": [{"role": "user", "content": "x"}]}, RejectCode.NO_TRAINED_TEXT),
    ({"messages": "x"}, RejectCode.WRONG_TYPE),
    ({"messages": 3}, RejectCode.WRONG_TYPE),
    ({"messages": ["x"]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"content": "x"}]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"role": "assistant", "content": 3}]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"role": "assistant", "content": [3]}]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"role": "assistant", "content": "x", "weight": "x"}]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"role": "assistant", "content": "x", "train": 2}]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"role": "assistant", "tool_calls": "x"}]}, RejectCode.WRONG_TYPE),
    ({"messages": [{"role": "oracle", "content": "x"}]}, RejectCode.UNKNOWN_ROLE),
    ({"text": 3}, RejectCode.WRONG_TYPE),
    ({"text": b"\xff"}, RejectCode.INVALID_UTF8),
    ({"prompt": "x", "completion": 12}, RejectCode.WRONG_TYPE),
    ({"chosen": "x", "rejected": [{"role": "user", "content": "x"}]}, RejectCode.WRONG_TYPE),
    ({"completions": ["a"], "labels": [True, False]}, RejectCode.WRONG_TYPE),
    ({"completions": ["a"], "labels": ["maybe"]}, RejectCode.WRONG_TYPE),
    ({"segments": [{"text": "x"}]}, RejectCode.WRONG_TYPE),
    ({"instruction": "a", "output": "b", "history": [["x"]]}, RejectCode.WRONG_TYPE),
    ({"input_ids": [1], "labels": [1]}, RejectCode.NEEDS_TOKENIZER),
]


@pytest.mark.parametrize(("row", "code"), FAULTY)
def test_faulty_rows_have_stable_codes(row: object, code: RejectCode) -> None:
    with pytest.raises(RowFault) as caught:
        read(row)
    assert caught.value.code is code
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "row",
    [
        {"input_ids": [9], "labels": [9]},
        {"input_ids": [-1], "labels": [-1]},
        {"input_ids": [1, 2], "labels": [1]},
        {"input_ids": [1.5], "labels": None},
    ],
)
def test_faulty_token_rows(row: dict[str, object]) -> None:
    from audit.dataset.tokens import load_decoder

    reader = RowReader(None, load_decoder(str(GOLDEN / "tokenizer.json")))
    with pytest.raises(RowFault) as caught:
        reader.read(row)
    assert caught.value.code is RejectCode.BAD_TOKENS


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_missing_or_broken_tokenizer_is_a_usage_error(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UsageError, match="tokenizer"):
        read_batches([str(GOLDEN)], tokenizer=str(tmp_path))


def test_messages_stored_as_json_text_are_read() -> None:
    row = {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'}
    assert read(row) == ("messages", "q", "a", None)


def test_a_completion_that_looks_like_json_stays_text() -> None:
    row = {"prompt": "JSON!", "completion": '[{"role": "x"}]'}
    assert read(row) == ("prompt-completion", "JSON!", '[{"role": "x"}]', None)


def test_tool_call_arguments_may_be_objects() -> None:
    call = {"function": {"name": "f", "arguments": {"a": [1, None]}}}
    row = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    assert read(row) == ("messages", "", 'f {"a":[1,null]}', None)


def test_identical_preference_texts_do_not_lose_their_last_word() -> None:
    row = {"chosen": "one two", "rejected": "one two"}
    assert read(row) == ("preference", "one", " two", " two")


def test_lone_surrogates_become_replacement_characters() -> None:
    row = {"text": "a\ud800b\udfffc \ud83d\ude00"}
    # The pair is one character, as a JSON parser joins it; the lone ones cannot be stored.
    assert read(row)[2] == "a\ufffdb\ufffdc \U0001f600"
