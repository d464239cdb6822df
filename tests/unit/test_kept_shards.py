"""Finished shards are taken up again, and never those of other data or of another scan."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from audit.dataset import list_sources
from audit.engines.engine import scan_in_shards
from audit.engines.reading import read_shard_of
from audit.errors import ExitCode, UsageError
from audit.kept_shards import remove_kept
from audit.report.json_report import to_json
from audit.scan import ScanSettings, scan
from audit.source_stamp import source_stamp
from tests import synthetic
from tests.e2e.test_command import audit
from tests.unit.test_shards import ROWS

LIBRARY = synthetic.library()


class Killed(BaseException):
    """As little as kill -9 can it be caught."""


class Reading:
    """An engine in this process. It is killed before it reads its ``end``-th shard."""

    workers = 2

    def __init__(self, library=LIBRARY, end=None):
        self.library = library
        self.end = end
        self.read_shards = []

    def read(self, job, shards, library, *, to_the_end):
        for shard in shards:
            if len(self.read_shards) == self.end:
                raise Killed
            self.read_shards.append(shard.number)
            yield read_shard_of(job, shard, lambda: library)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for part in range(6):
        write(part, ROWS[part * 100 : part * 100 + 60])
    (tmp_path / "reference.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[::3]))
    return tmp_path


def write(part, rows):
    Path("data", f"{part}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def scanned(engine, **options):
    options = {"reference": ["reference.jsonl"], "keep_in": Path("kept"), **options}
    return scan_in_shards(engine, ["data"], engine.library, library_path="synthetic", **options)


def whole(**options):
    options = {"reference": ["reference.jsonl"], **options}
    return to_json(scan(["data"], LIBRARY, library_path="synthetic", **options))


def killed_after(shards):
    with pytest.raises(Killed):
        scanned(Reading(end=shards))
    assert len(list(Path("kept").glob("*.part"))) == shards


def test_killed_before_any_shard_a_scan_goes_on_to_the_same_bytes(folder):
    wanted = whole()
    for done in range(6):
        killed_after(done)
        rest = Reading()
        assert to_json(scanned(rest)) == wanted
        assert rest.read_shards == list(range(done + 1, 7))
        again = Reading()
        assert to_json(scanned(again)) == wanted  # it stays until the report is where it shall be
        assert again.read_shards == []
        remove_kept(Path("kept"))
        assert not Path("kept").exists()


@pytest.mark.parametrize("kind", ["content", "same size", "same size and time", "touched"])
def test_a_source_that_was_written_to_is_read_again(folder, kind):
    killed_after(4)
    path = Path("data", "2.jsonl")
    before = path.stat()
    if kind == "content":
        write(2, ROWS[:10])
    elif kind == "touched":
        os.utime(path)
    else:
        text = path.read_text()
        path.write_text(text.replace("7", "8"))
        assert path.stat().st_size == before.st_size
        if kind == "same size and time":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    rest = Reading()
    assert to_json(scanned(rest)) == whole()
    assert rest.read_shards == [3, 5, 6]


def test_a_source_that_is_changed_while_it_is_read_is_read_again(folder):
    class Changing(Reading):
        def read(self, job, shards, library, *, to_the_end):
            parts = super().read(job, shards, library, to_the_end=to_the_end)
            yield next(parts)
            write(1, ROWS[:50])
            yield next(parts)
            raise Killed

    with pytest.raises(Killed):
        scanned(Changing())
    rest = Reading()
    assert to_json(scanned(rest)) == whole()
    assert rest.read_shards == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: write(9, ROWS[:9]), "data differs"),
        (lambda: Path("data", "0.jsonl").unlink(), "data differs"),
        (lambda: Path("reference.jsonl").write_text(json.dumps(ROWS[1])), "reference differs"),
        (lambda: {"reference": []}, "reference differs"),
        (lambda: {"settings": ScanSettings(student_family="llama")}, "options differs"),
        (lambda: replace(LIBRARY, content_sha256="0" * 64), "library differs"),
    ],
)
def test_shards_of_another_scan_are_refused(folder, change, words):
    killed_after(3)
    changed = change()
    options = changed if isinstance(changed, dict) else {}
    library = LIBRARY if changed is None or options or isinstance(changed, int) else changed
    refused = Reading(library)
    with pytest.raises(UsageError, match=f"unfinished run with other .*: {words}"):
        scanned(refused, **options)
    assert refused.read_shards == []
    assert len(list(Path("kept").glob("*.part"))) == 3


def test_a_shard_of_another_version_is_refused(folder, monkeypatch):
    killed_after(3)
    monkeypatch.setattr("audit.shards.tool_version", lambda: "9.9.9")
    with pytest.raises(UsageError, match="version differs"):
        scanned(Reading())


def test_a_damaged_shard_is_read_again(folder):
    wanted = whole()
    killed_after(4)
    for number, damage in ((1, b""), (2, b"\0"), (3, None)):
        path = Path("kept", f"shard-{number}.part")
        data = path.read_bytes()
        # The last is whole, and another's.
        path.write_bytes(
            Path("kept", "shard-4.part").read_bytes() if damage is None else data[:100] + damage
        )
    rest = Reading()
    assert to_json(scanned(rest)) == wanted
    assert rest.read_shards == [1, 2, 3, 5, 6]


def test_what_broke_off_is_read_again_and_nothing_else(folder):
    path = Path("data", "3.jsonl.gz")
    path.write_bytes(b"\x1f\x8b\x08\x00 and no more")
    first = scanned(Reading())
    assert first.exit_code() is ExitCode.FAILED
    path.write_bytes(b"")
    path.unlink()
    shutil.copy("data/3.jsonl", "plain")
    path.write_bytes(Path("plain").read_bytes())
    rest = Reading()
    assert to_json(scanned(rest)) == whole()
    assert len(rest.read_shards) == 1


def test_as_many_shards_as_before_are_read_whatever_the_workers(folder, monkeypatch):
    wanted = whole()
    monkeypatch.setattr("audit.engines.engine._LEAST_KEPT_SHARDS", 3)
    monkeypatch.setattr("audit.engines.engine._SHARDS_A_WORKER", 1)
    killed_after(2)
    rest = Reading()
    rest.workers = 5
    assert to_json(scanned(rest)) == wanted
    assert rest.read_shards == [3]


def test_a_folder_of_other_files_is_left_alone(folder):
    Path("kept").mkdir()
    Path("kept", "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="kept is in the way"):
        scanned(Reading())
    remove_kept(Path("kept"))
    assert Path("kept", "thesis.txt").read_text() == "mine"


def test_nothing_is_kept_of_what_nobody_can_tell_from_changed_data(folder):
    os.mkfifo("pipe")
    (pipe,) = list_sources(["pipe"]).sources
    assert source_stamp(pipe) is None
    (remote,) = list_sources(["file://" + str(folder / "reference.jsonl")]).sources
    before = source_stamp(remote)
    assert before is not None
    os.utime("reference.jsonl", (1, 1))
    assert source_stamp(remote) not in (None, before)
    import fsspec

    fsspec.filesystem("memory").pipe("/here.jsonl", b"{}")
    (memory,) = list_sources(["memory://here.jsonl"]).sources
    assert source_stamp(memory) is None


def test_the_command_leaves_nothing_behind(folder):
    given = ("data", "-r", "reference.jsonl", "-f", "json")
    once = audit("scan", *given, cwd=folder)
    kept = audit("scan", *given, "--resume", "kept", cwd=folder)
    assert (kept.returncode, kept.stdout, kept.stderr) == (once.returncode, once.stdout, b"")
    assert not (folder / "kept").exists()
    within = audit("scan", *given, "--resume", "data/kept", cwd=folder)
    assert (within.returncode, within.stdout) == (4, b"")
    assert b"outside of the data" in within.stderr
