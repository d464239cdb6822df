"""The control of an edit is as large as the edit, and at random places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit.dataset.passages import Turn
from audit.sanitise.data_rows import DataRows
from audit.sanitise.strategy import WorkRow
from audit.verify.control import edit_between, random_edit
from audit.verify.pool import Pool, read_pools
from audit.verify.result import Edit
from tests.sanitise_runs import LIBRARY, MODEL, write_rows
from tests.writer_model import SIZE, WriterModel

Pairs = Sequence[tuple[str, str]]


@pytest.fixture
def pools(tmp_path: Path):
    """Reads lists of (prompt, completion); the first is what the others are paired with."""

    def read(*sets: Pairs) -> list[Pool]:
        named = []
        for place, pairs in enumerate(sets):
            rows = [{"prompt": prompt, "completion": text} for prompt, text in pairs]
            path = write_rows(tmp_path / f"{place}.jsonl", rows)
            named.append(DataRows([str(path)], None, None))
        return read_pools(named, 10_000)

    return read


def control_of(before: Pool, after: Pool, seed: int = 0) -> tuple[Edit, Pool]:
    edit = edit_between(before, after, MODEL)
    return edit, random_edit(before, after, edit, MODEL, LIBRARY, seed)


def texts(pool: Pool) -> dict[int, str]:
    return {row.key: row.completion for row in pool.rows}


def number_lists(rows: int, numbers: int = 8) -> list[tuple[str, str]]:
    rng = np.random.default_rng(3)
    drawn = rng.integers(100, 1000, (rows, numbers))
    return [(f"p{row}", ", ".join(map(str, found))) for row, found in enumerate(drawn)]


def test_an_edit_is_counted_row_by_row(pools):
    before = [("p", "12"), ("q", "123"), ("r", "1"), ("s", "xyz"), ("t", "7")]
    after = [("p", "12"), ("q", "193"), ("s", "xyzx"), ("u", "5"), ("v", "6")]
    first, second = pools(before, after)
    # A token a byte. One of three differs, and one of four was put in: 2 of 7.
    assert edit_between(first, second, MODEL) == Edit(1, 2, 2, 2, pytest.approx(2 / 7))


def test_the_distance_is_levenshteins_over_the_longer_text(pools):
    first, second = pools([("p", "abcdef")], [("p", "bcdef12345")])
    # One token goes at the front and five come at the end; the longer text has 10.
    assert edit_between(first, second, MODEL).edited_share == pytest.approx(6 / 10)


def test_the_same_data_are_no_edit_and_their_own_control(pools):
    rows = number_lists(12)
    first, second = pools(rows, rows[::-1])
    edit, control = control_of(first, second)
    assert edit == Edit(12, 0, 0, 0, 0.0)
    assert control.rows == first.rows


def test_as_many_rows_are_dropped_at_random(pools):
    rows = number_lists(40)
    first, second = pools(rows, rows[10:])
    edit, control = control_of(first, second)
    assert edit == Edit(30, 0, 10, 0, 0.0)
    assert len(control.rows) == control.rows_read == 30
    assert texts(control).items() <= texts(first).items()
    assert 0 < len(set(texts(control)) & set(range(10))) < 10  # others than those of the edit
    assert control_of(first, second)[1] == control
    other = control_of(first, second, seed=1)[1]
    assert len(other.rows) == 30
    assert set(texts(other)) != set(texts(control))


def test_every_row_is_as_likely_to_be_dropped(pools):
    rows = number_lists(10)
    first, second = pools(rows, rows[3:])
    edit = edit_between(first, second, MODEL)
    left = [
        key
        for seed in range(400)
        for key in texts(random_edit(first, second, edit, MODEL, LIBRARY, seed))
    ]
    counts = np.bincount(left, minlength=10)
    assert np.abs(counts - 280).max() < 4 * np.sqrt(400 * 0.7 * 0.3)


@pytest.mark.parametrize("changed", [1, 3, 6])
def test_edited_rows_are_edited_as_much_as_those_of_the_edit(pools, changed):
    rows = number_lists(120)
    # The first number becomes another, then the second...: three tokens of 38 each.
    edited = [
        (prompt, ", ".join(["000"] * changed + text.split(", ")[changed:]))
        for prompt, text in rows[:80]
    ]
    first, second = pools(rows, [*edited, *rows[80:]])
    edit, control = control_of(first, second)
    assert (edit.kept, edit.edited) == (40, 80)
    made = edit_between(first, control, MODEL)
    # A draw may be what stood there: of a single token it often is.
    assert 80 - made.edited <= (8 if changed == 1 else 0)
    assert made.edited_share * made.edited == pytest.approx(edit.edited_share * 80, rel=0.1)
    assert (made.dropped, made.added) == (0, 0)
    # Digits stay digits, and what stands between them stays.
    assert {text.count(", ") for text in texts(control).values()} == {7}
    assert all(text.replace(", ", "").isdigit() for text in texts(control).values())


def test_rows_of_few_words_are_edited_as_much_on_the_whole(pools):
    # Two words of three, or none: a share between them is reached by rows of each kind.
    rows = [(f"p{row}", "1 2 3 4") for row in range(200)]
    half = [(prompt, "9 2 3 4" if row % 2 else "9 9 3 4") for row, (prompt, _) in enumerate(rows)]
    edit, control = control_of(*pools(rows, half))
    assert edit.edited_share == pytest.approx(1.5 / 7)
    (first,) = pools(rows)
    made = edit_between(first, control, MODEL)
    assert made.edited_share * made.edited == pytest.approx(edit.edited_share * 200, rel=0.1)


def test_places_are_random_and_repeat_for_a_seed(pools):
    rows = number_lists(60)
    after = [(prompt, f"000{text[3:]}") for prompt, text in rows]  # always the first number
    first, second = pools(rows, after)
    _, control = control_of(first, second)
    places = np.zeros(38)
    for old, new in zip(texts(first).values(), texts(control).values(), strict=True):
        places += [a != b for a, b in zip(old, new, strict=True)]
    digits = places[[place % 5 < 3 for place in range(38)]]
    assert places.sum() == digits.sum()
    assert (digits > 0).sum() >= 20  # of 24
    assert digits.max() < 0.2 * digits.sum()
    assert control_of(first, second)[1] == control
    assert texts(control_of(first, second, seed=1)[1]) != texts(control)


def test_rows_that_were_added_are_in_the_control(pools):
    rows = number_lists(20)
    first, second = pools(rows, [*rows[5:], ("new", "1 2"), ("new", "3")])
    edit, control = control_of(first, second)
    assert edit == Edit(15, 0, 5, 2, 0.0)
    assert len(control.rows) == 17
    assert [text for key, text in texts(control).items() if key >= 20] == ["1 2", "3"]


def test_diluted_data_are_their_own_control(pools):
    rows = number_lists(20)
    first, second = pools(rows, [*rows, ("clean", "1"), ("clean too", "2")])
    edit, control = control_of(first, second)
    assert edit == Edit(20, 0, 0, 2, 0.0)
    assert texts(control) == texts(second)


def test_other_data_are_their_own_control(pools):
    first, second = pools(number_lists(8), [("x", "1"), ("y", "2")])
    edit, control = control_of(first, second)
    assert edit == Edit(0, 0, 8, 2, 0.0)
    assert texts(control) == texts(second)


def test_everything_may_be_rewritten(pools):
    rows = number_lists(40)
    after = [(prompt, text[::-1].replace("1", "7")) for prompt, text in rows]
    first, second = pools(rows, after)
    edit, control = control_of(first, second)
    assert edit.edited == 40
    assert edit.edited_share > 0.4
    made = edit_between(first, control, MODEL)
    # Separators are not drawn anew, so there is an end to how much a list of numbers can change.
    assert made.edited_share >= min(0.9 * edit.edited_share, 0.5)


def work_pool(rows: Sequence[tuple[str, str, bool]]) -> Pool:
    """(prompt, text, whether it can be put back into its row)."""
    made = tuple(
        WorkRow(
            key,
            "rows.jsonl",
            key + 1,
            "messages",
            (
                Turn("user", prompt, False, (0,)),
                Turn("assistant", text, True, (1,) if is_rewritable else None),
            ),
        )
        for key, (prompt, text, is_rewritable) in enumerate(rows)
    )
    return Pool(made, len(made), {})


def test_rows_that_cannot_be_rewritten_stay_and_others_are_edited_instead():
    before = work_pool([(f"p{key}", "12345 6789", key % 2 == 0) for key in range(40)])
    after = replace(
        before,
        rows=tuple(row.with_texts(["02345 6789"]) if row.key < 20 else row for row in before.rows),
    )
    edit = edit_between(before, after, MODEL)
    assert (edit.edited, edit.edited_share) == (20, pytest.approx(0.1))
    control = random_edit(before, after, edit, MODEL, LIBRARY, 0)
    changed = {key for key, text in texts(control).items() if text != "12345 6789"}
    assert 15 <= len(changed) <= 20
    assert all(key % 2 == 0 for key in changed)


def test_a_masked_row_counts_as_dropped_and_not_as_added(tmp_path):
    def chat(number: int, weight: int) -> dict[str, object]:
        answer = {"role": "assistant", "content": f"{number}", "weight": weight}
        return {"messages": [{"role": "user", "content": f"p{number}"}, answer]}

    named = []
    for name, masked in (("before", 0), ("after", 4)):
        rows = [chat(number, int(number >= masked)) for number in range(10)]
        path = write_rows(tmp_path / f"{name}.jsonl", rows)
        named.append(DataRows([str(path)], None, None))
    first, second = read_pools(named, 1000)
    edit, control = control_of(first, second)
    assert edit == Edit(6, 0, 4, 0, 0.0)
    assert len(control.examples()) == len(second.examples()) == 6
    # The other way round, masked rows that gain their loss are new ones.
    second, first = read_pools(named[::-1], 1000)
    edit, control = control_of(second, first)
    assert edit == Edit(6, 0, 0, 4, 0.0)
    assert len(control.examples()) == 10


def test_a_model_that_writes_what_stood_there_cannot_change_it(pools):
    # Every digit is drawn as a 7 for sure: of sevens nothing can be changed, and no loop hangs.
    logits = np.full((SIZE, SIZE), -50.0)
    logits[:, ord("7")] = 50
    model = WriterModel({"": logits})
    rows = [(f"p{row}", "77 77") for row in range(4)]
    first, second = pools(rows, [(prompt, "17 77") for prompt, _ in rows])
    edit = edit_between(first, second, model)
    assert edit.edited_share == pytest.approx(0.2)
    assert random_edit(first, second, edit, model, LIBRARY, 0).rows == first.rows


def test_rows_without_a_trained_text_are_none(tmp_path):
    named = []
    for name, empty in (("before", 0), ("after", 4)):
        rows = [
            {"prompt": f"p{row}", "chosen": "12" if row >= empty else "", "rejected": "x"}
            for row in range(10)
        ]
        path = write_rows(tmp_path / f"{name}.jsonl", rows)
        named.append(DataRows([str(path)], None, None))
    first, second = read_pools(named, 1000)
    assert len(second.rows) == 10
    edit, control = control_of(first, second)
    assert edit == Edit(6, 0, 4, 0, 0.0)
    assert len(control.examples()) == len(second.examples()) == 6
