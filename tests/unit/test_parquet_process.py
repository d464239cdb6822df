"""Damage that ends the process which reads a Parquet file breaks that file, and nothing else."""

import json
import os
import random
import re

import polars as pl
import pytest

from audit.dataset import parquet_process, read_batches
from tests.e2e.test_command import audit

ROWS = [{"prompt": f"p{k}", "completion": f"{k}, {k + 1}"} for k in range(100)]

# Sends the first rows as the reader would, and ends as native code does.
_DIES_AFTER = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from audit.dataset import parquet_reader as reader
whole = reader.parquet_frames
def cut(path, columns, done_rows=0, *, in_order=False):
    for frame in whole(path, columns, done_rows, in_order=in_order):
        part = frame[: max({rows} - done_rows, 0)]
        if part.height:
            yield part
        done_rows += frame.height
        if done_rows >= {rows}:
            os.abort()
reader.parquet_frames = cut
reader.serve()
"""


@pytest.fixture
def dying(monkeypatch):
    """A reader that aborts after some rows of every file."""

    def after(rows):
        monkeypatch.setattr(parquet_process, "_COMMAND", _DIES_AFTER.format(rows=rows))

    parquet_process._end_idle()
    yield after
    parquet_process._end_idle()


def read(*paths):
    rows, broken = 0, []
    for batch in read_batches([str(path) for path in paths]):
        rows += len(batch.rows)
        broken += [(batch.broken.line, batch.broken.message)] if batch.broken else []
    return rows, broken


@pytest.mark.parametrize("rows", [0, 37])
def test_a_file_that_ends_its_reader_is_broken_there(tmp_path, dying, rows):
    path = tmp_path / "a.parquet"
    pl.DataFrame(ROWS).write_parquet(path, row_group_size=10)
    dying(rows)
    message = "is corrupt: it ends the process that reads it (signal 6)"
    assert read(path) == (rows, [(rows + 1, message)])


def test_the_next_file_is_read_by_another_process(tmp_path, dying, monkeypatch):
    path, other = tmp_path / "a.parquet", tmp_path / "b.jsonl"
    pl.DataFrame(ROWS).write_parquet(path)
    other.write_text("\n".join(map(json.dumps, ROWS)))
    dying(5)
    assert read(path, other)[0] == 105
    monkeypatch.undo()
    assert read(path, other) == (200, [])


def test_readers_serve_several_files_and_wait_for_the_next(tmp_path):
    for name in "abc":
        pl.DataFrame(ROWS).write_parquet(tmp_path / f"{name}.parquet")
    parquet_process._end_idle()
    assert read(tmp_path) == (300, [])
    (reader,) = parquet_process._idle[os.getpid()]
    assert read(tmp_path) == (300, [])
    assert parquet_process._idle[os.getpid()] == [reader]
    batches = read_batches([str(tmp_path)], batch_rows=10)
    next(batches)
    del batches  # in the middle of a file: its reader cannot be used again
    assert read(tmp_path) == (300, [])


def test_modules_beside_the_data_are_not_run(tmp_path, monkeypatch):
    for name in ("json", "polars", "audit", "signal"):
        (tmp_path / f"{name}.py").write_text("open('marker', 'w')")
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    parquet_process._end_idle()
    monkeypatch.chdir(tmp_path)
    assert read("a.parquet") == (100, [])
    assert not (tmp_path / "marker").exists()


def test_damaged_bytes_never_end_the_scan(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame(ROWS).write_parquet(path, row_group_size=25)
    whole, draws = path.read_bytes(), random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draws.choice((1, 3))):
            damaged[draws.randrange(4, len(whole) - 8)] = draws.randrange(256)
        path.write_bytes(damaged)
        rows, broken = read(path)
        assert rows == 100 or broken


LIES = {
    "footer longer than the file": lambda data: data[:-8] + b"\xff\xff\xff\x7f" + b"PAR1",
    "no footer": lambda data: data[:-8] + b"\0\0\0\0" + b"PAR1",
    "encrypted": lambda data: data[:-4] + b"PARE",
    "footer alone": lambda data: b"PAR1" + data[-8:],
    "cut": lambda data: data[: len(data) // 2],
    "magic alone": lambda data: b"PAR1",
    "zeros": lambda data: b"PAR1" + bytes(100_000),
}


def test_a_lying_footer_is_one_line_and_no_pass(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for name, lie in LIES.items():
        (folder / f"{name}.parquet").write_bytes(lie(whole))
    done = audit("scan", str(folder), "-q", "-o", str(tmp_path / "report.json"))
    assert done.returncode == 2 and not done.stderr
    broken = json.loads((tmp_path / "report.json").read_bytes())["broken"]
    assert len(broken) == len(LIES)
    assert all("Parquet" in b["message"] and "\n" not in b["message"] for b in broken)


def _patched_footer(path, change):
    """The file with its footer's bytes changed by ``change``."""
    data = path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - size
    path.write_bytes(data[:start] + change(data[start:-8]) + data[-8:])


@pytest.mark.parametrize("place", range(4))  # of the file, of two columns, of the row group
@pytest.mark.parametrize("count", [99, 101, 0, 8191])
def test_numbers_of_rows_that_are_not_true_are_told(tmp_path, place, count):
    path = tmp_path / "a.parquet"
    pl.DataFrame(ROWS).write_parquet(path)

    def lie(footer):
        parts = footer.split(_varint(100))
        assert len(parts) == 5
        return (
            _varint(100).join(parts[: place + 1])
            + _varint(count)
            + _varint(100).join(parts[place + 1 :])
        )

    _patched_footer(path, lie)
    rows, ((_, message),) = read(path)
    assert rows == 0
    assert re.search("announces|has a column of", message), message


def _varint(count):
    """Thrift's zigzag of two bytes."""
    return bytes((2 * count & 0x7F | 0x80, 2 * count >> 7))


def test_columns_in_another_file_are_not_followed(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame(ROWS).write_parquet(path)
    whole = path.read_bytes()
    size = int.from_bytes(whole[-8:-4], "little")
    footer = whole[-8 - size : -8]
    # The list of two chunks: the first begins with its field 2, and now with field 1, a path.
    assert footer.count(b"\x19\x2c\x26") == 1
    changed = footer.replace(b"\x19\x2c\x26", b"\x19\x2c\x18\x07b.parqu\x16", 1)
    path.write_bytes(whole[: -8 - size] + changed + len(changed).to_bytes(4, "little") + b"PAR1")
    _, ((_, message),) = read(path)
    assert "another file" in message
