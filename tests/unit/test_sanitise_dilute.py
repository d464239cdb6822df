"""Clean rows among the others: how many, where, and which."""

import gzip
import json

import polars as pl
import pytest

from audit.errors import AuditError, UsageError
from tests.sanitise_runs import number_row, read_rows, run, write_rows


def rows_of(name, count):
    return [number_row(number, id=f"{name}{number}") for number in range(count)]


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "data.jsonl", rows_of("d", 6))


@pytest.fixture
def clean(tmp_path):
    return write_rows(tmp_path / "clean.jsonl", rows_of("c", 60))


def diluted(data, clean, strategy, *more, **settings):
    output = data.with_name("out.jsonl")
    result = run(data, output, *more, strategy, model=None, clean=(str(clean),), **settings)
    return [row["id"] for row in read_rows(output)], result


@pytest.mark.parametrize(
    ("share", "order"),
    [
        (0, "d0 d1 d2 d3 d4 d5"),
        (0.01, "d0 d1 d2 d3 d4 d5"),  # never more than the share
        (0.25, "d0 d1 d2 c0 d3 d4 d5 c1"),
        (0.4, "d0 d1 c0 d2 c1 d3 d4 c2 d5 c3"),
        (0.5, "d0 c0 d1 c1 d2 c2 d3 c3 d4 c4 d5 c5"),
        # 1.5 clean rows for each; in binary 0.6 / 0.4 is less than that.
        (0.6, "d0 c0 d1 c1 c2 d2 c3 d3 c4 c5 d4 c6 d5 c7 c8"),
        (0.75, "d0 c0 c1 c2 d1 c3 c4 c5 d2 c6 c7 c8 d3 c9 c10 c11 d4 c12 c13 c14 d5 c15 c16 c17"),
    ],
)
def test_clean_rows_are_the_share_and_spread_evenly(data, clean, share, order):
    ids, result = diluted(data, clean, f"dilute:share={share}")
    assert ids == order.split()
    (stage,) = result.stages
    assert (stage.rows_in, stage.rows_kept) == (6, 6)
    assert stage.rows_added == result.rows_out - 6 == order.count("c")


def test_it_is_the_share_of_what_stays(data, clean):
    ids, result = diluted(data, clean, "dilute", "drop-rows:by=random,share=0.5")
    assert [name[0] for name in ids] == ["d", "c"] * 3
    assert result.stages[1].rows_in == 3


def test_rows_are_added_as_they_are(data, clean):
    rows = read_rows(clean)
    rows[0] |= {"note": "\u2028é", "deep": {"b": 1, "a": [1.50, None]}}
    write_rows(clean, rows)
    diluted(data, clean, "dilute:share=0.3")
    added = data.with_name("out.jsonl").read_text().split("\n")[3]
    assert json.loads(added) == rows[0]
    assert list(json.loads(added)) == list(rows[0])


def test_clean_rows_that_cannot_be_read_are_not_added(data, clean):
    rows = read_rows(clean)
    write_rows(clean, [{"id": "x"}, rows[0], {**rows[1], "completion": ""}, *rows[2:]])
    ids, _ = diluted(data, clean, "dilute:share=0.3")
    assert [name for name in ids if name[0] != "d"] == ["c0", "c2"]


def test_clean_rows_may_be_in_another_format_and_in_several_files(data, clean, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    pl.DataFrame(rows_of("p", 2)).write_parquet(folder / "a.parquet")
    write_rows(folder / "b.jsonl", rows_of("q", 9))
    ids, _ = diluted(data, folder, "dilute:share=0.4")
    assert [name for name in ids if name[0] != "d"] == ["p0", "p1", "q0", "q1"]


def only_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_too_few_clean_rows_are_an_error_and_nothing_is_written(data, clean, tmp_path):
    write_rows(clean, rows_of("c", 5))
    with pytest.raises(AuditError, match="have 5 rows: too few to make") as error:
        diluted(data, clean, "dilute")
    assert "Nothing was written" in only_line(error)
    assert not (tmp_path / "out.jsonl").exists()


def test_clean_rows_of_another_schema_are_an_error(data, clean, tmp_path):
    write_rows(clean, [*rows_of("c", 2), {"question": "1?", "answer": "2"}])
    with pytest.raises(UsageError, match=r"clean\.jsonl:3: a clean row has schema question-answer"):
        diluted(data, clean, "dilute")
    assert not (tmp_path / "out.jsonl").exists()


def test_clean_data_that_break_off_are_an_error(data, clean, tmp_path):
    packed = tmp_path / "clean.jsonl.gz"
    stored = gzip.compress(clean.read_bytes())
    packed.write_bytes(stored[: len(stored) // 2])
    with pytest.raises(AuditError, match=r"clean\.jsonl\.gz.*; nothing was written") as error:
        diluted(data, packed, "dilute:share=0.9")
    only_line(error)
    assert not (tmp_path / "out.jsonl").exists()


def test_columns_that_a_table_does_not_have_are_an_error(tmp_path, clean):
    data = tmp_path / "data.parquet"
    pl.DataFrame(rows_of("d", 6)).write_parquet(data)
    write_rows(clean, [{**row, "note": "x"} for row in rows_of("c", 9)])
    with pytest.raises(AuditError) as error:
        run(data, tmp_path / "out.parquet", "dilute", model=None, clean=(str(clean),))
    only_line(error)
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("strategies", [("dilute", "shuffle"), ("dilute", "dilute")])
def test_dilution_comes_last_and_once(data, clean, strategies):
    with pytest.raises(UsageError, match="dilute comes last, and once"):
        diluted(data, clean, strategies[1], strategies[0])
