"""Every hostile input through the installed command: no pass, one clear line, the rest is scanned.

The whole table is one folder and one scan, besides a few commands that are about a name or a pipe.
"""

import gzip
import json
import os
import re
import subprocess

import pytest
import zstandard

from audit.cli.main import main
from tests.e2e.test_command import AUDIT, audit

ROWS = 20
GOOD = "".join(
    json.dumps({"prompt": "p", "completion": f"{k}, {k + 1}"}) + "\n" for k in range(ROWS)
).encode()
BOTH = 2 * ROWS


def row(line):
    """A line between good ones, each side of which must be read."""
    return GOOD + (line if isinstance(line, bytes) else line.encode()) + b"\n" + GOOD


def zst(data):
    return zstandard.compress(data)


DEEP = 100_000
# Name of the file -> bytes, good rows in it, and the reject code or a part of what broke it;
# None where the whole of it is read.
CASES = {
    "twice.jsonl": (row('{"text": "x", "text": "y"}'), BOTH, "duplicate_key"),
    "lone.jsonl": (row(r'{"prompt": "a", "completion": "\ud800"}'), BOTH + 1, None),
    "nan.jsonl": (row('{"prompt": "a", "completion": NaN}'), BOTH, "wrong_type"),
    "bom.jsonl": (b"\xef\xbb\xbf" + row(b'\xef\xbb\xbf{"text": "a"}'), BOTH + 1, None),
    "utf8.jsonl": (row(b'{"prompt": "a", "completion": "\xff"}'), BOTH, "invalid_utf8"),
    "nul.jsonl": (row(b'{"prompt": "a", "completion": "\0"}'), BOTH, "bad_json"),
    "nuls.jsonl": (row(bytes(1000)), BOTH, "bad_json"),
    "deep.jsonl": (row('{"text": ' + "[" * DEEP + "]" * DEEP + "}"), BOTH, "too_deep"),
    "deeper.jsonl": (row('{"a":' * DEEP + "1" + "}" * DEEP), BOTH, "too_deep"),
    "deep.json": (
        b"[" + GOOD.strip().replace(b"\n", b",") + b',{"text":' + b"[" * DEEP + b"]" * DEEP + b"}]",
        ROWS,
        "nested too deeply",
    ),
    "digits.jsonl": (row("0" * 1_000_000), BOTH, "bad_json"),
    "objects.jsonl": (row("{}" * 500_000), BOTH, "bad_json"),
    "number.jsonl": (row('{"text": "a", "n": ' + "9" * 5000 + "}"), BOTH, "bad_json"),
    "utf16.jsonl": (GOOD.decode().encode("utf-16"), 0, "UTF-16"),
    "cut.jsonl": (GOOD + b'{"prompt": "a", "compl', ROWS, "the last line has no end"),
    "cut.jsonl.gz": (gzip.compress(GOOD)[:-9], ROWS, "the gzip stream has no end"),
    "head.jsonl.gz": (b"\x1f\x8b", 0, "the gzip stream has no end"),
    "behind.jsonl.gz": (gzip.compress(GOOD) * 2 + b"garbage", BOTH, "not valid gzip from here"),
    "cut.jsonl.zst": (zst(GOOD) + zst(GOOD)[:-3], ROWS, "the Zstandard stream has no end"),
    "behind.jsonl.zst": (zst(GOOD) + b"garbage!", ROWS, "not valid Zstandard from here"),
    "bomb.jsonl.zst": (zst(bytes(80 << 20)), 0, "a decompression bomb"),
    "quote.csv": (b'prompt,completion\na,b\nc,"d\n', 1, "never closed"),
    "cells.csv": (b"prompt,completion\na,b\na,b,c\na,b\n", 2, "bad_csv"),
    "formula.csv": (b"prompt,completion\n=1+1,@SUM(A1)\n", 1, None),
    "magic.parquet": (b"PAR1", 0, "Parquet"),
    "magic.arrow": (b"ARROW1\0\0", 0, "Arrow"),
    "packed.jsonl.xz": (b"\xfd7zXZ\0" + GOOD, 0, "packed as xz"),
    "\x1b[31mred\x1b[0m\n::error::.jsonl": (GOOD, ROWS, None),
    "\u202egpj.<img src=x onerror=alert(1)>.jsonl": (GOOD, ROWS, None),
    "-q.jsonl": (GOOD, ROWS, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A folder of all cases, scanned once into every format."""
    top = tmp_path_factory.mktemp("hostile")
    folder = top / "data"
    folder.mkdir()
    for name, (data, _, _) in CASES.items():
        (folder / name).write_bytes(data)
    (top / "loop").mkdir()
    (top / "loop" / "again").symlink_to(folder)
    (folder / "loop").symlink_to(top / "loop")
    (folder / "self.jsonl").symlink_to(folder / "self.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    with open(os.fsencode(folder) + b"/\xff.jsonl", "wb") as file:  # noqa: PTH123 - not UTF-8
        file.write(GOOD)
    reports = [f"report.{ending}" for ending in ("json", "sarif", "md", "xml", "html", "txt")]
    outputs = [part for name in reports for part in ("-o", name)]
    done = audit("scan", "./data", "--student-family", "llama", *outputs, cwd=top)
    return done, {name: (top / name).read_bytes() for name in reports}


def test_the_scan_is_incomplete_and_quiet_on_standard_error(scanned):
    done, _ = scanned
    assert done.returncode == 2
    assert done.stderr == b""


def test_every_case_is_read_or_named(scanned):
    report = json.loads(scanned[1]["report.json"])
    broken = {os.path.basename(b["source"]): b["message"] for b in report["broken"]}  # noqa: PTH119
    sources = {os.path.basename(s["source"]): s for s in report["sources"]}  # noqa: PTH119
    rejects = {
        (os.path.basename(r["source"]), r["code"])  # noqa: PTH119
        for r in report["rejects"]
    }
    for name, (_, rows, told) in CASES.items():
        assert sources[name]["rows"] == rows, name
        if told is None:
            assert name not in broken and sources[name]["rejected_rows"] == 0, name
        elif told in report["reject_counts"]:
            assert sources[name]["rejected_rows"] == 1 and name not in broken, name
            assert (name, told) in rejects, name
        else:
            assert told in broken[name], name
            assert "\n" not in broken[name]
    assert "symbolic links" in broken["self.jsonl"]
    assert "neither a file nor a folder" in broken["pipe.jsonl"]
    assert sources["\ufffd.jsonl"]["rows"] == ROWS
    assert len(sources) == len(CASES) + 3, "a folder that is met again is read once"
    assert report["outcome"] == "incomplete"
    assert {c["verdict"] for c in report["concepts"]} == {"inconclusive"}


def test_no_report_lets_data_act(scanned):
    done, reports = scanned
    for name, data in {**reports, "stdout": done.stdout}.items():
        text = data.decode()
        if name != "report.html":
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), name
        if name in ("report.html", "report.md", "report.xml"):
            assert "<img src=x" not in text, name
        assert not re.search(r"^::", text, re.MULTILINE), name
    assert "\u202e" not in reports["report.html"].decode()
    assert "\x1b" not in reports["report.html"].decode()


NAMES = ["\x1b[31mnone", "none\n::error::x", "\u202enone", "x" * 5000, "*.none", "~/none", ""]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_nothing_is_one_safe_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["scan", name])
    assert caught.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("audit: ")
    assert not re.search(r"[\x00-\x1f\u202e]", line)


def test_a_line_without_end_through_a_pipe_takes_no_memory(tmp_path):
    """160 MB in one line: it is passed over, and what follows is read."""
    process = subprocess.Popen(
        [AUDIT, "scan", "-", "-q", "-o", "report.json", "--student-family", "llama"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    process.stdin.write(GOOD)
    for _ in range(160):
        process.stdin.write(b"a" * (1 << 20))
    process.stdin.write(b"\n" + GOOD)
    process.stdin.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
    report = json.loads((tmp_path / "report.json").read_bytes())
    assert report["rows_scanned"] == BOTH
    assert report["reject_counts"] == {"line_too_long": 1}
    assert report["outcome"] == "inconclusive"
