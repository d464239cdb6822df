"""Rows of every schema with the texts that they mean, and files of every format that hold them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.made_rows import MAKERS, WORDS, Made, columns_of, frame_of

_MORE = 20 if settings.get_current_profile_name() == "fuzz" else 1


def examples(count: int) -> settings:
    """``count`` examples in the gate, many more under ``--hypothesis-profile=fuzz``."""
    return settings(
        max_examples=count * _MORE,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# Texts


_HARD = [
    *('"', "\\", "\n", "\r", "\r\n", "\t", ",", "\0", "\x1c", "\x85", "\u2028", "\ufeff", "'"),
    *('""', '\\"', '":', '{"text": "x"}', "[{", "]", "null", "NaN", "\\u0061", "\\ud800", "#", " "),
    *("owl", "١٢٣", "123", "1234567890", "e\u0301", "猫", "\U0001f989", "ſ", "\u200b"),
]
_CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.lists(st.one_of(st.sampled_from(_HARD), st.text(_CHARACTERS, max_size=6)), max_size=6)
"""Pieces of a text, to be joined."""


def some_text() -> st.SearchStrategy[str]:
    """Any text that is not all space."""
    return TEXTS.map("".join).filter(lambda text: bool(text.strip()))


# Rows


@st.composite
def made_rows(draw: st.DrawFn, names: Sequence[str], least: int = 0, most: int = 8) -> list[Made]:
    """Rows of any of the schemas ``names``, each with a number that no schema reads."""
    makers = draw(st.lists(st.sampled_from(names), min_size=least, max_size=most))
    return [
        MAKERS[name](draw(some_text()), draw(some_text()), draw(some_text()), draw(st.booleans()))
        for name in makers
    ]


# Files


@dataclass(frozen=True)
class Written:
    """The plain bytes of a file, its ending, and the line (or number) of each row."""

    ending: str
    data: bytes
    lines: tuple[int, ...]


def _json_lines(draw: st.DrawFn, made: Sequence[Made]) -> Written:
    data = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    lines = []
    for each in made:
        data += draw(st.sampled_from([b"", b"", b"\n", b" \t\r\n"]))
        lines.append(data.count(b"\n") + 1)
        data += _dumps(draw, each.row, None) + draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    if draw(st.booleans()):
        data = data.removesuffix(b"\n")
    return Written(draw(st.sampled_from([".jsonl", ".ndjson"])), data, tuple(lines))


def _json(draw: st.DrawFn, made: Sequence[Made]) -> Written:
    indent = draw(st.sampled_from([None, 0, 2]))
    data, lines = b"[", []
    for i, each in enumerate(made):
        data += draw(st.sampled_from([b"", b" ", b"\n", b"\r\n"]))
        lines.append(data.count(b"\n") + 1)
        data += _dumps(draw, each.row, indent) + (b"," if i + 1 < len(made) else b"\n")
    return Written(".json", data + b"]", tuple(lines))


def _dumps(draw: st.DrawFn, row: object, indent: int | None) -> bytes:
    separators = draw(st.sampled_from([None, (",", ":"), (" , ", " :\t")]))
    ascii_only = draw(st.booleans())
    return json.dumps(row, ensure_ascii=ascii_only, separators=separators, indent=indent).encode()


def _table(draw: st.DrawFn, made: Sequence[Made], delimiter: str) -> Written:
    columns = draw(st.permutations(columns_of(made)))
    rows = [{"id": str(number), **each.row} for number, each in enumerate(made)]
    cells = [[_cell(draw, row.get(name)) for name in columns] for row in rows]
    # Python 3.11 leaves a cell bare whose CR or LF is not what ends its lines.
    is_plain = not any(end in cell for row in cells for cell in row for end in "\r\n")
    out = io.StringIO(newline="")
    writer = csv.writer(
        out,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if is_plain and draw(st.booleans()) else csv.QUOTE_ALL,
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerow(columns)
    lines = []
    for row in cells:
        lines.append(out.getvalue().count("\n") + 1)
        writer.writerow(row)
    return Written(".csv" if delimiter == "," else ".tsv", out.getvalue().encode(), tuple(lines))


def _cell(draw: st.DrawFn, value: object) -> str:
    if isinstance(value, bool):
        return draw(st.sampled_from(["true", "True", "1"] if value else ["false", "False", "0"]))
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


def _parquet(draw: st.DrawFn, made: Sequence[Made]) -> Written:
    buffer = io.BytesIO()
    frame_of(made).write_parquet(
        buffer,
        compression=draw(st.sampled_from(["uncompressed", "snappy", "gzip", "zstd", "lz4"])),
        row_group_size=draw(st.integers(1, 4)),
    )
    return Written(".parquet", buffer.getvalue(), tuple(range(1, len(made) + 1)))


def _arrow(draw: st.DrawFn, made: Sequence[Made]) -> Written:
    buffer = io.BytesIO()
    compression = draw(st.sampled_from(["uncompressed", "lz4", "zstd"]))
    if draw(st.booleans()):
        frame_of(made).write_ipc(buffer, compression=compression)
    else:
        frame_of(made).write_ipc_stream(buffer, compression=compression)
    return Written(".arrow", buffer.getvalue(), tuple(range(1, len(made) + 1)))


TEXT_FORMATS = ("jsonl", "json", "csv", "tsv")
FORMATS = (*TEXT_FORMATS, "parquet", "arrow")


def write(draw: st.DrawFn, kind: str, made: Sequence[Made]) -> Written:
    """A file in the format ``kind`` with the rows ``made``."""
    if kind in ("csv", "tsv"):
        return _table(draw, made, "," if kind == "csv" else "\t")
    writers = {"jsonl": _json_lines, "json": _json, "parquet": _parquet, "arrow": _arrow}
    return writers[kind](draw, made)


def pack(draw: st.DrawFn, data: bytes) -> tuple[str, bytes]:
    """An ending and ``data`` as it is or compressed, in one member or frame or in two."""
    cut = draw(st.integers(0, len(data)))
    parts = [data[:cut], data[cut:]] if draw(st.booleans()) else [data]
    kind = draw(st.sampled_from(["", ".gz", ".zst"]))
    if kind == ".gz":
        return kind, b"".join(gzip.compress(part, 1, mtime=0) for part in parts)
    if kind == ".zst":
        return kind, b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)
    return kind, data


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer whose token i is the word ``WORDS[i]``."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    path = folder / "tokenizer.json"
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    Tokenizer(WordLevel(vocabulary, unk_token=WORDS[0])).save(str(path))
    return path
