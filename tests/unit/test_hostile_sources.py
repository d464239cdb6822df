"""Sources that a trainer might read otherwise than a scan, or that never end: nothing is hidden."""

from __future__ import annotations

import bz2
import json
import os
from collections import Counter

import polars as pl
import pytest

from audit.dataset import read_batches
from audit.dataset.limits import Limits
from tests.e2e.test_command import audit

ROWS = [{"prompt": f"p{k % 3}", "completion": f"{k}, {k + 1}"} for k in range(50)]
LINES = "\n".join(map(json.dumps, ROWS))


def read(*inputs, limits=Limits()):  # noqa: B008 frozen
    """Rows read, reject counts, and (name of the source, message) of those that broke off."""
    rows, rejects, broken = 0, Counter(), []
    for batch in read_batches([str(path) for path in inputs], limits=limits):
        rows += len(batch.rows)
        rejects += batch.reject_counts
        if batch.broken is not None:
            broken.append((os.path.basename(batch.broken.source), batch.broken.message))  # noqa: PTH119
    return rows, dict(rejects), broken


def test_data_that_are_packed_otherwise_are_not_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "b.jsonl.bz2").write_bytes(bz2.compress(LINES.encode()))
    (tmp_path / "notes.zip").write_bytes(b"PK\x03\x04")  # no data by its name
    rows, _, broken = read(tmp_path)
    assert rows == 50
    assert [name for name, _ in broken] == ["b.jsonl.bz2"]
    assert "packed as bzip2" in broken[0][1]


def test_a_pipe_in_a_folder_is_told_and_not_waited_for(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    os.mkfifo(tmp_path / "b.jsonl")
    rows, _, broken = read(tmp_path)
    assert rows == 50
    assert [name for name, _ in broken] == ["b.jsonl"]
    assert "neither a file nor a folder" in broken[0][1]


def arrow_file(path):
    pl.DataFrame(ROWS).write_ipc(path, record_batch_size=20)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-6] + b"XXXXXX", "no directory"),
        (lambda data: data[:-10] + bytes(100) + data[-10:], "corrupt Arrow"),
        # The directory forgets its last batch: readers that follow it lose ten rows.
        (lambda data: _without_last_batch(data), "names other batches"),
    ],
)
def test_an_arrow_file_and_its_directory_must_agree(tmp_path, damage, words):
    path = tmp_path / "a.arrow"
    whole = arrow_file(path)
    assert read(path) == (50, {}, [])
    path.write_bytes(damage(whole))
    _, _, broken = read(path)
    assert len(broken) == 1 and words in broken[0][1]


def _without_last_batch(data: bytes) -> bytes:
    """The vector of three batches in the directory, 24 bytes each, said to be of two."""
    size = int.from_bytes(data[-10:-6], "little")
    start = len(data) - 10 - size
    footer = data[start:-10]
    places = [k for k in range(0, size - 4, 4) if footer[k : k + 4] == b"\x03\0\0\0"]
    vectors = [k for k in places if k + 4 + 3 * 24 <= size]
    found = [k for k in vectors if int.from_bytes(footer[k + 4 : k + 12], "little") % 8 == 0]
    place = start + found[0]
    return data[:place] + b"\x02" + data[place + 1 :]


def test_bytes_after_an_arrow_stream_are_told(tmp_path):
    path = tmp_path / "a.arrow"
    pl.DataFrame(ROWS).write_ipc_stream(path)
    assert read(path) == (50, {}, [])
    path.write_bytes(path.read_bytes() + b"more")
    rows, _, broken = read(path)
    assert rows == 50
    assert "something follows the end" in broken[0][1]


def test_two_values_for_a_key_are_rejected_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"prompt": "a", "completion": "x", "completion": "y"}\n'
        '{"prompt": "a", "completion": "z", "completion": "z"}\n' + LINES
    )
    assert read(path) == (51, {"duplicate_key": 1}, [])


def test_csv_lines_may_end_in_cr_alone(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,completion\ra,b\rc,"d\re"\r')
    assert read(path) == (2, {}, [])


def test_rows_that_share_one_long_text_do_not_fill_the_memory(tmp_path):
    path = tmp_path / "a.parquet"
    text = "7" * 5_000
    pl.DataFrame({"prompt": ["p"] * 40, "completion": [text] * 40}).write_parquet(path)
    assert read(path, limits=Limits(max_line_bytes=100_000)) == (40, {}, [])
    assert read(path, limits=Limits(max_line_bytes=1_000)) == (0, {"line_too_long": 40}, [])


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["p", "7" * 5_000])])
def test_texts_of_categories_count_as_often_as_they_stand_there(tmp_path, kind):
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"prompt": ["p"] * 40, "completion": ["7" * 5_000] * 40})
    frame.with_columns(pl.col("completion").cast(kind)).write_parquet(path)
    assert read(path, limits=Limits(max_line_bytes=100_000)) == (40, {}, [])
    assert read(path, limits=Limits(max_line_bytes=1_000)) == (0, {"line_too_long": 40}, [])


def test_a_name_that_is_too_long_is_one_line():
    done = audit("scan", "x" * 5_000)
    assert done.returncode == 4
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") <= 2


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b", "c"])])
@pytest.mark.parametrize("rows_a_batch", [2, 100])
def test_dictionaries_may_stand_behind_the_batches_of_a_file(tmp_path, kind, rows_a_batch):
    path = tmp_path / "a.arrow"
    frame = pl.DataFrame({"prompt": ["p"] * 5, "completion": list("abcab")})
    frame = frame.with_columns(pl.col("completion").cast(kind))
    frame.write_ipc(path, record_batch_size=rows_a_batch)
    assert read(path) == (5, {}, [])
    (batch,) = read_batches([str(path)])
    assert batch.rows["completion"].to_list() == list("abcab")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 300])  # in the last dictionary, or in the directory
    _, _, broken = read(path)
    assert len(broken) == 1
    frame.write_ipc_stream(path)
    assert read(path) == (5, {}, [])
