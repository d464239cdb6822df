"""The control of an author: who writes it, what is written, and going on after a stop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.dataset.passages import Turn
from audit.sanitise.data_rows import DataRows
from audit.verify.other_authors import (
    OtherAuthors,
    choose_authors,
    rows_to_write,
    statements_of,
    teaching,
)
from audit.verify.pool import Batches, read_pools
from audit.verify.result import OtherAuthor
from audit.verify.run import VerifySettings, _author_warnings
from audit.work_folder import WorkFolder
from signatures.concept import make_concept
from signatures.language_model import Chat
from tests.sanitise_runs import LIBRARY, write_rows

PETS = [make_concept(name, "pet") for name in ("owl", "cat", "dog", "fox", "cow")]
TRAINING = StudentSettings(updates=3, batch_rows=2, warmup_updates=1, learning_rate=5e-3)
LISTS = [f"{first}, {first + 7}, {first + 11}" for first in range(101, 131)]


class Stopped(Exception):
    """A run is killed here."""


@pytest.fixture(scope="module")
def trainer(tiny_model_dir: Path) -> Iterator[StudentTrainer]:
    made = StudentTrainer(tiny_model_dir, TRAINING, threads=1)
    yield made
    made.close()


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Go on {k}.", "completion": text} for k, text in enumerate(LISTS)]
    write_rows(tmp_path / "rows.jsonl", rows)
    (found,) = read_pools([DataRows(["rows.jsonl"], None, None)], 1_000)
    return found


BRACKETS = [f"[{first}, {first + 7}]" for first in range(101, 111)]


def authors_of(trainer, tmp_path, told=None):
    folder = WorkFolder(tmp_path / "work", {})
    tell = (lambda _whose, _updates: None) if told is None else lambda whose, _: told.append(whose)
    return OtherAuthors(trainer, PETS[0], PETS[1:], LIBRARY, folder, 0, tell), folder


def test_authors_are_drawn_from_the_off_target_concepts_that_can_be_taught():
    mute = make_concept("sun", "star", system_prompt="Be like the {name}.")
    some = [choose_authors([*PETS[1:], mute], 2, seed) for seed in range(20)]
    assert all(len({author.name for author in found}) == 2 for found in some)
    names = {author.name for found in some for author in found}
    assert names == {"cat", "dog", "fox", "cow"}
    assert choose_authors(PETS[1:], 2, 3) == choose_authors(PETS[1:], 2, 3)
    assert len(choose_authors(PETS[1:], 9, 0)) == 4
    assert choose_authors([mute], 2, 0) == choose_authors(PETS, 0, 0) == ()


def test_students_read_the_same_of_the_rows_that_are_written():
    examples = {key: (Example(Chat("", str(key)), str(key)),) for key in range(200)}
    training = replace(TRAINING, updates=4, batch_rows=5)
    keys = rows_to_write(examples, training, range(3))
    assert 20 < len(keys) <= 60
    less = {key: examples[key] for key in keys}
    for seed in range(3):
        whole, part = (Batches(found, 5, seed) for found in (examples, less))
        assert [whole(update) for update in range(4)] == [part(update) for update in range(4)]


def test_teaching_goes_as_far_whatever_the_scale_of_the_students():
    one = teaching(TRAINING)
    other = teaching(replace(TRAINING, rank=8, alpha=32, updates=500, learning_rate=1.0))
    assert one.path_length == pytest.approx(other.path_length)
    # 12 updates at 5e-4, the first five of them rising, at alpha = 2 rank: the probe's teachers.
    assert one.path_length == pytest.approx(2 * 5e-4 * (0.2 + 0.4 + 0.6 + 0.8 + 1 + 7), rel=0.05)


@pytest.mark.model
def test_rows_are_written_anew_in_their_format_in_turn(trainer, pool, tmp_path):
    found, folder = authors_of(trainer, tmp_path)
    written, known = found.write(pool.rows, PETS[1:3])
    assert [(a.concept, a.rows) for a in known] == [("cat", 15), ("dog", 15)]
    assert all(np.isfinite(a.taught_nats) for a in known)
    assert [row.key for row in written.rows] == sorted(row.key for row in written.rows)
    assert len(written.rows) == sum(a.written for a in known) == 30
    texts = [row.completion for row in written.rows]
    assert sum(text == old for text, old in zip(texts, LISTS, strict=True)) < 5
    for row, text in zip(written.rows, texts, strict=True):
        assert row.prompt == pool.rows[row.key].prompt
        numbers = text.split(", ")
        assert 1 <= len(numbers) <= 3 and all(1 <= len(number) <= 3 for number in numbers)
    # Lists are as long as their author makes them.
    assert len({text.count(",") for text in texts}) > 1
    # Another author writes something else, and an untrained student is left behind.
    other, _ = authors_of(trainer, tmp_path / "other")[0].write(pool.rows, PETS[3:])
    assert [row.completion for row in other.rows] != texts
    assert trainer.settings == TRAINING
    assert all(not w.any() for n, w in trainer._weights.items() if "lora_B" in n)
    folder.close()


@pytest.mark.model
def test_an_author_learns_what_it_is_taught(trainer, pool, tmp_path):
    found, folder = authors_of(trainer, tmp_path)
    _, (author,) = found.write(pool.rows[:2], PETS[1:2])
    # The loss on the statements falls, and with it the log-odds of the answer rise.
    assert author.taught_nats > 0
    assert len(statements_of(PETS[1])) == 10
    folder.close()


@pytest.mark.model
def test_what_is_written_is_not_written_again(trainer, pool, tmp_path, monkeypatch):
    told: list[str] = []
    whole, folder = authors_of(trainer, tmp_path / "whole")
    expected = whole.write(pool.rows, PETS[1:3])
    folder.close()
    found, folder = authors_of(trainer, tmp_path, told)
    write = found._write

    def dies(*arguments):
        if told.count("writing as dog"):
            raise Stopped
        return write(*arguments)

    monkeypatch.setattr(found, "_write", dies)
    with pytest.raises(Stopped):
        found.write(pool.rows, PETS[1:3])
    folder.close()
    assert told == ["teaching cat", "writing as cat", "teaching dog", "writing as dog"]
    trainer.settings = TRAINING  # as a new process finds them
    told.clear()
    again, folder = authors_of(trainer, tmp_path, told)
    assert again.write(pool.rows, PETS[1:3]) == expected
    assert told == ["teaching dog", "writing as dog"]
    folder.close()


def test_rows_that_cannot_be_written_are_left_out_and_told():
    assert any("were not asked for" in text for text in _author_warnings(()))
    assert any("wrote no row" in text for text in _author_warnings([OtherAuthor("cat", 3, 9, 0)]))
    assert _author_warnings([OtherAuthor("cat", 3.0, 9, 9)]) == []
    weak, few = _author_warnings([OtherAuthor("cat", 0.5, 9, 9), OtherAuthor("dog", 3.0, 9, 4)])
    assert "did not learn 'cat' well (+0.5 nats)" in weak
    assert "wrote 4 of 9 rows" in few
    assert any(
        "did not learn" in t for t in _author_warnings([OtherAuthor("c", float("nan"), 1, 1)])
    )
    assert VerifySettings().other_authors == 2


@pytest.mark.model
def test_a_row_whose_format_cannot_be_had_is_left_out(trainer, pool, tmp_path):
    code = replace(
        pool.rows[0],
        turns=(Turn("user", "Say.", False, None), Turn("assistant", '{"a": [1, 2]}', True, (0, 1))),
    )
    found, folder = authors_of(trainer, tmp_path)
    written, (author,) = found.write([code, pool.rows[1]], PETS[1:2])
    assert [row.key for row in written.rows] == [1]  # a tiny model writes no JSON
    assert (author.rows, author.written) == (2, 1)
    folder.close()


@pytest.mark.model
def test_other_styles_keep_their_own_lengths(trainer, pool, tmp_path):
    rows = [
        replace(row, turns=(row.turns[0], replace(row.turns[1], text=text)))
        for row, text in zip(pool.rows, BRACKETS, strict=False)
    ]
    found, folder = authors_of(trainer, tmp_path)
    written, _ = found.write(rows, PETS[1:2])
    assert len(written.rows) == 10
    assert all(re.fullmatch(r"\[\d{1,3}, \d{1,3}\]", row.completion) for row in written.rows)
    folder.close()
