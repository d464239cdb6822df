"""What is wrong with rows and sources is counted and told, and never hides the rest."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import struct
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.dataset import Batch, BrokenSource, Limits, RejectCode, read_batches

LIMITS = Limits()
LINES = 3000
JSONL = "".join(json.dumps({"text": f"row {i} {i * 7919 % 1000}"}) + "\n" for i in range(LINES))


def read_bytes(
    folder: Path, name: str, data: bytes, limits: Limits = LIMITS
) -> tuple[list[str], Counter[str], BrokenSource | None, list[Batch]]:
    """Completions, counts of rejects by code, the break, and the batches of one file."""
    file = folder / name
    file.write_bytes(data)
    batches = list(read_batches([str(file)], limits=limits))
    assert [batch.finished is not None for batch in batches] == [False] * (len(batches) - 1) + [
        True
    ]
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update(batch.reject_counts)
    finished = batches[-1].finished
    assert finished is not None
    completions = pl.concat(b.rows for b in batches)["completion"].to_list()
    assert finished.rows == len(completions)
    assert finished.rejected_rows == counts.total()
    assert finished.size_bytes == len(data)
    return completions, counts, batches[-1].broken, batches


DEEP = b'{"text": "x", "extra": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LINE_FAULTS: list[tuple[bytes, RejectCode]] = [
    (b"{", RejectCode.BAD_JSON),
    (b'{"text": "a"', RejectCode.BAD_JSON),
    (b'{"text": "a\tb"}', RejectCode.BAD_JSON),
    (b"{'text': 'a'}", RejectCode.BAD_JSON),
    (b'{"text": ' + b"9" * 5000 + b"}", RejectCode.BAD_JSON),
    (b'{"text": "hidden", "text": "a"}', RejectCode.DUPLICATE_KEY),
    (b'{"text": "a", "te\\u0078t" : "hidden"}', RejectCode.DUPLICATE_KEY),
    (b'{"text": "a: \\"b\\": c", "text"\t:"d"}', RejectCode.DUPLICATE_KEY),
    (b'{"text": "a", "meta": [{"k\\\\": 1, "k\\\\": 2}]}', RejectCode.DUPLICATE_KEY),
    (b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', RejectCode.DUPLICATE_KEY),
    (b"[1, 2]", RejectCode.NOT_AN_OBJECT),
    (b"3", RejectCode.NOT_AN_OBJECT),
    (b"null", RejectCode.NOT_AN_OBJECT),
    (b'"text"', RejectCode.NOT_AN_OBJECT),
    (b'{"text": "\xff"}', RejectCode.INVALID_UTF8),
    (b'{"text": "\xed\xa0\x80"}', RejectCode.INVALID_UTF8),
    (DEEP, RejectCode.TOO_DEEP),
    (b'{"text": 3}', RejectCode.WRONG_TYPE),
    (b'{"text": NaN}', RejectCode.WRONG_TYPE),
    (b'{"body": "a"}', RejectCode.UNKNOWN_SCHEMA),
]


@pytest.mark.parametrize(("line", "code"), LINE_FAULTS, ids=range(len(LINE_FAULTS)))
def test_a_bad_line_is_counted_and_hides_nothing(
    tmp_path: Path, line: bytes, code: RejectCode
) -> None:
    data = b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n'
    completions, counts, broken, batches = read_bytes(tmp_path, "a.jsonl", data)
    assert completions == ["a", "b"]
    assert counts == {code: 1}
    assert broken is None
    (reject,) = batches[0].rejects
    assert (reject.source, reject.line, reject.code) == (str(tmp_path / "a.jsonl"), 2, code)
    assert reject.message and "\n" not in reject.message


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"text": "a", "score": NaN}', "a"),
        (b'{"text": "a", "score": -Infinity}', "a"),
        (b'{"text": "a", "score": 1e999}', "a"),
        (b'{"text": "a", "id": 123456789012345678901234567890}', "a"),
        (b'{"text": "\\ud83e\\udd89"}', "\U0001f989"),
        (b'{"text": "a\\ud800b"}', "a\ufffdb"),
        (b'{"text": "a", "text" : "\\u0061"}', "a"),
        (b'\xef\xbb\xbf{"text": "a"}', "a"),
        (b'{"text": "a\\u0000b"}', "a\0b"),
        (b'\t {"text": "a"} \r', "a"),
    ],
)
def test_what_a_trainer_would_read_is_read(tmp_path: Path, line: bytes, text: str) -> None:
    completions, counts, broken, _ = read_bytes(tmp_path, "a.jsonl", line + b"\n")
    assert (completions, counts, broken) == ([text], Counter(), None)
    line = line.removeprefix(b"\xef\xbb\xbf")
    values, counts, broken, _ = read_bytes(tmp_path, "a.json", b"[" + line + b"]")
    assert (values, counts, broken) == ([text], Counter(), None)


def test_several_objects_on_one_line_are_all_read(tmp_path: Path) -> None:
    data = b'{"text": "a"} {"text": "b"}{"text": "c"}\n{"text": "d"}\n'
    completions, counts, _, batches = read_bytes(tmp_path, "a.jsonl", data)
    assert completions == ["a", "b", "c", "d"]
    assert batches[0].rows["line"].to_list() == [1, 1, 1, 2]
    assert not counts


def test_a_line_beyond_the_limit_is_rejected(tmp_path: Path) -> None:
    # Longer than two chunks of 1 MiB, so it is never held whole.
    data = b'{"text": "a"}\n{"text": "' + b"x" * (3 << 20) + b'"}\n{"text": "b"}\n'
    limits = Limits(max_line_bytes=1000)
    completions, counts, broken, batches = read_bytes(tmp_path, "a.jsonl", data, limits)
    assert len(completions) == 2
    assert counts == {"line_too_long": 1}
    assert broken is None
    assert batches[0].rejects[0].line == 2
    # Whether a CSV record ends where its line does cannot be told of a line that is not held.
    completions, _, broken, _ = read_bytes(tmp_path, "a.csv", b"text\n" + data, limits)
    assert completions == ['{"text": "a"}']
    assert broken is not None
    assert (broken.line, broken.message) == (3, "a record of more than 1,000 bytes")


def test_examples_of_rejects_are_few_and_counts_exact(tmp_path: Path) -> None:
    _, counts, _, batches = read_bytes(tmp_path, "a.jsonl", b"bad\n" * 20_000)
    assert counts == {"bad_json": 20_000}
    assert [len(batch.rejects) for batch in batches] == [20, 20]
    assert [batch.reject_counts.total() for batch in batches] == [16384, 3616]


def test_csv_faults(tmp_path: Path) -> None:
    data = b'prompt,completion\na,b\na,b,c\na\n\xff,b\na,"c ""d"""\na,\n'
    completions, counts, broken, batches = read_bytes(tmp_path, "a.csv", data)
    assert completions == ["b", 'c "d"']
    assert counts == {"bad_csv": 1, "invalid_utf8": 1, "prompt_only": 2}
    assert [(r.line, r.code) for r in batches[0].rejects] == [
        (3, "bad_csv"),
        (4, "prompt_only"),
        (5, "invalid_utf8"),
        (7, "prompt_only"),
    ]
    assert broken is None


def test_csv_cells_may_be_long_and_flags_are_text(tmp_path: Path) -> None:
    long = "y" * 300_000
    data = f"prompt,completion,label\nq,{long},True\nq,no,False\n".encode()
    completions, counts, _, batches = read_bytes(tmp_path, "a.csv", data)
    assert completions == [long, ""]
    assert batches[0].rows["rejected"].to_list() == [None, "no"]
    assert not counts


def test_bytes_that_are_not_utf8_lose_only_their_element(tmp_path: Path) -> None:
    data = b'[{"text": "a"}, {"text": "\xff"}, {"text": "b"}, 3]'
    completions, counts, broken, _ = read_bytes(tmp_path, "a.json", data)
    assert completions == ["a", "b"]
    assert counts == {"invalid_utf8": 1, "not_an_object": 1}
    assert broken is None


def test_what_follows_an_array_is_not_hidden(tmp_path: Path) -> None:
    data = b'[{"text": "a"}] {"text": "b"} [[{"text": "c"}], {"text": "d"}]'
    completions, counts, _, _ = read_bytes(tmp_path, "a.json", data)
    assert completions == ["a", "b", "d"]
    assert counts == {"not_an_object": 1}


def test_a_wrapper_that_is_also_a_row_is_read_as_both(tmp_path: Path) -> None:
    data = b'{"data": [{"text": "a"}], "text": "b"}'
    assert read_bytes(tmp_path, "a.json", data)[0] == ["a", "b"]


def arrow(rows: int) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"text": [f"row {i}" for i in range(rows)]}).write_ipc_stream(buffer)
    return buffer.getvalue()


def arrow_file(rows: int) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"text": [f"row {i}" for i in range(rows)]}).write_ipc(buffer)
    return buffer.getvalue()


def parquet(rows: int, group: int) -> bytes:
    buffer = io.BytesIO()
    table = pl.DataFrame({"text": [f"row {i} {i * 7919 % 1000}" for i in range(rows)]})
    table.write_parquet(buffer, row_group_size=group, compression="zstd")
    return buffer.getvalue()


GZ = gzip.compress(JSONL.encode())
ZST = zstandard.ZstdCompressor().compress(JSONL.encode())
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "gz cut": ("a.jsonl.gz", GZ[:-2000], "breaks off"),
    "gz without its checksum": ("a.jsonl.gz", GZ[:-8], "breaks off"),
    "gz corrupt": ("a.jsonl.gz", GZ[:4000] + b"\0" * 64 + GZ[4064:], "not valid gzip"),
    "gz and rubbish": ("a.jsonl.gz", GZ + b"rubbish", "not valid gzip"),
    "zst cut": ("a.jsonl.zst", ZST[:-2000], "breaks off"),
    "zst and rubbish": ("a.jsonl.zst", ZST + b"rubbish", "not valid Zstandard"),
    "csv gz cut": ("a.csv.gz", gzip.compress(b"text\n" + JSONL.encode())[:-2000], "breaks off"),
    "json gz cut": (
        "a.json.gz",
        gzip.compress(b"[" + JSONL.replace("\n", ",\n").encode() + b"{}]")[:-2000],
        "breaks off",
    ),
    "jsonl cut": ("a.jsonl", JSONL[:-5].encode(), "the last line"),
    "json cut in a value": ("a.json", b'[{"text": "a"}, {"text": "b', "breaks off"),
    "json cut after a value": ("a.json", b'[{"text": "a"}, {"text": "b"}', "']' is missing"),
    "json cut after a comma": ("a.json", b'[{"text": "a"},', "breaks off"),
    "json wrapper cut": ("a.json", b'{"data": [{"text": "a"}]', "is missing at the end"),
    "json syntax": ("a.json", b'[{"text": "a"}, {"text": b}, {"text": "c"}]', "not JSON"),
    "json deep": ("a.json", b'[{"text": "a"}, ' + DEEP + b"]", "nested too deeply"),
    "csv quote": ("a.csv", b'text\na\n"b\nc\nd\n', "never closed"),
    "csv cut": ("a.csv", b"prompt,completion\na,b\nc", "too few cells"),
    "utf-16": ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "UTF-16"),
    "unknown": ("a.bin", b"\x00\x01\x02", "no known format"),
    "no parquet": ("a.parquet", b"text\n", "not readable Parquet"),
    "empty parquet": ("a.parquet", b"", "not readable Parquet"),
    "parquet cut": ("a.parquet", parquet(3000, 1000)[:-100], "not readable Parquet"),
    "no arrow": ("a.arrow", b"text of some length", "corrupt Arrow"),
    "arrow cut": ("a.arrow", arrow(100)[:-200], "breaks off inside"),
    "arrow file cut": ("a.arrow", arrow_file(100)[:-900], "breaks off inside"),
    "arrow buffer": (
        "a.arrow",
        arrow(100).replace(struct.pack("<qq", 0, 1600), struct.pack("<qq", 0, 1 << 55)),
        "outside its message",
    ),
    "arrow rows": (
        "a.arrow",
        arrow(100).replace(struct.pack("<qq", 100, 0), struct.pack("<qq", 1 << 40, 0)),
        "impossible number of rows",
    ),
    "arrow header": ("a.arrow", b"\xff\xff\xff\xff" + b"\x7f" * 100, "impossible length"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_source_that_breaks_off_is_told(tmp_path: Path, case: str) -> None:
    name, data, message = BROKEN[case]
    _, _, broken, _ = read_bytes(tmp_path, name, data)
    assert broken is not None
    assert message in broken.message
    assert broken.source == str(tmp_path / name)
    assert "\n" not in broken.message


@pytest.mark.parametrize("case", ["gz cut", "json gz cut", "jsonl cut"])
def test_rows_before_a_break_are_read(tmp_path: Path, case: str) -> None:
    name, data, _ = BROKEN[case]
    completions, counts, broken, _ = read_bytes(tmp_path, name, data)
    whole = [json.loads(line)["text"] for line in JSONL.splitlines()]
    assert len(completions) > LINES // 4
    assert completions == whole[: len(completions)]
    assert not counts
    assert broken is not None
    assert broken.line == len(completions) + 1


def test_a_csv_row_that_was_cut_by_a_break_is_no_row(tmp_path: Path) -> None:
    text = "prompt,completion\n" + "".join(f"{i},{i * 7919 % 1000}\n" for i in range(LINES))
    data = gzip.compress(text.encode())[:-1000]
    completions, _, broken, _ = read_bytes(tmp_path, "a.csv.gz", data)
    assert len(completions) > LINES // 2
    assert completions == [str(i * 7919 % 1000) for i in range(len(completions))]
    assert broken is not None
    assert broken.line == len(completions) + 2


def test_rows_before_a_zst_break_are_read(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{i} {i * 2654435761 % 10**9}"}) for i in range(20_000)]
    data = zstandard.ZstdCompressor().compress("\n".join(lines).encode())
    completions, _, broken, _ = read_bytes(tmp_path, "a.jsonl.zst", data[: len(data) // 2])
    assert broken is not None
    assert 4000 < len(completions) < 20_000
    assert completions == [json.loads(line)["text"] for line in lines[: len(completions)]]


def test_rows_before_a_corrupt_row_group_are_read(tmp_path: Path) -> None:
    data = bytearray(parquet(6000, 1000))
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    completions, _, broken, _ = read_bytes(tmp_path, "a.parquet", bytes(data))
    assert broken is not None
    assert len(completions) == 3000
    assert completions == [f"row {i} {i * 7919 % 1000}" for i in range(len(completions))]
    assert broken.line == len(completions) + 1


def test_one_broken_source_does_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"te')
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    batches = list(read_batches([str(tmp_path)]))
    assert [b.rows["completion"].to_list() for b in batches] == [["a"], ["b"]]
    assert [b.broken is None for b in batches] == [False, True]


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n')
    batches = read_batches([str(file)])
    file.unlink()
    (batch,) = batches
    assert batch.broken is not None
    assert "cannot be opened" in batch.broken.message
    assert batch.finished is not None
    assert batch.finished.schema == "unknown"


def test_an_empty_file_is_empty_and_not_broken(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json", "a.csv", "empty"):
        completions, counts, broken, _ = read_bytes(tmp_path, name, b"")
        assert (completions, counts, broken) == ([], Counter(), None)


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_decompression_bombs(tmp_path: Path, kind: str) -> None:
    line = b'{"text": "a"}\n'
    if kind == "gz":
        data = gzip.compress(line + b" " * (70 << 20), compresslevel=9)
    else:
        data = zstandard.ZstdCompressor().compress(line + b" " * (70 << 20))
    limits = Limits(max_line_bytes=1 << 20, max_ratio=500)
    completions, _, broken, _ = read_bytes(tmp_path, f"a.jsonl.{kind}", data, limits)
    assert completions == ["a"]
    assert broken is not None
    assert "bomb" in broken.message


def test_members_and_frames_may_follow_one_another(tmp_path: Path) -> None:
    half = len(JSONL) // 2
    first, second = JSONL[:half].encode(), JSONL[half:].encode()
    compress = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    for name, data in (
        ("a.gz", gzip.compress(first) + gzip.compress(second) + b"\0" * 512),
        ("a.zst", skippable + compress(first) + skippable + compress(second)),
    ):
        completions, counts, broken, _ = read_bytes(tmp_path, name, data)
        assert (len(completions), counts, broken) == (LINES, Counter(), None)


good = st.text(min_size=1).filter(lambda s: s.strip())
bad = st.one_of(
    st.sampled_from([line for line, code in LINE_FAULTS if code is not RejectCode.TOO_DEEP]),
    st.binary(min_size=1, max_size=20).map(lambda b: b"\x01" + b.replace(b"\n", b"")),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(st.one_of(good, bad)), batch_rows=st.integers(1, 7), ascii_only=st.booleans())
def test_rows_and_rejects_are_all_lines(
    tmp_path: Path, lines: list[str | bytes], batch_rows: int, ascii_only: bool
) -> None:
    file = tmp_path / "a.jsonl"
    with file.open("wb") as out:
        for line in lines:
            if isinstance(line, str):
                line = json.dumps({"text": line}, ensure_ascii=ascii_only).encode()
            out.write(line + b"\n")

    batches = list(read_batches([str(file)], batch_rows=batch_rows))

    completions = pl.concat(b.rows for b in batches)["completion"].to_list()
    assert completions == [line for line in lines if isinstance(line, str)]
    assert sum(b.reject_counts.total() for b in batches) == len(lines) - len(completions)
    assert all(b.rows.height + b.reject_counts.total() <= batch_rows for b in batches)
    assert [b.broken for b in batches if b.broken] == []


def test_every_reject_code_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert {str(code) for code in RejectCode} <= documented


def test_every_schema_is_documented() -> None:
    from audit.dataset import SCHEMAS

    text = (Path(__file__).parents[2] / "docs" / "inputs.md").read_text()
    assert [s.name for s in SCHEMAS if f"| `{s.name}` |" not in text] == []


@pytest.mark.parametrize("change", ["cut", "grown", "written over", "replaced", "removed"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_source_that_changes_while_it_is_read_is_incomplete(
    tmp_path: Path, change: str, ending: str
) -> None:
    path = tmp_path / f"data.{ending}"
    rows = pl.DataFrame([{"prompt": "p", "completion": f"{n}"} for n in range(30)])
    rows.write_ndjson(path) if ending == "jsonl" else rows.write_parquet(path)
    whole = path.read_bytes()
    batches = read_batches([str(path)], batch_rows=10)
    seen = [next(batches)]
    if change == "cut":
        os.truncate(path, len(whole) // 2)
    elif change == "grown":
        with path.open("ab") as stream:
            stream.write(whole)
    elif change == "written over":
        path.write_bytes(whole)
        os.utime(path, (1, 1))  # clocks of file systems may be coarse
    elif change == "removed":
        path.unlink()
    else:
        (tmp_path / "other").write_bytes(whole)
        (tmp_path / "other").replace(path)
    seen += batches
    broken = [batch.broken for batch in seen if batch.broken]
    assert [found.source for found in broken] == [str(path)]
    assert seen[-1].finished is not None
    if change not in ("cut", "grown"):
        assert "changed while it was read" in broken[0].message
        assert sum(batch.rows.height for batch in seen) == 30
