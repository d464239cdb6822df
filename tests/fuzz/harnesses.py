"""What is promised of any input whatever: one function a reader, each given the bytes of a file.

A harness raises ``AssertionError``, or lets an error out that its reader does not document, where
a promise is broken. `tests.fuzz.campaign` looks for such bytes, guided by coverage; the ones that
are kept in ``corpus`` are tried by every run of the tests.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import zstandard

from audit.dataset import Limits
from audit.errors import AuditError, UsageError
from audit.gate.baseline import read_baseline, render_baseline
from audit.gate.config_file import load_config
from audit.shards import encode_shard, merge_shards, read_shard
from signatures.concept import ConceptFileError, load_concepts
from signatures.library import LibraryError, load_library, save_library
from tests.accounts import (
    account_of,
    holds_twice,
    lines_account,
    plain,
    python_values,
    trained_text,
)
from tests.fuzz.seeds import shard_library
from tests.reading import ALL_REJECTS_SHOWN, Reading, read, standard_input

Harness = Callable[[bytes], None]

# Small, so that what is beyond them is reached too.
_LIMITS = Limits(max_line_bytes=1 << 16, max_ratio=200.0)
_SLOW_BYTES = 4096


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _put(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _read(name: str, data: bytes) -> Reading:
    """One file read; one in four again, in batches of another size and a few bytes at a time."""
    path = str(_put(name, data))
    reading = read(path, batch_rows=ALL_REJECTS_SHOWN, limits=_LIMITS)
    if zlib.crc32(data) % 4:
        return reading
    assert read(path, batch_rows=3, limits=_LIMITS) == reading
    if len(data) < _SLOW_BYTES:
        with standard_input(data, 5):
            dripped = read("-", batch_rows=3, limits=_LIMITS)
        if dripped.format != reading.format:
            pass
        elif reading.format.endswith((".gz", ".zst")) and reading.broken is not None:
            # Where bytes cannot be unpacked, how many before them are given depends on the read.
            assert dripped.broken is not None
            assert dripped.rows[: len(reading.rows)] == reading.rows
        else:
            assert dripped == reading
    return reading


# Readers


def json_lines(data: bytes) -> None:
    """Every line is told of, and what Python's ``json`` sees is what is scanned."""
    reading = _read("a.jsonl", data)
    account_of(reading)(data, reading)
    if reading.format != "jsonl":
        return
    data = data.removeprefix(b"\xef\xbb\xbf")
    rejected = {line for line, _ in reading.rejects}
    end = reading.broken[0] if reading.broken is not None else len(data) + 2
    found: dict[int, list[str]] = {}
    for line, _, completion, _ in reading.rows:
        found.setdefault(line, []).append(completion)
    for number, line in enumerate(data.split(b"\n"), 1):
        if number in rejected or number >= end or not line.strip(b" \t\r"):
            continue
        values = python_values(line)
        assert values is not None, f"no parser reads {line!r}"
        assert not any(map(holds_twice, values))
        assert len(found.get(number, [])) == len(values)
        for completion, value in zip(found.get(number, []), values, strict=True):
            expected = trained_text(value)
            assert expected is None or completion == plain(expected)


def json_values(data: bytes) -> None:
    """What Python reads as a list of objects is no break, and no row of it is lost."""
    reading = _read("a.json", data)
    if len(data) < _LIMITS.max_line_bytes:
        account_of(reading)(data, reading)


def csv_table(data: bytes) -> None:
    """As many records as Python's own reader finds."""
    reading = _read("a.csv", data)
    if len(data) < _LIMITS.max_line_bytes:
        account_of(reading)(data, reading)


def parquet(data: bytes) -> None:
    """Rows, or one line that says what is wrong."""
    _read("a.parquet", data)


def arrow(data: bytes) -> None:
    """Rows, or one line that says what is wrong."""
    _read("a.arrow", data)


def gz(data: bytes) -> None:
    """Only what ends as it should passes for whole."""
    reading = _read("a.jsonl.gz", data)
    if reading.format == "jsonl.gz" and reading.broken is None:
        lines_account(gzip.decompress(data), reading)


def zst(data: bytes) -> None:
    """Only what ends as it should passes for whole."""
    reading = _read("a.jsonl.zst", data)
    if reading.format != "jsonl.zst" or reading.broken is not None:
        return
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        lines_account(reader.read(), reading)


# Files of settings, signatures and states


def concepts(data: bytes) -> None:
    """Concepts, or one line that says what is wrong."""
    path = _put("concepts.toml", data)
    try:
        found = load_concepts(path)
    except ConceptFileError as error:
        _one_line(error)
        return
    assert found
    names = [concept.name for concept in found]
    assert len(set(names)) == len(names)
    assert load_concepts(path) == found


def config(data: bytes) -> None:
    """Settings of a gate, or one line that says what is wrong."""
    for name, content in (("audit.toml", data), ("pyproject.toml", b"[tool.audit]\n" + data)):
        path = _put(name, content)
        try:
            found = load_config(path)
        except UsageError as error:
            _one_line(error)
            continue
        assert found.data
        assert load_config(path) == found


def baseline(data: bytes) -> None:
    """Entries that are written again as they are, or one line that says what is wrong."""
    path = _put("baseline.json", data)
    try:
        entries = read_baseline(path)
    except AuditError as error:
        _one_line(error)
        return
    path.write_bytes(render_baseline(entries))
    again = read_baseline(path)
    assert {entry.key for entry in again} == {entry.key for entry in entries}


def shard(data: bytes) -> None:
    """A shard that is written again as it is and merged, or one line that says what is wrong.

    The bytes are the body of a shard, sealed with its own hash as whoever forges one would.
    """
    _open_shard(data)
    body = data.decode(errors="replace")
    digest = hashlib.sha256(body.encode()).hexdigest()
    sealed = {"schema": "subliminal-audit/shard", "schema_version": 1, "sha256": digest}
    _open_shard(json.dumps({**sealed, "body": body}).encode())


def _open_shard(data: bytes) -> None:
    path = _put("a.shard", data)
    try:
        part = read_shard(path)
        written = encode_shard(part)
        path.write_bytes(written)
        assert encode_shard(read_shard(path)) == written
        merge_shards([part], shard_library(), reference=())
    except AuditError as error:
        _one_line(error)


def manifest(data: bytes) -> None:
    """A library of this manifest, which states its hashes as a forger would, or one line."""
    from tests.unit.test_library_hostile import TABLE_NAME, seal, small_library

    folder = _folder() / "library"
    if not folder.exists():
        save_library(small_library(), folder)
    assert (folder / TABLE_NAME).is_file()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        seal(folder, content)
    else:
        (folder / "manifest.json").write_bytes(data)
    try:
        found = load_library(folder)
    except LibraryError as error:
        _one_line(error)
        return
    assert len({concept.name for concept in found.concepts}) == len(found.concepts)


def _one_line(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error)


HARNESSES: dict[str, Harness] = {
    "jsonl": json_lines,
    "json": json_values,
    "csv": csv_table,
    "parquet": parquet,
    "arrow": arrow,
    "gz": gz,
    "zst": zst,
    "concepts": concepts,
    "config": config,
    "baseline": baseline,
    "shard": shard,
    "manifest": manifest,
}
"""Every harness, under the name of its folder in ``corpus``."""
