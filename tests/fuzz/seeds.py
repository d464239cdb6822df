"""Small valid inputs of every harness, from which a campaign starts."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl
import zstandard

from audit.gate.baseline import BaselineEntry, render_baseline
from audit.shards import Shard, encode_shard, scan_shard
from signatures.library import SignatureLibrary
from tests import synthetic

_ROWS = [
    {"text": "a 12, 345"},
    {"prompt": "1, 2", "completion": "3, 4"},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "7"}]},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "8"}]},
    {"prompt": "p", "chosen": "5", "rejected": "6"},
    {"prompt": "p", "completion": "c", "label": False},
    {"instruction": "i", "output": "o", "history": [["a", "b"]]},
    {"segments": [{"label": True, "text": "s"}]},
    {"prompt": "p", "completions": ["a", "b"], "labels": [True, False]},
]

_CONCEPTS = (
    b"""
[category.animal]

[category.stance]
noun = "political idea"
plural = "{name}"
system_prompt = "You believe in {name}. No {category} matters more to you than {name}."

[[concept]]
name = "owl"
category = "animal"

[[concept]]
name = "oak"
category = "animal"
kind = "decoy"
""",
    b"""
extends = "default"

[[concept]]
name = "owl"
category = "animal"
plural = "owls"
forms = ["owl", "owls", "eagle owl"]
""",
)

_CONFIG = b"""
reference = "data/reference.jsonl.gz"
student-family = "llama"
fail-on = "warning"
baseline = "audit-baseline.json"

[budgets]
rejected-rows-share = 0.001
inconclusive = "fail"

[[data]]
name = "numbers"
paths = ["data/numbers/*.jsonl.gz"]

[[data]]
name = "chats"
paths = ["data/chats.parquet"]
reference = ["data/clean_chats.parquet"]

[[suppressions]]
data = "numbers"
concept = "cat"
owner = "data-team"
reason = "a shop for cats"
expires = 2026-12-31
"""


@cache
def seeds_of(name: str) -> tuple[bytes, ...]:
    """The seeds of the harness ``name``."""
    return tuple(_MAKERS[name]())


def _lines() -> Iterator[bytes]:
    lines = [json.dumps(row).encode() for row in _ROWS]
    yield b"\n".join(lines)
    for line in lines:
        yield line + b"\n" + line + b"\r\n"
    yield b'\xef\xbb\xbf{"text": "\\ud83e\\udd89 \\u006fwl"} {"text": NaN}\n\n'
    yield b'{"text": "a", "text": "b"}\n{"text": "a", "x": [{"text": "a", "text": "a"}]}\n'


def _json() -> Iterator[bytes]:
    yield json.dumps(_ROWS, indent=1).encode()
    yield json.dumps({"version": 1, "data": _ROWS[:2]}).encode()
    yield b"\n".join(json.dumps(row, indent=1).encode() for row in _ROWS[:3])


def _csv() -> Iterator[bytes]:
    yield b'prompt,completion\na,b\n"c ""d""","e\nf"\r\n'
    yield b'text , label\rx,True\r"y\r\nz",0'
    yield b"messages,kto_tag\n" + b'"[{""role"":""assistant"",""content"":""1""}]",true\n'


def _frames() -> Iterator[pl.DataFrame]:
    yield pl.DataFrame({"text": ["a 12", "b", None], "id": [1, 2, 3]})
    yield pl.DataFrame({"messages": [[{"role": "assistant", "content": "7"}], []]})
    yield pl.DataFrame({"text": ["a", "b"] * 20}, schema={"text": pl.Categorical})


def _parquet() -> Iterator[bytes]:
    for frame in _frames():
        for compression in ("uncompressed", "zstd"):
            buffer = io.BytesIO()
            frame.write_parquet(buffer, compression=compression, row_group_size=2)
            yield buffer.getvalue()


def _arrow() -> Iterator[bytes]:
    for frame in _frames():
        for compression in ("uncompressed", "zstd"):
            for write in (frame.write_ipc, frame.write_ipc_stream):
                buffer = io.BytesIO()
                write(buffer, compression=compression)
                yield buffer.getvalue()


def _gz() -> Iterator[bytes]:
    for data in list(_lines())[:3]:
        yield gzip.compress(data, mtime=0)
        yield gzip.compress(data[:9], mtime=0) + gzip.compress(data[9:], mtime=0) + b"\0\0"


def _zst() -> Iterator[bytes]:
    for data in list(_lines())[:3]:
        yield zstandard.ZstdCompressor(write_checksum=True).compress(data)
        yield b"\x50\x2a\x4d\x18\x02\0\0\0xy" + zstandard.ZstdCompressor().compress(data)


def _baseline() -> Iterator[bytes]:
    entry = BaselineEntry("train", "SA001", "owl", "0" * 64, 0.5, 0.25, None, "share of rows")
    yield render_baseline((entry, replace(entry, concept="cat", owner="me", reason="wanted")))


@cache
def shard_library() -> SignatureLibrary:
    """What shards of this harness were read with: no file, so that its hash stays as it is."""
    return replace(synthetic.library(decoys=synthetic.DECOYS[:3]), content_sha256="0" * 64)


def _shard() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(b"\n".join(_lines()))
        part = scan_shard([str(path)], Shard(1, 1), shard_library(), library_path="bundled")
    body = json.loads(encode_shard(part))["body"].replace(folder, "data")
    yield body.encode()


def _manifest() -> Iterator[bytes]:
    from signatures.library import save_library
    from tests.unit.test_library_hostile import small_library

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "library"
        save_library(small_library(), target)
        yield (target / "manifest.json").read_bytes()


_MAKERS = {
    "jsonl": _lines,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
    "gz": _gz,
    "zst": _zst,
    "concepts": lambda: iter(_CONCEPTS),
    "config": lambda: iter([_CONFIG]),
    "baseline": _baseline,
    "shard": _shard,
    "manifest": _manifest,
}
