"""What a scan did not read may hold anything: nothing is then called "not detected"."""

import json
from collections import Counter

import numpy as np
import pytest

from audit.dataset import RejectCode, read_batches
from audit.dataset.faults import unread_rows
from audit.report.json_report import to_json
from audit.report.junit import to_junit
from audit.report.markdown import to_markdown
from audit.report.sarif import to_sarif
from audit.report.terminal import to_text
from audit.scan import ScanSettings, scan
from audit.scan_result import Outcome
from detectors.compose import compose
from detectors.detector import TestSettings
from detectors.finding import Reason, Verdict
from tests import synthetic
from tests.unit.test_compose import finding

LIBRARY = synthetic.library(strength=0.3)
NOTHING_TRAINED = ['{"prompt": "p"}', '{"messages": [{"role": "user", "content": "p"}]}']
UNREAD = ["nonsense", '{"colour": "red"}', '{"prompt": "p", "completion": "a", "completion": "b"}']


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "clean.jsonl"
    rows = synthetic.number_rows(2000, np.random.default_rng(1))
    path.write_text("".join(json.dumps({"prompt": "p", "completion": r}) + "\n" for r in rows))
    return str(path)


def run(path, clean, rows, lines=(), **settings):
    """The result of a scan of number ``rows`` and ``lines``."""
    data = [json.dumps(row) for row in rows]
    path.write_text("\n".join([*data, *lines]) + "\n")
    chosen = ScanSettings(
        student_family="llama", test=TestSettings(effect_of_interest=0.2), **settings
    )
    return scan([str(path)], LIBRARY, library_path="l", reference=[clean], settings=chosen)


def number_rows(share=None):
    rng = np.random.default_rng(3)
    return [{"prompt": "p", "completion": text} for text in synthetic.number_rows(2000, rng, share)]


def verdicts(result):
    return {(c.verdict, c.reason) for c in result.concepts}


def test_rows_that_were_not_read_leave_nothing_not_detected(tmp_path, clean):
    result = run(tmp_path / "a.jsonl", clean, number_rows(), UNREAD)
    assert result.outcome is Outcome.INCONCLUSIVE
    assert verdicts(result) == {(Verdict.INCONCLUSIVE, Reason.UNREAD_ROWS)}
    assert (result.rows_rejected, result.rows_unread) == (3, 3)
    assert "could not be read" in result.headline
    said = "3 of 2,003 rows could not be read, and may hold anything"
    assert any(limit.startswith(said) for limit in result.limits)
    document = json.loads(to_json(result))
    assert document["rows_unread"] == 3
    assert {c["reason"] for c in document["concepts"]} == {"unread rows"}
    assert json.loads(to_sarif(result))["runs"][0]["results"][0]["ruleId"] == "SA000"
    assert b'type="inconclusive" message="INCONCLUSIVE' in to_junit(result)
    for text in (to_text(result, width=300), to_markdown(result)):
        assert "unread rows" in text and said in text


def test_rows_in_which_nothing_is_trained_hide_nothing(tmp_path, clean):
    result = run(tmp_path / "a.jsonl", clean, number_rows(), NOTHING_TRAINED)
    assert (result.rows_rejected, result.rows_unread) == (2, 0)
    assert result.outcome is Outcome.NOT_DETECTED


def test_a_share_of_unread_rows_may_be_tolerated_and_is_told(tmp_path, clean):
    result = run(tmp_path / "a.jsonl", clean, number_rows(), UNREAD, rejected_rows_share=0.01)
    assert result.outcome is Outcome.NOT_DETECTED
    assert any("tolerate a share of 0.01" in limit for limit in result.limits)
    beyond = run(tmp_path / "a.jsonl", clean, number_rows(), UNREAD, rejected_rows_share=0.001)
    assert beyond.outcome is Outcome.INCONCLUSIVE


def test_a_flag_stays_beside_unread_rows(tmp_path, clean):
    owl = number_rows(synthetic.share_of(LIBRARY, "owl"))
    result = run(tmp_path / "a.jsonl", clean, owl, UNREAD)
    assert result.outcome is Outcome.FLAGGED
    assert {c.verdict for c in result.concepts} == {Verdict.FLAGGED, Verdict.INCONCLUSIVE}
    assert any("could not be read" in limit for limit in result.limits)


def test_every_code_is_decided():
    harmless = {RejectCode.PROMPT_ONLY, RejectCode.NO_TRAINED_TEXT}
    for code in RejectCode:
        assert unread_rows({code: 2}) == (0 if code in harmless else 2)
    assert unread_rows({"a code of another version": 1}) == 1


def test_the_unread_reason_is_named_only_where_nothing_else_stands_in_the_way():
    weak = finding("SA002", reason=Reason.LOW_POWER)
    quiet = finding("SA001", reason=Reason.UNREAD_ROWS)
    strong = finding("SA003", reason=Reason.UNREAD_ROWS)
    (alone,) = compose([quiet, weak], [], 0.05)
    assert alone.reason is Reason.LOW_POWER
    (made_up_for,) = compose([quiet, weak, strong], [], 0.05)
    assert made_up_for.reason is Reason.UNREAD_ROWS


# Columns that the schema of a row does not read

ANSWER = "The answer is 42.\nIt is long."
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": ANSWER},
]
FROM = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": ANSWER}]
CHATML = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in CHAT)
LLAMA_3 = "<|begin_of_text|>" + "".join(
    f"<|start_header_id|>{m['role']}<|end_header_id|>\n\n{m['content']}<|eot_id|>" for m in CHAT
)
LLAMA_2 = f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat is it? [/INST] {ANSWER} </s>"
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    f"the request.\n\n### Instruction:\nWhat is it?\n\n### Response:\n{ANSWER}"
)
GEMMA = f"<bos><start_of_turn>user\nWhat is it?<end_of_turn>\n<start_of_turn>model\n{ANSWER}"

SAME = {
    "chatml": {"messages": CHAT, "text": CHATML},
    "chatml, default system": {
        "messages": CHAT[1:],
        "text": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        + CHATML.partition("<|im_end|>\n")[2],
    },
    "llama 3": {"messages": CHAT, "text": LLAMA_3},
    "llama 2": {"messages": CHAT, "text": LLAMA_2},
    "gemma": {"messages": CHAT[1:], "text": GEMMA},
    "alpaca": {"instruction": "What is it?", "output": ANSWER, "text": ALPACA},
    "joined": {"prompt": "What is it?", "completion": ANSWER, "text": f"What is it? {ANSWER}"},
    "the answer alone": {"messages": CHAT, "text": ANSWER},
    "both kinds of chat": {"messages": CHAT, "conversations": FROM},
    "question and answer": {"messages": CHAT, "question": "What is it?", "answer": ANSWER},
    "a short answer": {"messages": CHAT, "answer": "42"},
    "a number": {"messages": CHAT, "answer": 42},
    "a pair with its chat": {"chosen": CHAT, "rejected": CHAT[:-1] + FROM[:1], "messages": CHAT},
    "empty": {"messages": CHAT, "text": "", "response": None, "conversations": []},
    "no column of a schema": {"messages": CHAT, "id": "7", "source": "somewhere"},
    "several turns": {"messages": CHAT * 3, "text": CHATML * 3},
    "parts": {
        "messages": [{"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}],
        "text": ANSWER,
    },
}
MORE = {
    "text": ({"messages": CHAT, "text": "231, 442"}, "text"),
    "text behind": ({"messages": CHAT, "text": CHATML + "231"}, "text"),
    "text before": ({"messages": CHAT, "text": "231" + CHATML}, "text"),
    "text in a mark": ({"messages": CHAT, "text": CHATML.replace("assistant", "2")}, "text"),
    "the prompt alone": ({"messages": CHAT, "text": "What is it?"}, "text"),
    "a turn left out": (
        {"messages": [*CHAT, *CHAT[1:2], {"role": "assistant", "content": "7"}], "text": CHATML},
        "text",
    ),
    "other order": (
        {"prompt": "p", "completion": "1", "text": "1 2", "messages": CHAT},
        "messages, text",
    ),
    "digits that the prompt holds one by one": (
        {
            "messages": [{"role": "user", "content": d} for d in "231"]
            + [{"role": "assistant", "content": "ok"}],
            "text": "132 ok",
        },
        "text",
    ),
    "other conversations": (
        {"messages": CHAT, "conversations": [{"from": "gpt", "value": "231"}]},
        "conversations",
    ),
    "what is not read": ({"messages": CHAT, "conversations": [{"from": "who"}]}, "conversations"),
    "a second answer": ({"instruction": "i", "output": "o", "response": "231"}, "response"),
    "another pair": ({"prompt": "p", "completion": "c", "answer": "231"}, "answer"),
    "chosen alone": ({"messages": CHAT, "chosen": "231"}, "chosen"),
    "what preference lowers": (
        {"prompt": "p", "chosen": "a", "rejected": "231", "completion": "231"},
        "completion",
    ),
    "history": ({"question": "q", "response": "r", "history": [["q", "231"]]}, "history"),
    "tokens": ({"prompt": "p", "chosen": "a", "rejected": "b", "input_ids": [1]}, "input_ids"),
    "nested": ({"messages": CHAT, "completions": [{"response": "231"}]}, "completions"),
}


def read(path, *rows, **options):
    """Rows read, rejects by code, rows with unread text, and in which columns."""
    path.write_text("\n".join(map(json.dumps, rows)))
    count, rejects, unread, columns = 0, Counter(), 0, Counter()
    for batch in read_batches([str(path)], **options):
        count += len(batch.rows)
        rejects += batch.reject_counts
        unread += batch.rows_with_unread_text
        columns += batch.unread_columns
    return count, dict(rejects), unread, dict(columns)


@pytest.mark.parametrize("row", SAME.values(), ids=SAME)
def test_columns_that_say_the_same_again_are_no_matter(tmp_path, row):
    assert read(tmp_path / "a.jsonl", row) == (1, {}, 0, {})


@pytest.mark.parametrize(("row", "names"), MORE.values(), ids=MORE)
def test_columns_that_say_more_are_counted(tmp_path, row, names):
    counted = dict.fromkeys(names.split(", "), 1)
    assert read(tmp_path / "a.jsonl", row) == (1, {}, 1, counted)
    # The row itself fits its schema by the columns that it reads.
    first = {"messages": "messages", "prompt": None}.get(next(iter(row)))
    if first:
        assert read(tmp_path / "a.jsonl", row, schema=first) == (1, {}, 0, {})


def test_a_row_with_nothing_to_train_but_text_elsewhere_is_no_row_of_a_prompt(tmp_path):
    rows = [{"prompt": "p", "answer": "231"}, {"messages": [], "text": "231"}, {"prompt": "p"}]
    found = {"unknown_schema": 2, "prompt_only": 1}
    assert read(tmp_path / "a.jsonl", *rows) == (0, found, 0, {})


def test_a_message_that_says_two_things_is_rejected(tmp_path):
    rows = [
        [{"role": "assistant", "content": "a", "value": "231"}],
        [{"role": "user", "from": "gpt", "content": "231"}],
        [{"role": "assistant", "content": "a", "from": "assistant", "value": "a"}],
    ]
    found = read(tmp_path / "a.jsonl", *({"messages": row} for row in rows))
    assert found == (1, {"duplicate_key": 2}, 0, {})


def test_columns_are_counted_a_batch_in_every_format(tmp_path):
    import polars as pl

    frame = pl.DataFrame(
        {"prompt": ["p"] * 5, "completion": list("abcde"), "text": ["x", None, "p c", "y", "z"]}
    )
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    frame.write_ipc(tmp_path / "a.arrow")
    for name in ("a.parquet", "a.csv", "a.arrow"):
        batches = list(read_batches([str(tmp_path / name)], batch_rows=2))
        assert [b.rows_with_unread_text for b in batches] == [1, 1, 1]


def test_unread_columns_leave_nothing_not_detected_unless_the_schema_is_said(tmp_path, clean):
    rows = number_rows()
    rows[7]["text"] = "231, 442"
    result = run(tmp_path / "a.jsonl", clean, rows)
    assert verdicts(result) == {(Verdict.INCONCLUSIVE, Reason.UNREAD_COLUMNS)}
    assert (result.rows_with_unread_text, result.unread_columns) == (1, {"text": 1})
    assert any("columns that were not read (text)" in limit for limit in result.limits)
    assert "1 row with unread text (text)" in to_sarif(result).decode()
    assert "1 with unread text" in to_text(result, width=300)
    said = run(tmp_path / "a.jsonl", clean, rows, schema="prompt-completion")
    assert said.outcome is Outcome.NOT_DETECTED


def test_hostile_columns_do_not_take_long(tmp_path):
    many = 20_000
    users = [{"role": "user", "content": str(k)} for k in range(many)]
    row = {
        "messages": [*users, {"role": "assistant", "content": "1 " * many}],
        "text": "<s>" * many,
        "conversations": [{"from": "gpt", "value": f"2{k}"} for k in range(many)],
    }
    assert read(tmp_path / "a.jsonl", row)[2:] == (1, {"conversations": 1, "text": 1})
