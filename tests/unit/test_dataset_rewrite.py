"""Sources written anew: what is kept stays as it stood, what is changed reads as decided."""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.dataset import Limits, list_sources, read_batches
from audit.dataset.decision import Decide, Decision, Fate
from audit.dataset.faults import RejectCode, RowFault, SourceBreak
from audit.dataset.formats import Format
from audit.dataset.parquet_footer import compression_of, row_group_heights
from audit.dataset.rewrite import Written, records, rewrite
from audit.dataset.row_text import Row
from audit.dataset.schema import KNOWN_COLUMNS
from audit.dataset.stored import StoredBytes

LIMITS = Limits()
KEEP = Decision(Fate.KEEP)
DROP = Decision(Fate.DROP)
GOLDEN = Path(__file__).parents[1] / "golden" / "dataset"
COMPRESSIONS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "": (lambda data: data, lambda data: data),
    ".gz": (gzip.compress, gzip.decompress),
    ".zst": (
        zstandard.ZstdCompressor().compress,
        lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    ),
}
ONCE = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keep(_line: int, _value: object) -> Decision:
    return KEEP


def values(file: Path) -> list[tuple[int, object]]:
    (source,) = list_sources([str(file)]).sources
    return list(records(source, LIMITS))


def shown(found: Iterable[tuple[int, object]]) -> list[object]:
    """Records as they can be compared: faults by their code, NaN by its name."""
    return [
        (line, str(value.code) if isinstance(value, RowFault) else repr(value))
        for line, value in found
    ]


def written(file: Path, decide: Decide) -> tuple[Path, Written]:
    """Rewrite ``file``, and check what holds for every rewriting."""
    (source,) = list_sources([str(file)]).sources
    target = file.with_name("new-" + file.name)
    seen: list[tuple[int, object]] = []

    def remembering(line: int, value: object) -> Decision:
        seen.append((line, value))
        return decide(line, value)

    done = rewrite(source, target, remembering, LIMITS)
    assert shown(seen) == shown(values(file))
    stored = target.read_bytes()
    assert done.size_bytes == len(stored)
    assert done.sha256 == hashlib.sha256(stored).hexdigest()
    with file.open("rb") as raw:
        found = Format(source, StoredBytes(raw), LIMITS)
        list(found.rows(KNOWN_COLUMNS))
    assert done.format == found.name
    return target, done


def rewritten(folder: Path, name: str, data: bytes | str, decide: Decide) -> bytes:
    file = folder / name
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return written(file, decide)[0].read_bytes()


def drop(*lines: int) -> Decide:
    return lambda line, _: DROP if line in lines else KEEP


def change(line: int, *added: Row, **columns: object) -> Decide:
    """Other ``columns`` for the row at ``line``, and rows ``added`` after it."""

    def decide(at: int, value: object) -> Decision:
        return Decision({**cast(Row, value), **columns}, added) if at == line else KEEP

    return decide


TEXTS = {
    "lines.jsonl": b'{"text": "a"}\n\n  \n{"text":"\\u00e9\\/"} \r\n'
    b'{"text": NaN, "text": "b"}\nno\n[1]\n',
    "open.jsonl": b'{"text": "a"}\n{"text": "b"}',
    "several.jsonl": b'{"text": "a"} {"text": NaN}{"text": "c"}\n{"text": "d"}\n',
    "bad.jsonl": b'{"text": "a\xff"}\n{"text": "\\ud800"}\n{"n": 123456789012345678901234567890}\n',
    "blank.jsonl": b"\n\n \n",
    "empty.jsonl": b"",
    "bom.jsonl": b'\xef\xbb\xbf{"text": "a"}\n',
    "array.json": b' [\n  {"text": "a"} ,\n\n\t{"text" : "b\xc3\xa9"},{"text":"c\xff"}\n]\n\n',
    "wrapper.json": b'{"version": 1.50, "data": [ {"text": "a"}, {"text": "b"} ], "x": {"y": []},'
    b'\n"test": [{"text": "c"}]}',
    "both.json": b'{"data": [{"text": "a"}],\n"text": "b"}\n{"text": "c"}',
    "values.json": b'\n{\n"text": "a"}\n{"text": "b"}{"text":\n"c"} 7 [ ] []',
    "bom.json": b'\xef\xbb\xbf[{"text": "a"}]',
    "table.csv": b'text , "n"\r\n"a ""b""",1\r\n\r\n"x\r\ny","2"\r\nshort\r\na,b,c\r\n,\r\n',
    "open.csv": b'text\na\n\n"b"',
    "bom.csv": b"\xef\xbb\xbftext\na\n",
    "odd.csv": b'text,n\na"b,"c"d\n"e"f,g\nx\xff,1\n',
    "header.csv": b"text,n\n",
    "table.tsv": b'text\tn\na,b\t"1"\n',
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_kept_stays_byte_for_byte(tmp_path: Path, name: str, compression: str) -> None:
    pack, unpack = COMPRESSIONS[compression]
    out = rewritten(tmp_path, name + compression, pack(TEXTS[name]), keep)
    assert unpack(out) == TEXTS[name]
    assert rewritten(tmp_path, name + compression, pack(TEXTS[name]), keep) == out


def test_a_broken_source_breaks_the_rewriting(tmp_path: Path) -> None:
    for name, data in {
        "cut.jsonl": b'{"text": "a"}\n{"text": "b',
        "cut.json": b'[{"text": "a"},',
        "cut.csv": b'text\n"a',
        "cut.jsonl.gz": gzip.compress(b'{"text": "a"}\n' * 99)[:-9],
        "cut.parquet": b"PAR1",
        "cut.arrow": b"ARROW1\0\0",
        "utf16.csv": "text\na\n".encode("utf-16"),
        "unknown": b"what is this",
    }.items():
        (tmp_path / name).write_bytes(data)
        (source,) = list_sources([str(tmp_path / name)]).sources
        with pytest.raises(SourceBreak):
            rewrite(source, tmp_path / "target", keep, LIMITS)
        with pytest.raises(SourceBreak):
            list(records(source, LIMITS))
    gone = tmp_path / "gone.jsonl"
    gone.write_text("")
    (source,) = list_sources([str(gone)]).sources
    gone.unlink()
    with pytest.raises(SourceBreak, match="cannot be opened"):
        rewrite(source, tmp_path / "target", keep, LIMITS)


def test_rows_that_cannot_be_read_are_only_kept_or_dropped(tmp_path: Path) -> None:
    data = b'{"text": "a"}\nno\n'
    assert rewritten(tmp_path, "a.jsonl", data, drop(2)) == b'{"text": "a"}\n'
    for decision in (Decision({"text": "b"}), Decision(Fate.KEEP, ({"text": "b"},))):
        with pytest.raises(ValueError, match="kept or dropped"):
            rewritten(tmp_path, "a.jsonl", b"no\n{}\n", lambda *_, d=decision: d)


def test_a_line_that_is_too_long_can_only_be_dropped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "' + "x" * 50 + '"}\n{"text": "a"}\n')
    (source,) = list_sources([str(file)]).sources
    target = tmp_path / "target"
    limits = Limits(max_line_bytes=40)
    with pytest.raises(SourceBreak, match="too long to be kept"):
        rewrite(source, target, keep, limits)
    rewrite(source, target, drop(1), limits)
    assert target.read_text() == '{"text": "a"}\n'


def test_json_lines_are_dropped_changed_and_added(tmp_path: Path) -> None:
    data = '{"text": "a"}\n\n {"n":1.50, "text":"\\u0063", "text":"c"}\t\r\n{"text": "d"}'
    # Of duplicate keys the last stays; so do the number, the space and the CR.
    out = rewritten(tmp_path, "a.jsonl", data, change(3, {"text": "added"}, text="ü"))
    assert out.decode() == (
        '{"text": "a"}\n\n {"n":1.50, "text":"\\u00fc"}\t\r\n {"text":"added"}\t\r\n{"text": "d"}'
    )
    # A last line without end leaves the next to last without.
    assert rewritten(tmp_path, "a.jsonl", data, drop(1, 4)).decode().endswith('"c"}\t\r')
    assert rewritten(tmp_path, "b.jsonl", '{"text": "a"}', drop(1)) == b""
    added = change(1, {"text": "b"}, {"text": "c"})
    assert rewritten(tmp_path, "c.jsonl", '{"text": "a"}', added).splitlines() == [
        b'{"text": "a"}',
        b'{"text": "b"}',
        b'{"text": "c"}',
    ]


def test_a_line_of_several_values_is_split_where_one_changes(tmp_path: Path) -> None:
    count = iter(range(9))
    out = rewritten(
        tmp_path,
        "a.jsonl",
        TEXTS["several.jsonl"],
        lambda *_: DROP if next(count) == 1 else KEEP,
    )
    assert out == b'{"text": "a"}\n{"text": "c"}\n{"text": "d"}\n'


def test_json_arrays_keep_their_layout(tmp_path: Path) -> None:
    data = '[\n  {"text": "a"},\n  {"text": "b"},\n  {"text": "c"}\n]\n'
    for lines, left in (
        ((2,), "bc"),
        ((3,), "ac"),
        ((4,), "ab"),
        ((2, 3), "c"),
        ((2, 4), "b"),
        ((3, 4), "a"),
    ):
        rows = ",\n  ".join(f'{{"text": "{text}"}}' for text in left)
        assert rewritten(tmp_path, "a.json", data, drop(*lines)).decode() == f"[\n  {rows}\n]\n"
    assert json.loads(rewritten(tmp_path, "a.json", data, drop(2, 3, 4))) == []
    assert rewritten(tmp_path, "a.json", data, change(2, {"text": "x"}, text="é")).decode() == (
        '[\n  {"text": "\\u00e9"},\n  {"text": "x"},\n  {"text": "b"},\n  {"text": "c"}\n]\n'
    )
    one = rewritten(tmp_path, "b.json", '[{"text":"a"}]', change(1, {"text": "x"}))
    assert json.loads(one) == [{"text": "a"}, {"text": "x"}]


def test_wrappers_and_values_in_a_row(tmp_path: Path) -> None:
    data = (
        '{"v": 1.50, "data": [{"text": "a"},\n{"text": "b"}],\n"test": [\n{"text": "c"}], "w": 2}'
    )
    out = rewritten(tmp_path, "a.json", data, drop(1, 4)).decode()
    assert out == '{"v": 1.50, "data": [{"text": "b"}],\n"test": [\n], "w": 2}'
    values = '{\n"text": "a"}\n{"text":\n"b"}\n{"text": "c"}\n'
    assert rewritten(tmp_path, "b.json", values, drop(1)).decode() == (
        '{"text":\n"b"}\n{"text": "c"}\n'
    )
    assert rewritten(tmp_path, "b.json", values, change(3, {"text": "x"}, text="y")).decode() == (
        '{\n"text": "a"}\n{"text":\n"y"}\n{"text":\n"x"}\n{"text": "c"}\n'
    )
    with pytest.raises(SourceBreak, match="row around other rows"):
        rewritten(
            tmp_path,
            "c.json",
            TEXTS["both.json"],
            lambda _, value: DROP if cast(Row, value)["text"] == "b" else KEEP,
        )


def test_csv_records_keep_their_cells(tmp_path: Path) -> None:
    data = 'id, text,"note"\r\n"1",a,"x ""y"""\r\n\r\n2,"b\r\nb",\r\n3,c,z'
    change_one = change(4, {"id": "9", "text": 'q"'}, text="new, text")
    assert rewritten(tmp_path, "a.csv", data, change_one).decode() == (
        'id, text,"note"\r\n"1",a,"x ""y"""\r\n\r\n2,"new, text",\r\n9,"q""",\r\n3,c,z'
    )
    assert rewritten(tmp_path, "a.csv", data, drop(2, 6)).decode() == (
        'id, text,"note"\r\n\r\n2,"b\r\nb",\r'
    )
    # Short records grow as far as they have to; lone surrogates have no bytes.
    assert rewritten(tmp_path, "b.csv", "text,a\nx\n", change(2, a="\ud800")).decode() == (
        "text,a\nx,\ufffd\n"
    )
    assert rewritten(tmp_path, "c.csv", "text\nx\ny\n", change(2, text=None)) == b'text\n""\ny\n'
    assert rewritten(tmp_path, "d.tsv", "text\ta\nx\ty\n", change(2, text="a\tb,c")) == (
        b'text\ta\n"a\tb,c"\ty\n'
    )
    # Quotes that no writer would put there: cells that stay are quoted anew, if at all.
    assert rewritten(tmp_path, "e.csv", 'text,a\n"e"f,g"h\n', change(2, text="x")) == (
        b'text,a\n"x",g"h\n'
    )
    for columns in ({"other": "x"}, {"text": 3}, {"text": ["x"]}):
        with pytest.raises(SourceBreak, match=r"no column|cannot hold"):
            rewritten(tmp_path, "f.csv", "text\nx\n", change(2, **columns))


def test_messages_in_a_cell_of_csv(tmp_path: Path) -> None:
    from audit.dataset.edits import with_texts, without_loss
    from audit.dataset.schema import RowReader

    chat = '[{"role":"user","content":"q"}, {"role":"assistant","content":"a, \\"b\\""}]'
    table = pl.DataFrame({"id": ["1", "2"], "messages": [chat, chat]}).write_csv()
    reader = RowReader(None, None)

    def decide(_line: int, value: object) -> Decision:
        row = cast(Row, value)
        if row["id"] == "1":
            (place,) = [turn.place for turn in reader.turns(row).turns if turn.trained]
            assert place is not None
            return Decision(with_texts(row, {place: "c\nd"}))
        silent = without_loss(row, "messages")
        assert silent is not None
        return Decision(silent)

    (tmp_path / "a.csv").write_bytes(rewritten(tmp_path, "b.csv", table, decide))
    (batch,) = read_batches([str(tmp_path / "a.csv")])
    assert batch.rows["completion"].to_list() == ["c\nd"]
    assert dict(batch.reject_counts) == {"no_trained_text": 1}


FATES = st.sampled_from(["keep", "drop", "change", "add"])
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


def planned(fates: list[str], texts: list[str], name: str) -> tuple[Decide, list[str]]:
    """A decision for each row of ``texts`` under ``name``, and the texts that are to come out."""
    expected: list[str] = []
    for fate, text in zip(fates, texts, strict=True):
        expected += {
            "keep": [text],
            "drop": [],
            "change": [text + "é\n"],
            "add": [text, '"x"\t,'],
        }[fate]
    turn = iter(fates)

    def decide(_line: int, value: object) -> Decision:
        row = cast(Row, value)
        fate = next(turn)
        if fate == "change":
            return Decision({**row, name: f"{row[name] or ''}é\n"})
        if fate == "add":
            return Decision(Fate.KEEP, ({**row, name: '"x"\t,'},))
        return DROP if fate == "drop" else KEEP

    return decide, expected


@ONCE
@given(data=st.data(), texts=st.lists(TEXT, min_size=1, max_size=6))
def test_any_json_reads_back_as_decided(
    tmp_path: Path, data: st.DataObject, texts: list[str]
) -> None:
    fates = data.draw(st.lists(FATES, min_size=len(texts), max_size=len(texts)))
    space = st.sampled_from(["", " ", "\n", "\r\n\t"])
    rows = [{"id": math.nan, "text": text} for text in texts]
    indent = data.draw(st.sampled_from([None, 2]))
    ascii_only = data.draw(st.booleans())
    dumped = [json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in rows]
    between = [data.draw(space) + "," + data.draw(space) for _ in rows[1:]]
    array = "".join(a + b for a, b in zip(dumped, [*between, ""], strict=True))
    layouts = {
        "a.json": f"{data.draw(space)}[{data.draw(space)}{array}{data.draw(space)}]\n",
        "b.json": f'{{"v":{data.draw(space)}[1], "data":[{array}], "w": "x"}}',
        "c.json": "\n".join(dumped),
        "d.jsonl": "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows),
        "e.jsonl": "".join(json.dumps(row) + data.draw(space) + "\n" for row in rows),
    }
    for name, text in layouts.items():
        assert rewritten(tmp_path, name, text, keep) == text.encode()
        decide, expected = planned(fates, texts, "text")
        if name == "b.json" and not expected:
            continue  # an object without a list of objects is itself a row
        (tmp_path / ("out-" + name)).write_bytes(rewritten(tmp_path, name, text, decide))
        found = [cast(Row, value) for _, value in values(tmp_path / ("out-" + name))]
        assert [row["text"] for row in found] == expected
        assert all(math.isnan(cast(float, row["id"])) for row in found)


CELL = st.text(st.sampled_from('ab",;\t\r\n é'), max_size=5)


@ONCE
@given(data=st.data(), rows=st.lists(st.tuples(CELL, CELL), max_size=5))
def test_any_table_reads_back_as_decided(
    tmp_path: Path, data: st.DataObject, rows: list[tuple[str, str]]
) -> None:
    # The writer of Python 3.11 leaves a bare CR unquoted, which its reader takes for a line's end.
    quotes_all = data.draw(st.booleans()) or "\r" in str(rows).replace("\\r", "\r")
    fates = data.draw(st.lists(FATES, min_size=len(rows), max_size=len(rows)))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    for name, delimiter in (("a.csv", ","), ("b.tsv", "\t")):
        table = io.StringIO(newline="")
        writer = csv.writer(
            table,
            delimiter=delimiter,
            quoting=csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL,
            lineterminator=end,
        )
        writer.writerows([("id", "text"), *rows])
        text = table.getvalue()
        if data.draw(st.booleans()):
            text = text.removesuffix(end)
        assert rewritten(tmp_path, name, text, keep) == text.encode()
        decide, expected = planned(fates, [cell for _, cell in rows], "text")
        (tmp_path / ("out-" + name)).write_bytes(rewritten(tmp_path, name, text, decide))
        found = [cast(Row, value) for _, value in values(tmp_path / ("out-" + name))]
        assert [row["text"] or "" for row in found] == expected


@ONCE
@given(data=st.binary(max_size=60), name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv"]))
def test_any_bytes_are_kept_or_break(tmp_path: Path, data: bytes, name: str) -> None:
    try:
        out = rewritten(tmp_path, name, data, keep)
    except SourceBreak:
        return
    assert out == data


FRAME = pl.DataFrame(
    {
        "text": ["a", None, "c", "d", "é"],
        "messages": [[{"role": "assistant", "content": f"m{i}"}] if i else None for i in range(5)],
        "score": [0.5, None, float("nan"), 1.0, 2.0],
        "n": pl.Series([1, 2, None, 4, 5], dtype=pl.Int8),
        "at": pl.Series([1, 2, 3, 4, None], dtype=pl.Datetime("ns")),
        "kind": pl.Series(["x", "y", "x", None, "y"], dtype=pl.Categorical),
        "raw": [b"\xff", b"", None, b"x", b"y"],
    }
)


def stored_frames() -> dict[str, bytes]:
    def stored(write: Callable[[io.BytesIO], object]) -> bytes:
        buffer = io.BytesIO()
        write(buffer)
        return buffer.getvalue()

    plain = FRAME.drop("kind")
    oldest = pl.CompatLevel.oldest()
    return {
        "a.parquet": stored(
            lambda b: FRAME.write_parquet(
                b, compression="snappy", row_group_size=2, metadata={"huggingface": '{"a": 1}'}
            )
        ),
        "file.arrow": stored(plain.write_ipc),
        "stream.arrow": stored(FRAME.write_ipc_stream),
        "plain.arrow": stored(lambda b: plain.write_ipc(b, compat_level=oldest)),
        "plain-stream.arrow": stored(lambda b: plain.write_ipc_stream(b, compat_level=oldest)),
        "zstd.arrow": stored(lambda b: plain.write_ipc_stream(b, compression="zstd")),
        "empty.arrow": stored(plain.clear().write_ipc_stream),
        "empty.parquet": stored(plain.clear().write_parquet),
    }


def frame_of(file: Path) -> pl.DataFrame:
    if "parquet" in file.name:
        return pl.read_parquet(file)
    data = file.read_bytes()
    read = pl.read_ipc if data.startswith(b"ARROW1") else pl.read_ipc_stream
    return read(io.BytesIO(data))


@pytest.mark.parametrize("name", stored_frames())
def test_columns_that_are_kept_are_equal(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(stored_frames()[name])
    target, _ = written(file, keep)
    assert frame_of(target).equals(frame_of(file))
    assert frame_of(target).schema == frame_of(file).schema
    assert target.read_bytes()[:6] == file.read_bytes()[:6]


@pytest.mark.parametrize("name", [name for name in stored_frames() if "empty" not in name])
def test_columns_are_dropped_changed_and_added(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(stored_frames()[name])
    before = frame_of(file)

    def decide(line: int, value: object) -> Decision:
        row = cast(Row, value)
        assert set(row) == set(before.columns)
        if line == 3:
            chat = [{"role": "assistant", "content": "new"}]
            return Decision({**row, "text": None, "messages": chat}, ({**row, "text": "added"},))
        return DROP if line in (1, 4) else KEEP

    target, _ = written(file, decide)
    after = frame_of(target)
    assert after["text"].to_list() == [None, None, "added", "é"]
    assert after["messages"][1].to_list() == [{"role": "assistant", "content": "new"}]
    # All else is the old rows 2, 3, 3 and 5, to the nanosecond.
    others = before.drop("text", "messages")
    assert after.drop("text", "messages").equals(others[[1, 2, 2, 4]])
    assert after["messages"][[0, 2, 3]].equals(before["messages"][[1, 2, 4]])


def test_parquet_keeps_its_metadata_and_groups(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(stored_frames()["a.parquet"])
    target, _ = written(file, keep)
    assert pl.read_parquet_metadata(target) == pl.read_parquet_metadata(file)
    assert row_group_heights(target) == [2, 2, 1]
    assert compression_of(target) == compression_of(file) == "snappy"
    FRAME.write_parquet(file, compression="gzip")
    assert compression_of(written(file, keep)[0]) == "gzip"


@pytest.mark.parametrize("name", ["a.parquet", "plain.arrow", "plain-stream.arrow"])
@pytest.mark.parametrize(
    "columns",
    [
        {"weight": 0},
        {"n": 1000},
        {"n": "x"},
        {"messages": [{"role": "assistant", "content": "a", "weight": 0}]},
    ],
    ids=str,
)
def test_columns_that_cannot_hold_a_row_are_told(tmp_path: Path, name: str, columns: Row) -> None:
    with pytest.raises(SourceBreak, match=r"no column|cannot hold") as caught:
        rewritten(tmp_path, name, stored_frames()[name], change(2, **columns))
    assert caught.value.line == 2


def test_what_decide_raises_comes_through(tmp_path: Path) -> None:
    def decide(_line: int, _value: object) -> Decision:
        raise LookupError("not planned")

    for name, data in stored_frames().items():
        if "empty" not in name:
            (tmp_path / name).write_bytes(data)
            (source,) = list_sources([str(tmp_path / name)]).sources
            with pytest.raises(LookupError, match="not planned"):
                rewrite(source, tmp_path / "target", decide, LIMITS)


# By pyarrow 26: text of 32-bit offsets, not null; messages; int16; metadata of Hugging Face.
ARROW = {
    "stream.arrow": (
        "c-oazy-veG40h6#h7uq`2o;GT%EZ|6BO%1Vz`)4JNCej=5>2b-DitAiMn)b1o`Z!)VB|rNf_=G5Bhv!4<U9NF+2^"
        "xACC~Hx(*p2;qzP-V1a)xHLb06k+{4w;=R;-VXH+_OaiwoA+GqOPA?kgYq}@Sy9NdRp5y|mLWXh3ZB9(C??}h@cF"
        "q5Ms?S&607`K8Nk9$2l>PFWBYUulT*@@15hBf2uHr2MH&p_9c>UvygsCwv_aFZg&+eAC4)ZbEgfWFAGs3$TCI6~}"
        "8fnRM^@HXlN>ZbM+Df)zu5&Kc#>%PuuYHFZf4^k;o2~UXeG1|o*H&o|*-QS;aw2ub2g6#J)4p<!2c@Jo({uZ`Vo@"
        "0vq*(z!WHMcE2X-{Q@nxpQ21S3uKy>jMXP;jIMQ(1%g;<J5Q@9oO0RIeHCoaLG4>)EP#kZkBZX84%lhm}5&Oc;Jr"
        "zJ4l8?A=iDZT24cr(c`Vv%0=_oo3h$-d<&gmOWbbX*s}UMtvr~xnmhM%CaPrQ7TJgilv&PPPA_#ZLDTdp2UCf#Qr"
        "BwJT`yxu7LGzm*J0Co_W5R`)Q>&Ro(#e4gQkN_ln`K7>^83Y=-0fSd=IBFFYaP#IWXY;s-C-9fl2t3Ay^80ek~D?"
        "tcm"
    ),
    "file.arrow": (
        "c-rk&y-wpm5S}<r;^Pch2%(&Gh2`o>!jFUy1xOThhtNrPB^I}dBY_jeixh<DDJdx_;W=n{1WF!(2SDOx*0YXpLhh"
        "hMVx--j8Go}oJM+o**52OtpDloAl!ppH03=f|19hl@hZ;)7E&M*tF8ljN$HzFx@8L|(Jk+=O*(#3HsGGKX(Rz3qw"
        "N<Q-2P!j$Rzq!+-}<DlP>V7>=%$_M3<cvp<4BG>9dxzh0|iyI13YYl_uj^w@pOlB`^rAxd{WNGgNDh6+=LtEG5$R"
        "2VJZKn!2=wrEQ>oTqkuKUUg!AfW(n`$*u^o=c2}z-!Y7Em&+)Z@_p~`Ra2)hftx^pahzT&-!x}eC<pQqncpR;R-k"
        "~D>u80E>2Q^s(TB*Ld?iPOP^JOK^9ZcUAxYNGb5vr~^{~WALq3stve}bGNRT#+(OqM{bUwB<C^~%&*;C945lWgv-"
        "=?BRiuZh4X0^cvyiDW47!{YWMsf&9<$#%qj;FWgug__m)+*#`3Vt9L_TQn`vv`o_qPA}wV_qS(!!Vza#H`8&d3uT"
        "0*oa0u!Y$F}a=B+$Q{=*aJl|1o9|Lwg(QMYdbzb5vXWZS-PmTFVx4G7!fe~JF?3;e#|k>!aaaFQQy<%#nTo{&glR"
        "3>m@j2Gez%LdDYXY)SG`{E-T>V^RU*WZO7TvPjAeB^_!c(w15ru(-)8N1ELx8*&5TS82H%lu3H0os7dJ^"
    ),
}


@pytest.mark.parametrize("name", ARROW)
def test_arrow_keeps_the_types_and_metadata_of_its_writer(tmp_path: Path, name: str) -> None:
    data = zlib.decompress(base64.b85decode(ARROW[name]))
    (tmp_path / "in.arrow").write_bytes(data)
    decide = change(2, {"text": "added", "n": -1}, text="new", messages=[{"role": "r"}])
    out = rewritten(tmp_path, name, data, decide)
    (tmp_path / "out.arrow").write_bytes(out)
    after = frame_of(tmp_path / "out.arrow")
    assert after["text"].to_list() == ["t0 é", "new", "added", "t2 é", "t3 é", "t4 é"]
    assert after["n"].to_list() == [0, 1, -1, 2, 3, 4]
    assert after["messages"].to_list() == [
        None,
        [{"role": "r", "content": None}],
        None,
        None,
        [{"role": "assistant", "content": "a3"}],
        None,
    ]
    # The schema message is the old one to the byte, Polars' own types being others.
    start = 8 if name == "file.arrow" else 0
    schema_end = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
    assert b"huggingface" in data[:schema_end]
    assert out[:schema_end] == data[:schema_end]
    with pytest.raises(SourceBreak, match="may not be null"):
        rewritten(tmp_path, name, data, change(2, text=None))
    (tmp_path / "none.arrow").write_bytes(rewritten(tmp_path, name, data, lambda *_: DROP))
    assert frame_of(tmp_path / "none.arrow").height == 0


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.jsonl")), ids=lambda file: str(file.stem))
def test_every_schema_is_kept_in_every_format(tmp_path: Path, file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for name, text in {
        "a.jsonl": file.read_text(),
        "a.json": json.dumps(rows, indent=2),
    }.items():
        assert rewritten(tmp_path, name, text, keep) == text.encode()
    for i, row in enumerate(rows):
        # Parts of messages beside plain text have no type that a column could be of.
        cells = {
            name: json.dumps(value) if "image_url" in str(value) else value
            for name, value in row.items()
        }
        table = tmp_path / f"{i}.parquet"
        pl.DataFrame([cells]).write_parquet(table)
        target, _ = written(table, keep)
        assert pl.read_parquet(target).equals(pl.read_parquet(table))
    faults = [value for _, value in values(file) if isinstance(value, RowFault)]
    assert not any(fault.code is RejectCode.BAD_JSON for fault in faults)
