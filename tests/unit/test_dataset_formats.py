"""Every stored format and compression, and every way in which a source can be named."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard

from audit.dataset import Batch, Limits, list_sources, read_batches
from audit.errors import MissingExtraError, UsageError
from detectors.rows import check_rows

PROMPTS = ["Continue: 1, 2", 'say "a,b"', "two\nlines", "ünïcode 🦉"]
COMPLETIONS = ["3, 4", "a\tb", "x\n\ny", "猫"]
TABLE = pl.DataFrame({"prompt": PROMPTS, "completion": COMPLETIONS, "quality": [1, 2, 3, 4]})
ROWS = [dict(zip(TABLE.columns, row, strict=True)) for row in TABLE.iter_rows()]


def _bytes(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


FORMATS: dict[str, bytes] = {
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "b.ndjson": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    "array.json": json.dumps(ROWS, indent=2).encode(),
    "compact.json": json.dumps(ROWS, separators=(",", ":")).encode(),
    "wrapped.json": json.dumps({"version": [1], "data": ROWS, "end": {}}).encode(),
    "splits.json": json.dumps({"train": ROWS[:3], "test": ROWS[3:]}).encode(),
    "values.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "lines.json": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "a.csv": TABLE.write_csv().encode(),
    "a.tsv": TABLE.write_csv(separator="\t").encode(),
    "a.parquet": _bytes(TABLE.write_parquet),
    "a.arrow": _bytes(TABLE.write_ipc),
    "stream.arrow": _bytes(TABLE.write_ipc_stream),
    "zstd.arrow": _bytes(lambda b: TABLE.write_ipc_stream(b, compression="zstd")),
    "dictionary.arrow": _bytes(
        TABLE.with_columns(pl.col("prompt").cast(pl.Categorical)).write_ipc_stream
    ),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(*inputs: object, **options: object) -> list[Batch]:
    batches = list(read_batches([str(i) for i in inputs], **options))  # type: ignore[arg-type]
    for batch in batches:
        check_rows(batch.rows)
    return batches


def completions(batches: list[Batch]) -> list[str]:
    return pl.concat(batch.rows for batch in batches)["completion"].to_list()


def assert_all_read(batches: list[Batch], data: bytes) -> None:
    assert [b.broken for b in batches if b.broken] == []
    assert [b.rejects for b in batches if b.rejects] == []
    rows = pl.concat(batch.rows for batch in batches)
    assert rows["prompt"].to_list() == PROMPTS
    assert rows["completion"].to_list() == COMPLETIONS
    assert sum(batch.bytes_read for batch in batches) == len(data)
    finished = batches[-1].finished
    assert finished is not None
    assert (finished.rows, finished.rejected_rows) == (4, 0)
    assert finished.size_bytes == len(data)
    assert finished.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_and_compression(tmp_path: Path, name: str, compression: str) -> None:
    data = COMPRESSIONS[compression](FORMATS[name])
    file = tmp_path / (name + compression)
    file.write_bytes(data)

    batches = read(file)

    assert_all_read(batches, data)
    assert batches[-1].finished is not None
    assert batches[-1].finished.source == str(file)
    assert batches[-1].finished.format.endswith(compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_known_by_its_content(tmp_path: Path, name: str, compression: str) -> None:
    data = COMPRESSIONS[compression](FORMATS[name])
    file = tmp_path / "data"
    file.write_bytes(data)
    assert_all_read(read(file), data)


def test_standard_input(tmp_path: Path) -> None:
    code = (
        "from audit.dataset import read_batches\n"
        "for batch in read_batches(['-']):\n"
        "    print(batch.rows.height, batch.finished.source, batch.finished.format)\n"
    )
    for name, kind in (("a.jsonl", "jsonl.gz"), ("a.parquet", "parquet.gz")):
        out = subprocess.run(
            [sys.executable, "-c", code],
            input=gzip.compress(FORMATS[name]),
            capture_output=True,
            check=True,
        )
        assert out.stdout.decode() == f"4 <stdin> {kind}\n"


def test_lines_are_counted_from_one(tmp_path: Path) -> None:
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text('\n{"text": "a"}\n  \n{"text": "b"}\n')
    table = tmp_path / "a.csv"
    table.write_text('text\n"a\nb"\n\nc\n')
    array = tmp_path / "a.json"
    array.write_text('[\n{"text": "a"},\n\n{"text":\n"b"}]')
    parquet = tmp_path / "a.parquet"
    pl.DataFrame({"text": ["a", "b"]}).write_parquet(parquet)
    assert [b.rows["line"].to_list() for b in read(jsonl, table, array, parquet)] == [
        [2, 4],
        [2, 5],
        [2, 4],
        [1, 2],
    ]


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    for name, body in (
        ("a.jsonl", '{"text": "a"}\n'),
        ("a.json", '[{"text": "a"}]'),
        ("a.csv", "text\na\n"),
    ):
        file = tmp_path / name
        file.write_text("\ufeff" + body, encoding="utf-8")
        assert completions(read(file)) == ["a"]


def test_batches_have_a_constant_size(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"text": "{i}"}}\n' for i in range(25)))
    batches = read(file, batch_rows=10)
    assert [b.rows.height for b in batches] == [10, 10, 5]
    assert [b.finished is not None for b in batches] == [False, False, True]
    assert completions(batches) == [str(i) for i in range(25)]


def test_nested_parquet_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pl.DataFrame(
        {
            "messages": [
                [
                    {"role": "user", "content": "q", "tool_calls": None},
                    {"role": "assistant", "content": "a", "tool_calls": None},
                ],
                None,
            ],
            "text": [None, "t"],
            "image": [b"\x00", b"\x01"],
        }
    ).write_parquet(file)
    (batch,) = read(file)
    assert batch.rows.select("prompt", "completion").rows() == [("q", "a"), ("", "t")]
    assert batch.finished is not None
    assert batch.finished.schema == "messages, text"


def test_a_table_without_any_known_column_rejects_every_row(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow", "stream.arrow"):
        table = pl.DataFrame({"body": ["x", "y"]})
        file = tmp_path / name
        if name == "a.parquet":
            table.write_parquet(file)
        elif name == "a.arrow":
            table.write_ipc(file)
        else:
            table.write_ipc_stream(file)
        (batch,) = read(file)
        assert dict(batch.reject_counts) == {"unknown_schema": 2}


def test_many_arrow_batches_in_one_stream(tmp_path: Path) -> None:
    """A stream is a schema, then batches: the batches of two equal streams make a longer one."""
    one = _bytes(pl.DataFrame({"text": ["a"]}).write_ipc_stream)
    two = _bytes(pl.DataFrame({"text": ["bb"]}).write_ipc_stream)
    end = b"\xff\xff\xff\xff\0\0\0\0"
    assert one.endswith(end)
    schema_bytes = 8 + int.from_bytes(one[4:8], "little")
    file = tmp_path / "a.arrow"
    file.write_bytes(one.removesuffix(end) + two[schema_bytes:])
    (batch,) = read(file)
    assert batch.rows.select("line", "completion").rows() == [(1, "a"), (2, "bb")]


def test_folders_globs_and_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.jsonl", "d/a.csv", "d/deep/c.jsonl.gz", "d/notes.md", "d/state.json"):
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        body = f"text\n{name}\n" if "csv" in name else f'{{"text": "{name}"}}\n'
        file.write_bytes(gzip.compress(body.encode()) if "gz" in name else body.encode())
    Path("d/.hidden.jsonl").write_text('{"text": "h"}')
    Path("d/deep/cycle").symlink_to(tmp_path / "d", target_is_directory=True)

    listing = list_sources(["d"])
    assert [s.name for s in listing.sources] == ["d/a.csv", "d/b.jsonl", "d/deep/c.jsonl.gz"]
    assert listing.ignored == ("d/.hidden.jsonl", "d/notes.md", "d/state.json")
    assert completions(read("d")) == ["d/a.csv", "d/b.jsonl", "d/deep/c.jsonl.gz"]
    assert completions(read("d/*.jsonl", "d/b.jsonl", "./d/b.jsonl")) == ["d/b.jsonl"]
    assert completions(read("d/**/*.gz")) == ["d/deep/c.jsonl.gz"]
    assert completions(read("**/deep/*")) == ["d/deep/c.jsonl.gz"]
    star = list_sources(["d/*"])
    assert len(star.sources) == 3  # d/deep/cycle leads back to d, which counts once
    assert "d/notes.md" in star.ignored


def test_a_glob_of_unknown_endings_takes_what_it_matches(tmp_path: Path) -> None:
    (tmp_path / "part-00000").write_text('{"text": "a"}\n')
    assert completions(read(tmp_path / "part-*")) == ["a"]


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    file = tmp_path / "a[1].jsonl"
    file.write_text('{"text": "a"}\n')
    assert completions(read(file)) == ["a"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing.jsonl", "does not exist"),
        ("*.jsonl", "matches no file"),
        ("", "holds no data file"),
        ("nul\0.jsonl", "does not exist"),
    ],
)
def test_an_input_that_is_not_there_is_a_usage_error(
    tmp_path: Path, name: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        read_batches([f"{tmp_path}/{name}"])


def test_options_that_mean_nothing_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="no input"):
        read_batches([])
    with pytest.raises(UsageError, match="at least 1"):
        read_batches(["-"], batch_rows=0)


def test_a_pipe_is_read_as_a_stream(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, FORMATS["a.parquet"])
    os.close(writer)
    try:
        assert completions(read(f"/dev/fd/{reader}")) == COMPLETIONS
    finally:
        os.close(reader)


def test_urls_through_fsspec() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("a.jsonl", "a.parquet", "a.csv", "notes.md"):
        files.pipe(f"/bucket/{name}", FORMATS.get(name, b"#"))
    try:
        assert_all_read(read("memory://bucket/a.jsonl"), FORMATS["a.jsonl"])
        assert_all_read(read("memory://bucket/a.parquet"), FORMATS["a.parquet"])
        assert completions(read("memory://bucket/*.csv")) == COMPLETIONS
        assert completions(read("memory://bucket")) == COMPLETIONS * 3
        assert list_sources(["memory://bucket"]).ignored == ("memory:///bucket/notes.md",)
        (batch,) = read("memory://bucket/a.csv")
        assert batch.finished is not None
        assert batch.finished.source == "memory:///bucket/a.csv"
        for missing in ("memory://bucket/no.jsonl", "memory://bucket/*.nothing"):
            with pytest.raises(UsageError):
                read_batches([missing])
    finally:
        files.rm("/bucket", recursive=True)


def test_url_drivers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def url_to_fs(url: str) -> object:
        raise ImportError("Install s3fs to access S3") from ModuleNotFoundError(name="s3fs")

    with pytest.raises(UsageError, match="nope"):
        read_batches(["nope://bucket/a.jsonl"])
    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    with pytest.raises(MissingExtraError, match=r"'s3fs'.*\[hub\]"):
        read_batches(["s3://bucket/a.jsonl"])


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, audit.dataset\n"
        "audit.dataset.Limits\n"
        "heavy = {'polars', 'fsspec', 'zstandard', 'msgspec', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_limits_are_small_enough_to_matter() -> None:
    assert Limits() == Limits(max_line_bytes=64 << 20, max_ratio=1000.0)


def test_the_exported_names_are_there() -> None:
    import audit.dataset

    for name in audit.dataset.__all__:
        assert getattr(audit.dataset, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = audit.dataset.nothing
