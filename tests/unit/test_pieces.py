"""Processes that share out one file give the report of one, byte for byte."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl
import pytest

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.dataset import Limits
from audit.dataset.read import LinePiece, LineSource, WholeSource, cut_sources, read_piece
from audit.dataset.read import row_reader as reader_of_rows
from audit.engines import pieces
from audit.engines.pieces import scan_in_pieces
from audit.errors import AuditError
from audit.report.json_report import to_json
from audit.scan import ScanSettings, scan
from audit.workers import in_workers
from signatures.library import load_library

ROWS = [
    {"prompt": f"Go on {k}.", "completion": f"{k % 7}, {k * 37 % 1000}, {k * k % 100}"}
    for k in range(900)
]
LINES = [json.dumps(row) for row in ROWS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of several formats; some hold bad rows, and several break off, each otherwise."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    odd = [*LINES[:100], "no row", json.dumps({"text": "a, 12"}), "", *LINES[100:300], "[1, 2"]
    (data / "1.jsonl").write_text("\ufeff" + "\n".join(odd) + "\n", encoding="utf-8")
    (data / "2.jsonl").write_text("\n".join(LINES[300:400])[:-3])
    packed = gzip.compress("\n".join(LINES[400:600]).encode())
    (data / "3.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (data / "4.jsonl").write_bytes(b"")
    pl.DataFrame(ROWS[600:700]).write_parquet(data / "5.parquet")
    pl.DataFrame(ROWS[700:750]).write_csv(data / "6.csv")
    (data / "7.json").write_text(json.dumps(ROWS[750:800]))
    (data / "8.jsonl").write_text("\n".join(LINES[800:]))
    (data / "9.jsonl").write_bytes(b"PK\x03\x04 is packed otherwise")
    (tmp_path / "reference.jsonl").write_text("\n".join(LINES[::3]))
    return tmp_path


def in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block ends with its chunk: small ones make many pieces of a small file."""
    monkeypatch.setattr("audit.dataset.stored._READ_BYTES", 1000)
    monkeypatch.setattr("audit.dataset.formats._SNIFFED_BYTES", 1000)


@pytest.mark.parametrize("piece_bytes", [1, 3000])
def test_any_piece_size_gives_the_report_of_one_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    library = load_library(BUNDLED_LIBRARY)
    settings = ScanSettings(student_family="llama")
    whole = scan(
        ["data"], library, library_path="x", reference=["reference.jsonl"], settings=settings
    )
    assert len(whole.broken) >= 3 and whole.rejects and whole.rows_scanned > 700
    monkeypatch.setattr(pieces, "_PIECE_BYTES", piece_bytes)
    in_small_chunks(monkeypatch)
    read: list[tuple[int, int]] = []
    shared = scan_in_pieces(
        ["data"],
        library,
        BUNDLED_LIBRARY,
        library_path="x",
        workers=2,
        reference=["reference.jsonl"],
        settings=settings,
        progress=lambda size_bytes, rows: read.append((size_bytes, rows)),
    )
    assert to_json(shared) == to_json(whole)
    assert sum(rows for _, rows in read) == whole.rows_scanned
    assert len(read) > 10


def test_pieces_hold_every_line_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_chunks(monkeypatch)
    cut = list(cut_sources(["data/8.jsonl", "data/5.parquet"], 2000))
    assert [type(work) for work in cut[-2:]] == [LineSource, WholeSource]
    rows = [
        row
        for work in cut
        if isinstance(work, LinePiece)
        for batch in read_piece(work, reader_of_rows(None, None))
        for row in batch.rows.select("line", "prompt", "completion").iter_rows()
    ]
    assert rows == [
        (place, row["prompt"], row["completion"]) for place, row in enumerate(ROWS[800:], start=1)
    ]
    assert sum(isinstance(work, LinePiece) for work in cut) > 2


def test_a_line_that_is_too_long_is_in_a_piece_too(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n{"text": "' + "b" * 100 + '"}\n{"text": "c"}\n')
    limits = Limits(max_line_bytes=50)
    (piece, end) = cut_sources([str(file)], 1 << 20, limits)
    assert isinstance(piece, LinePiece) and isinstance(end, LineSource)
    (batch,) = read_piece(piece, reader_of_rows(None, None), limits=limits)
    assert batch.rows["completion"].to_list() == ["a", "c"]
    assert batch.reject_counts == {"line_too_long": 1}


def _end(place: int) -> int:
    if place == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return place


def test_jobs_are_taken_as_they_are_needed() -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for place in range(20, 60):
            taken.append(place)
            yield place

    found = list(islice(in_workers(_end, jobs(), 2), 3))
    assert {result for _, result in found} <= set(range(20, 30))
    assert len(taken) < 10


def test_a_killed_worker_is_told_with_what_was_not_finished() -> None:
    def unfinished(jobs: object) -> str:
        return f"left: {jobs}"

    with pytest.raises(AuditError, match=r"left: \[.*3.*\]: try again with fewer --workers"):
        list(in_workers(_end, iter(range(8)), 2, unfinished=unfinished, option="--workers"))
