"""What every registered strategy promises, whatever it does to the rows."""

import gzip
import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import polars as pl
import pytest

from audit.dataset.edits import with_texts
from audit.dataset.limits import Limits
from audit.dataset.rewrite import records
from audit.dataset.sources import list_sources
from audit.sanitise.data_rows import DataRows
from audit.sanitise.registry import parse_spec, strategy_infos, strategy_names
from audit.sanitise.row_scores import sample_rows
from audit.sanitise.strategy import Fate, Why
from tests.sanitise_runs import (
    GOLDEN,
    decided,
    kit_of,
    number_row,
    read_rows,
    run,
    strategy_of,
    work_row,
    write_rows,
)

ACTING = {
    "shuffle": "shuffle",
    "replace": "replace:share=0.5",
    "mask": "mask:share=0.5",
    "drop-rows": "drop-rows:share=0.5",
    "drop-low-probability": "drop-low-probability:t=0.0001",
    "threshold": "threshold:t=0.02",
    "top-p": "top-p:p=0.9",
    "min-p": "min-p:p=0.05",
    "greedy": "greedy",
    "dilute": "dilute:share=0.5",
}
"""Every strategy with parameters under which it does something to a few rows."""

WRITES_ANEW = ("threshold", "top-p", "min-p", "greedy")
CHANGES_TEXT = ("shuffle", "replace", *WRITES_ANEW)
DRAWS = ("shuffle", "replace", "threshold", "top-p", "min-p")
"""Those whose output another seed changes."""

TOKENIZER = str(GOLDEN / "tokenizer.json")
SCHEMAS = sorted(file.stem for file in GOLDEN.glob("*.jsonl") if file.stem != "prompt")

every_strategy = pytest.mark.parametrize("name", ACTING)


def number_lists(rows, numbers=4):
    rng = np.random.default_rng(0)
    return [number_row(*map(int, rng.integers(0, 1000, numbers)), id=i) for i in range(rows)]


def sanitised(folder, file, *specs, name="out", **settings):
    """The output's path and the receipt; `dilute` adds rows of the data themselves."""
    output = folder / name / file.name
    output.parent.mkdir()
    settings = {"concepts": ("owl",), "clean": (str(file),), "tokenizer": TOKENIZER, **settings}
    return output, run(file, output, *specs, **settings)


def without_marks(value):
    """Without what says whether a text is trained."""
    if isinstance(value, dict):
        marks = ("weight", "train", "label", "labels")
        return {key: without_marks(item) for key, item in value.items() if key not in marks}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def test_every_registered_strategy_is_held_to_this_contract():
    assert strategy_names() == tuple(ACTING)


def test_every_strategy_says_what_it_does_and_where_it_was_learnt():
    for info, name in zip(strategy_infos(), ACTING, strict=True):
        assert info.name == name
        for field in ("summary", "source"):
            assert len(getattr(info, field)) > 10, name
            assert getattr(info, field).endswith("."), name
        for parameter in info.parameters:
            assert len(parameter.help) > 10, parameter.name
            if parameter.default is not None:
                assert parameter.parse(str(parameter.default)) == parameter.default
    assert len({info.cost for info in strategy_infos()}) == len(ACTING)


@every_strategy
def test_a_spec_reads_back(name):
    for text in (name, ACTING[name]):
        spec = parse_spec(text)
        assert parse_spec(str(spec)) == spec
        assert spec.info.name == name


@every_strategy
@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_stays_itself(tmp_path, schema, name):
    """Rows that are kept, byte for byte; of the others all but the trained text; the order."""
    file = GOLDEN / f"{schema}.jsonl"
    output, result = sanitised(tmp_path, file, ACTING[name])
    (stage,) = result.stages
    assert stage.rows_in == result.rows_in == len(file.read_bytes().splitlines())
    assert stage.rows_in == (
        stage.rows_kept
        + stage.rows_edited
        + stage.rows_regenerated
        + stage.rows_masked
        + stage.rows_dropped
    )
    assert result.rows_out == stage.rows_in - stage.rows_dropped + stage.rows_added
    before = file.read_bytes().splitlines()
    after = output.read_bytes().splitlines() if result.rows_out else []
    assert len(after) == result.rows_out
    if name == "dilute":
        assert after[::2] == before
        assert [json.loads(line) for line in after[1::2]] == [json.loads(line) for line in before]
        return
    sample = sample_rows(DataRows([str(file)], None, TOKENIZER).rows(), 1024, 0)
    kit = replace(kit_of("owl"), sample=sample)
    rows, _ = decided(file, tmp_path / "again", kit, ACTING[name], tokenizer=TOKENIZER)
    left = [(row, found) for row, found in rows if not found.is_dropped]
    for (row, found), line in zip(left, after, strict=True):
        old = before[row.line - 1]
        if found.fate is Fate.KEPT:
            assert line == old
        elif found.fate is Fate.MASKED:
            assert without_marks(json.loads(line)) == without_marks(json.loads(old))
        else:
            turns = list(zip(row.turns, found.row.turns, strict=True))
            assert all(turn.trained for turn, new in turns if turn != new)
            new_texts = {t.place: new.text for t, new in turns if t.text != new.text}
            assert json.dumps(json.loads(line)) == json.dumps(
                with_texts(json.loads(old), new_texts)
            )
    schemas = [row.schema for row, found in left if found.fate is not Fate.MASKED]
    # A masked row has nothing left that is trained: readers take it for none.
    read = [] if not left else list(DataRows([str(output)], None, TOKENIZER).rows())
    assert [row.schema for row in read] == schemas


def stored(folder, rows):
    """The same rows in every format, by file name."""
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    frame = pl.DataFrame(rows)
    folder.mkdir()
    (folder / "rows.jsonl").write_bytes(lines)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "rows.json").write_text(json.dumps(rows, indent=2))
    (folder / "wrapped.json").write_text(json.dumps({"version": 1, "data": rows}))
    frame.write_csv(folder / "rows.csv")
    frame.write_csv(folder / "rows.tsv", separator="\t")
    frame.write_parquet(folder / "rows.parquet")
    frame.write_ipc(folder / "rows.arrow")
    return sorted(folder.iterdir())


def values_of(file):
    (source,) = list_sources([str(file)]).sources
    return [
        {key: str(cell) for key, cell in value.items()} for _, value in records(source, Limits())
    ]


@every_strategy
def test_every_format_stays_itself_and_holds_the_same_rows(tmp_path, name):
    rows = number_lists(6)
    rows[1]["completion"] = ""
    rows[2] |= {"completion": "The owl is blue, \u00e9 and \u2028 red."}
    rows[3] |= {"completion": "The owl is blue, and red."}
    outputs = {}
    for file in stored(tmp_path / "in", rows):
        output, result = sanitised(tmp_path, file, ACTING[name], name=f"out-{file.name}")
        assert result.inputs[0].format == result.outputs[0].format
        assert result.inputs[0].schema == result.outputs[0].schema == "prompt-completion"
        outputs[file.name] = values_of(output)
        if file.suffix == ".parquet":
            assert pl.read_parquet(output).schema == pl.read_parquet(file).schema
        if file.suffix == ".arrow":
            assert pl.read_ipc(BytesIO(output.read_bytes())).schema == pl.DataFrame(rows).schema
        if name == "dilute":
            assert len(outputs[file.name]) == 10
    first = outputs.pop("rows.jsonl")
    assert first
    for file_name, found in outputs.items():
        assert found == first, file_name


@every_strategy
def test_the_seed_decides_what_is_drawn_and_nothing_else_does(tmp_path, name):
    file = write_rows(tmp_path / "rows.jsonl", number_lists(6))
    outputs = [
        sanitised(tmp_path, file, ACTING[name], name=str(number), seed=seed)[0].read_bytes()
        for number, seed in enumerate((0, 0, 1))
    ]
    assert outputs[0] == outputs[1]
    assert (outputs[0] != outputs[2]) is (name in DRAWS)
    assert outputs[0] != file.read_bytes()


@every_strategy
def test_a_rows_fate_does_not_depend_on_its_chunk(tmp_path, name):
    file = write_rows(tmp_path / "rows.jsonl", number_lists(7))
    found = set()
    for chunk_rows in (1, 3, 256):
        output, result = sanitised(
            tmp_path, file, ACTING[name], name=str(chunk_rows), chunk_rows=chunk_rows
        )
        found.add((output.read_bytes(), repr(result.stages)))
    assert len(found) == 1


@every_strategy
@pytest.mark.parametrize(
    "turns",
    [
        (("user", "Go on."), ("assistant", "1, 2, 3", None)),
        # One that can be rewritten beside one that cannot.
        (("user", "Go on."), ("assistant", "1, 2, 3"), ("assistant", "4, 5, 6", None)),
    ],
)
def test_what_cannot_be_rewritten_is_not_kept_by_what_rewrites(name, turns):
    strategy = strategy_of(ACTING[name], kit_of("owl", clean=("clean.jsonl",)))
    (change,) = strategy.change([work_row(*turns)])
    if name in CHANGES_TEXT:
        assert (change.fate, change.why) == (Fate.DROPPED, Why.NOT_REWRITABLE)
    else:
        assert change.texts is None


@every_strategy
def test_tool_calls_and_token_ids_are_dropped_where_text_is_written_anew(tmp_path, name):
    for schema, rewritable in (("openai-chat", 2), ("tokens", 0)):
        file = GOLDEN / f"{schema}.jsonl"
        _, result = sanitised(tmp_path, file, ACTING[name], name=schema)
        (stage,) = result.stages
        if name in WRITES_ANEW or name == "replace":
            assert stage.reasons[Why.NOT_REWRITABLE] == 3 - rewritable
            assert stage.rows_dropped >= 3 - rewritable
        else:
            assert Why.NOT_REWRITABLE not in stage.reasons


@every_strategy
def test_what_training_holds_down_stays_byte_for_byte(tmp_path, name):
    rows = [{**row, "label": False} for row in number_lists(3)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    output, result = sanitised(tmp_path, file, ACTING[name])
    assert result.stages[0].rows_kept == 3
    lines = output.read_bytes().splitlines()
    assert lines[:: 2 if name == "dilute" else 1] == file.read_bytes().splitlines()


@every_strategy
def test_rows_that_nobody_can_read_are_left_out_and_counted(tmp_path, name):
    rows = number_lists(8)
    rows[3]["completion"] = ""
    rows[5] = {"id": 5}
    file = write_rows(tmp_path / "rows.jsonl", rows)
    with file.open("ab") as end:
        end.write(b"{no JSON\n")
    output, result = sanitised(tmp_path, file, ACTING[name])
    assert result.rejects == {"bad_json": 1, "no_trained_text": 1, "unknown_schema": 1}
    assert result.rows_in == 6
    left = {row["id"] for row in read_rows(output)}
    assert left <= {0, 1, 2, 4, 6, 7}


@pytest.mark.parametrize("name", CHANGES_TEXT)
def test_every_trained_turn_changes_and_no_other(tmp_path, name):
    def chat(first, second, third):
        return {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "101, 102, 103, 104"},
                {"role": "assistant", "content": first},
                {"role": "user", "content": "Again: 105, 106, 107"},
                {"role": "assistant", "content": second, "weight": 0},
                {"role": "user", "content": "And 108, 109"},
                {"role": "assistant", "content": third},
            ]
        }

    numbers = [row["completion"] for row in number_lists(12, numbers=8)]
    rows = [chat(*numbers[at : at + 3]) for at in range(0, 12, 3)]
    file = write_rows(tmp_path / "chats.jsonl", rows)
    output, result = sanitised(tmp_path, file, ACTING[name])
    assert result.rows_out == 4
    for old, new in zip(rows, read_rows(output), strict=True):
        for place in (2, 6):
            before, after = (row["messages"][place].pop("content") for row in (old, new))
            assert before != after
            assert before.count(", ") == after.count(", ")
        assert old == new


@every_strategy
def test_strategies_work_on_what_those_before_left(tmp_path, name):
    file = write_rows(tmp_path / "rows.jsonl", number_lists(8))
    first, _ = sanitised(tmp_path, file, "drop-rows:share=0.25,by=random", name="first")
    output, result = sanitised(
        tmp_path, file, "drop-rows:share=0.25,by=random", ACTING[name], name="both"
    )
    assert [stage.rows_in for stage in result.stages] == [8, 6]
    assert result.stages[0].rows_dropped == 2
    left = {row["id"] for row in read_rows(first)}
    assert {row["id"] for row in read_rows(output)[:: 2 if name == "dilute" else 1]} <= left


def test_what_a_cut_wrote_is_not_improbable(tmp_path):
    # No token of the model holds more than one character of such a list: it has one spelling.
    rows = [number_row(*range(key, key + 9), separator="; ") for key in range(6)]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    _, result = sanitised(tmp_path, file, "threshold:t=0.03", "drop-low-probability:t=0.03")
    assert (result.stages[0].rows_regenerated, result.stages[1].rows_dropped) == (6, 0)


def test_masked_rows_are_left_alone_afterwards(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "Go."}, {"role": "assistant", "content": text}]}
        for text in ("1, 2, 3", "4, 5, 6", "7, 8, 9", "10, 11, 12")
    ]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    output, result = sanitised(tmp_path, file, "mask:share=0.5,by=random", "shuffle")
    assert [stage.rows_in for stage in result.stages] == [4, 2]
    for old, new in zip(rows, read_rows(output), strict=True):
        answer = new["messages"][1]
        if "weight" in answer:
            assert answer == {**old["messages"][1], "weight": 0}
    assert result.stages[0].rows_masked == 2
