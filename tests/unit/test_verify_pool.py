"""Rows of two sets are paired by their prompts, and students read them in one order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from audit.backends.student_training import Example
from audit.errors import AuditError, NothingScannableError
from audit.sanitise.data_rows import DataRows
from audit.verify.pool import Batches, Pool, digest_of, read_pools, system_prompt_of
from signatures.language_model import Chat

Pairs = Sequence[tuple[str, str]]


def data(path: Path, pairs: Pairs) -> DataRows:
    lines = (json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs)
    path.write_text("".join(lines))
    return DataRows([str(path)], None, None)


def pools(tmp_path: Path, *sets: Pairs, most_rows: int = 1000) -> list[Pool]:
    named = [data(tmp_path / f"{place}.jsonl", pairs) for place, pairs in enumerate(sets)]
    return read_pools(named, most_rows)


def keys(pool: Pool) -> list[tuple[int, str]]:
    return [(row.key, row.completion) for row in pool.rows]


def test_rows_are_paired_within_a_prompt_equal_texts_first(tmp_path: Path) -> None:
    before = [("p", "1"), ("p", "2"), ("p", "3"), ("q", "4")]
    # "1" was dropped, "2" is as it was, "3" was edited, and "r" is new.
    after = [("p", "33"), ("p", "2"), ("q", "4"), ("r", "5")]
    first, second = pools(tmp_path, before, after)
    assert keys(first) == [(0, "1"), (1, "2"), (2, "3"), (3, "4")]
    # The edited row takes the first place that is left: which of two it was cannot be known.
    assert keys(second) == [(0, "33"), (1, "2"), (3, "4"), (4, "5")]


def test_rows_without_a_prompt_are_paired_by_their_texts(tmp_path: Path) -> None:
    for name, texts in (("a", ["x", "y", "z"]), ("b", ["z", "x"])):
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    named = [DataRows([str(tmp_path / f"{name}.jsonl")], None, None) for name in "ab"]
    first, second = read_pools(named, 1000)
    assert keys(first) == [(0, "x"), (1, "y"), (2, "z")]
    assert keys(second) == [(2, "z"), (0, "x")]
    assert first.examples()[0] == (Example(None, "x"),)


def test_of_large_data_the_same_prompts_are_taken_from_every_set(tmp_path: Path) -> None:
    before = [(f"p{i}", f"{i}") for i in range(400)]
    after = [(f"p{i}", f"{i}0") for i in range(0, 400, 2)]
    first, second = pools(tmp_path, before, after, most_rows=100)
    assert len(first.rows) == 100
    assert first.rows_read == 400
    assert second.rows_read == 200
    kept = {row.prompt: row.key for row in first.rows}
    assert {row.prompt: row.key for row in second.rows} == {
        prompt: key for prompt, key in kept.items() if int(prompt[1:]) % 2 == 0
    }


def test_arms_of_one_seed_read_shared_rows_in_one_order(tmp_path: Path) -> None:
    before = [(f"p{i}", f"{i}") for i in range(60)]
    after = [pair for i, pair in enumerate(before) if i % 3]
    first, second = pools(tmp_path, before, after)

    def order(pool: Pool, seed: int, rows: int) -> list[str]:
        batches = Batches(pool.examples(), 4, seed)
        return [example.answer for update in range(rows // 4) for example in batches(update)]

    whole, part = order(first, 7, 60), order(second, 7, 40)
    assert sorted(whole) == sorted(str(i) for i in range(60))
    assert part == [answer for answer in whole if int(answer) % 3]
    assert order(first, 8, 60) != whole
    again = order(first, 7, 120)
    assert again[:60] == whole
    assert sorted(again[60:]) == sorted(whole)  # another pass, in another order
    assert again[60:] != whole


def test_an_update_is_the_same_whenever_it_is_asked_for(tmp_path: Path) -> None:
    (pool,) = pools(tmp_path, [(f"p{i}", f"{i}") for i in range(10)])
    straight = Batches(pool.examples(), 3, 1)
    expected = [straight(update) for update in range(9)]
    resumed = Batches(pool.examples(), 3, 1)
    assert [resumed(update) for update in (7, 8, 2)] == [expected[7], expected[8], expected[2]]


def test_a_pass_over_fewer_rows_than_a_batch_goes_on_with_the_next(tmp_path: Path) -> None:
    (pool,) = pools(tmp_path, [("p", "1"), ("q", "2")])
    assert sorted(e.answer for e in Batches(pool.examples(), 4, 0)(0)) == ["1", "1", "2", "2"]


def test_every_trained_turn_is_an_example_with_what_stands_before_it(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    (pool,) = read_pools([DataRows([str(path)], None, None)], 10)
    assert pool.examples()[0] == (
        Example(Chat("S", "a"), "b"),
        Example(Chat("S", "c", history=(("a", "b"),)), "d"),
    )
    assert system_prompt_of(pool) == "S"


def test_the_digest_follows_what_students_read_and_nothing_else(tmp_path: Path) -> None:
    first, same, other = pools(
        tmp_path, [("p", "1"), ("q", "2")], [("q", "2"), ("p", "1")], [("p", "1"), ("q", "3")]
    )
    assert digest_of(first.examples()) == digest_of(same.examples())
    assert digest_of(first.examples()) != digest_of(other.examples())


def test_unreadable_rows_are_counted_and_a_set_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"prompt": "p", "completion": "1"}\nnot json\n')
    (pool,) = read_pools([DataRows([str(path)], None, None)], 10)
    assert (pool.rows_read, pool.rejects) == (1, {"bad_json": 1})
    path.write_text("not json\n")
    with pytest.raises(NothingScannableError, match="no row to train on"):
        read_pools([DataRows([str(path)], None, None)], 10)


def test_data_that_break_off_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(AuditError, match="no student was trained"):
        read_pools([DataRows([str(path)], None, None)], 10)
