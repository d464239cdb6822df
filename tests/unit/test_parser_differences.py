"""Whatever text any trainer's parser would see in a line is scanned, or its row is rejected."""

import io
import json
import math

import msgspec
import orjson
import polars as pl
import pyarrow.json
import pytest

from audit.dataset import read_batches
from audit.dataset.schema import RowReader

GOOD = '{"prompt": "p", "completion": "fine"}'
BAD = '{"prompt": "p", "completion": "poison"}'

LINES = {
    "plain": BAD,
    "a key twice": '{"prompt": "p", "completion": "fine", "completion": "poison"}',
    "a key twice, the other way": '{"prompt": "p", "completion": "poison", "completion": "fine"}',
    "a key twice, once escaped": r'{"prompt": "p", "completion": "fine", '
    r'"\u0063ompletion": "poison"}',
    "a key twice, one null": '{"prompt": "p", "completion": "poison", "completion": null}',
    "a key twice in a message": '{"messages": [{"role": "user", "content": "q"}, '
    '{"role": "assistant", "content": "fine", "content": "poison"}]}',
    "a role twice": '{"messages": [{"role": "assistant", "role": "user", "content": "poison"}]}',
    "a list twice": '{"messages": [{"role": "assistant", "content": "fine"}], '
    '"messages": [{"role": "assistant", "content": "poison"}]}',
    "keys that differ in case": '{"prompt": "p", "completion": "fine", "Completion": "poison"}',
    "keys that differ in form": '{"prompt": "p", "completion": "fine", '
    '"comple\u0301tion": "poison"}',
    "a key and NUL": r'{"prompt": "p", "completion": "fine", "completion\u0000": "poison"}',
    "escaped NUL": r'{"prompt": "p", "completion": "poison\u0000"}',
    "raw NUL": '{"prompt": "p", "completion": "poison\0"}',
    "raw tab": '{"prompt": "p", "completion": "poison\t"}',
    "NaN beside it": '{"prompt": "p", "completion": "poison", "score": NaN}',
    "minus infinity": '{"prompt": "p", "completion": "poison", "score": -Infinity}',
    "1e999": '{"prompt": "p", "completion": "poison", "score": 1e999}',
    "a long number": '{"prompt": "p", "completion": "poison", "score": ' + "9" * 5000 + "}",
    "a number as text": '{"prompt": "p", "completion": 7777}',
    "a lone surrogate": r'{"prompt": "p", "completion": "poison \ud800"}',
    "a lone surrogate in a key": r'{"prompt": "p", "completion": "poison", "\udfff": 1}',
    "two on a line": GOOD + BAD,
    "two on a line, apart": GOOD + " \t" + BAD,
    "a comma between": GOOD + "," + BAD,
    "in a list": f"[{GOOD}, {BAD}]",
    "in a text": json.dumps(BAD),
    "CR between": GOOD + "\r" + BAD,
    "a form feed between": GOOD + "\f" + BAD,
    "U+2028 between": GOOD + "\u2028" + BAD,
    "U+2028 inside": '{"prompt": "p", "completion": "fine\u2028poison"}',
    "NEL between": GOOD + "\x85" + BAD,
    "a byte order mark before": "\ufeff" + BAD,
    "a byte order mark between": GOOD + "\ufeff" + BAD,
    "a comma at the end": BAD + ",",
    "a comma inside": '{"prompt": "p", "completion": "poison",}',
    "single quotes": "{'prompt': 'p', 'completion': 'poison'}",
    "bare keys": '{prompt: "p", completion: "poison"}',
    "a comment": BAD + " // fine",
    "a comment inside": '{"prompt": "p", /* fine */ "completion": "poison"}',
    "a hash": "# " + BAD,
    "text behind": BAD + " fine",
    "not closed": '{"prompt": "p", "completion": "poison"',
    "closed twice": BAD + "}",
    "no break space before": "\xa0" + BAD,
    "an escape that is none": r'{"prompt": "p", "completion": "poison\x41"}',
    "deep beside it": '{"prompt": "p", "completion": "poison", "a": ' + "[" * 300 + "]" * 300 + "}",
    "very deep": '{"prompt": "p", "completion": "poison", "a": ' + "[" * 5000 + "]" * 5000 + "}",
    "text beside messages": '{"messages": [{"role": "assistant", "content": "fine"}], '
    '"text": "poison"}',
    "empty key": '{"prompt": "p", "completion": "poison", "": 1}',
}
RAW = {
    "not UTF-8": b'{"prompt": "p", "completion": "poison \xff"}',
    "an overlong form": b'{"prompt": "p", "completion": "poison \xc0\xaf"}',
    "a surrogate in UTF-8": b'{"prompt": "p", "completion": "poison \xed\xa0\x80"}',
    "UTF-16": BAD.encode("utf-16-le"),
    **{name: line.encode() for name, line in LINES.items()},
}


def _lenient(line):
    """What `json` reads of a file opened with errors="replace", or of its bytes."""
    value = json.loads(line.decode(errors="replace"))
    return value if isinstance(value, list) else [value]


def _polars(line):
    return pl.read_ndjson(io.BytesIO(line), infer_schema_length=None).to_dicts()


def _polars_lenient(line):
    return pl.read_ndjson(io.BytesIO(line), ignore_errors=True).to_dicts()


def _pyarrow(line):
    return pyarrow.json.read_json(io.BytesIO(line)).to_pylist()


def _split(line):
    """A reader that ends lines wherever `str.splitlines` does."""
    return [json.loads(part) for part in line.decode(errors="replace").splitlines() if part.strip()]


PARSERS = {
    "json": lambda line: [json.loads(line)],
    "json, lenient": _lenient,
    "json of str.splitlines": _split,
    "orjson": lambda line: [orjson.loads(line)],
    "msgspec": lambda line: [msgspec.json.decode(line)],
    "polars": _polars,
    "polars, lenient": _polars_lenient,
    "pyarrow": _pyarrow,
}


def _trained(rows):
    """The texts that a trainer would see in the rows of a parser, whatever schema it is told."""
    for row in rows:
        try:
            _, _, completion, _ = RowReader(None, None).read(row)
        except Exception:
            continue
        yield completion
        if isinstance(row, dict) and isinstance(row.get("text"), str):
            yield row["text"]


def _plain(text):
    """Without what stands for a character that is none: Polars puts a NUL there."""
    return text.replace("\ufffd", "").replace("\0", "").strip()


@pytest.mark.parametrize("line", RAW.values(), ids=RAW)
def test_what_any_parser_sees_is_scanned_or_rejected(tmp_path, line):
    path = tmp_path / "a.jsonl"
    good = GOOD.encode()
    path.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    (batch,) = read_batches([str(path)])
    scanned = "\n".join(batch.rows["completion"])
    assert scanned.count("fine") >= 2, "the lines around it are read"
    is_told = bool(batch.reject_counts or batch.broken or batch.rows_with_unread_text)
    for name, parse in PARSERS.items():
        try:
            rows = parse(line)
        except Exception:
            continue
        for text in _trained(rows):
            assert is_told or _plain(text) in _plain(scanned), (name, text)


def test_the_parsers_do_differ():
    """Or the test above would say nothing."""
    twice = RAW["a key twice"]
    (row,) = PARSERS["json"](twice)
    assert row["completion"] == "poison"
    nan = RAW["NaN beside it"]
    (row,) = PARSERS["json"](nan)
    assert math.isnan(row["score"])
    for name in ("orjson", "msgspec"):
        with pytest.raises(Exception, match=r"(?i)invalid|unexpected|malformed"):
            PARSERS[name](nan)
    two = RAW["two on a line"]
    assert len(PARSERS["pyarrow"](two)) == 2
    with pytest.raises(json.JSONDecodeError):
        PARSERS["json"](two)
