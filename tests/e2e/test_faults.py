"""The installed command where something breaks under it: never a traceback, a torn file, or 1."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from signatures.library import save_library
from tests import synthetic

AUDIT = Path(sys.executable).parent / "audit"
LIBRARY = synthetic.library(strength=0.3)
ROWS = 400
SCAN = ("--library", "lib", "--reference", "reference.jsonl", "--student-family", "llama")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults")
    save_library(LIBRARY, path / "lib")
    for seed, name in enumerate(("data", "reference")):
        rows = synthetic.number_rows(ROWS, np.random.default_rng(seed))
        lines = (json.dumps({"prompt": "Go on.", "completion": text}) for text in rows)
        (path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return path


def begin(folder, *arguments, unbuffered=False, most_file_bytes=None, **options):
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONUNBUFFERED": ""}
    if unbuffered:
        environment["PYTHONUNBUFFERED"] = "1"

    def limit():
        # A shell ignores the one for what it runs behind, and nohup the other.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if most_file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_file_bytes, most_file_bytes))

    return subprocess.Popen(
        [AUDIT, *map(str, arguments)],
        cwd=folder,
        env=environment,
        preexec_fn=limit,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        | options,
    )


def finish(process):
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        out, err = process.communicate(timeout=120)
    # Where Ctrl-C was pressed, click begins a new line first.
    return process.returncode, out, (err or b"").decode().strip().splitlines()


def finish_after(process, number):
    """A signal that comes just before a read begins to wait is seen when that ends: so again."""
    for _ in range(10):
        time.sleep(0.3)
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            break
    return finish(process)


def run(folder, *arguments, **options):
    return finish(begin(folder, *arguments, **options))


def wait_until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def children(process):
    """Its workers: processes of the same interpreter, but that which tracks resources."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in command_line(child)]


def command_line(child):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{child}/cmdline").read_bytes()
    return b""


@pytest.mark.parametrize(
    "arguments",
    [["concepts"], ["--help"], ["scan", "data.jsonl", *SCAN], ["scan", "--help"]],
    ids=["concepts", "help", "scan", "scan-help"],
)
def test_a_full_standard_output_is_one_line_and_2(folder, arguments):
    with Path("/dev/full").open("wb") as full:
        code, _, said = run(folder, *arguments, stdout=full)
    assert (code, said) == (
        2,
        ["audit: standard output cannot be written: No space left on device"],
    )


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_report_that_is_cut_short_is_no_report(folder, tmp_path, unbuffered):
    # A write that fills the disk succeeds in part: Python's own unbuffered stream leaves it there.
    with (tmp_path / "report.json").open("wb") as stream:
        code, _, said = run(
            folder,
            *("scan", "data.jsonl", *SCAN, "-f", "json"),
            stdout=stream,
            unbuffered=unbuffered,
            most_file_bytes=5000,
        )
    assert (code, said) == (2, ["audit: standard output cannot be written: File too large"])


@pytest.mark.parametrize(
    "arguments",
    [["concepts"], ["scan", "data.jsonl", *SCAN]],
    ids=["concepts", "terminal"],
)
def test_a_reader_that_has_gone_is_2_and_no_finding(folder, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        code, _, said = run(folder, *arguments, stdout=pipe)
    assert (code, said) == (2, [])


def test_a_full_standard_error_changes_no_exit_code(folder):
    with Path("/dev/full").open("wb") as full:
        assert run(folder, "scan", "nowhere.jsonl", stderr=full)[0] == 4


def test_closed_streams_are_no_place_for_a_file(folder, tmp_path):
    def close():
        for descriptor in (0, 1, 2):
            os.close(descriptor)

    process = subprocess.run(
        [AUDIT, "scan", "data.jsonl", *SCAN, "-f", "json", "-o", tmp_path / "r.json"],
        cwd=folder,
        preexec_fn=close,
        check=False,
        timeout=120,
    )
    assert process.returncode == 0
    assert json.loads((tmp_path / "r.json").read_bytes())["rows_scanned"] == ROWS


@pytest.mark.parametrize("ending", ["json", "html"])
def test_a_disk_that_fills_leaves_the_report_as_it_was(folder, tmp_path, ending):
    report = tmp_path / f"report.{ending}"
    report.write_text("the last one")
    code, out, said = run(
        folder, "scan", "data.jsonl", *SCAN, "-o", report, "-q", most_file_bytes=1000
    )
    assert (code, out) == (2, b"")
    assert said == [f"audit: cannot write the report '{report}': File too large"]
    assert report.read_text() == "the last one"
    assert list(tmp_path.iterdir()) == [report]


def test_a_shard_that_does_not_fit_is_none(folder, tmp_path):
    arguments = ["--shard", "1/1", "--state", tmp_path / "part.shard"]
    code, out, said = run(folder, "scan", "data.jsonl", *SCAN, *arguments, most_file_bytes=1000)
    assert (code, out, len(said)) == (2, b"", 1)
    assert "File too large" in said[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_ends_it_with_one_line_and_nothing_written(folder, tmp_path, name):
    fifo = tmp_path / "endless.jsonl"
    os.mkfifo(fifo)
    process = begin(folder, "scan", fifo, *SCAN, "-o", tmp_path / "r.json")
    with fifo.open("wb") as stream:  # it is being read now
        stream.write((folder / "data.jsonl").read_bytes())
        stream.flush()
        code, out, said = finish_after(process, getattr(signal, name))
    assert (code, out, len(said)) == (2, b"", 1)
    assert "stopped" in said[0]
    assert "nothing was decided" in said[0]
    assert list(tmp_path.iterdir()) == [fifo]


@pytest.fixture
def two_workers(folder, tmp_path):
    """A scan whose two workers wait for more of what they read."""
    fifos = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for fifo in fifos:
        os.mkfifo(fifo)
    process = begin(folder, "scan", *fifos, *SCAN, "--workers", "2", "-o", tmp_path / "r.json")
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        for fifo in fifos:
            stack.enter_context(fifo.open("wb"))
        yield process


def test_a_killed_worker_is_one_line_that_says_what_was_not_scanned(two_workers, tmp_path):
    workers = children(two_workers)
    os.kill(workers[0], signal.SIGKILL)
    code, out, said = finish(two_workers)
    assert (code, out, len(said)) == (2, b"", 1), said
    assert "ended from outside" in said[0]
    assert "not scanned: 2 of 2 sources" in said[0]
    assert str(tmp_path / "one.jsonl") in said[0]
    assert "--workers" in said[0]
    assert not (tmp_path / "r.json").exists()
    wait_until(lambda: not any(command_line(worker) for worker in workers))


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_workers_end_with_the_command(two_workers, name):
    workers = children(two_workers)
    assert len(workers) == 2
    two_workers.send_signal(getattr(signal, name))
    code, _, _ = finish(two_workers)
    assert code == (2 if name == "SIGTERM" else -signal.SIGKILL)
    wait_until(lambda: not any(command_line(worker) for worker in workers))


@pytest.fixture(scope="module")
def shards(folder):
    """The bytes of the two shards of a scan."""
    for number in (1, 2):
        (folder / f"{number}.jsonl").write_bytes((folder / "data.jsonl").read_bytes())
    made = []
    for number in (1, 2):
        state = folder / f"{number}.shard"
        arguments = ["--shard", f"{number}/2", "--state", state]
        code, _, said = run(folder, "scan", "1.jsonl", "2.jsonl", *SCAN, *arguments)
        assert (code, said) == (0, [])
        made.append(state.read_bytes())
    return made


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "missing"])
def test_one_bad_shard_among_good_ones_is_named(folder, shards, tmp_path, damage):
    good, bad = tmp_path / "1.shard", tmp_path / "2.shard"
    good.write_bytes(shards[0])
    body = shards[1]
    place = body.index(b"rows") + 10
    if damage != "missing":
        broken = {
            "cut": body[: len(body) // 2],
            "flipped": body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :],
            "emptied": b"",
        }
        bad.write_bytes(broken[damage])
    given = [path for path in (good, bad) if path.exists()]
    code, out, said = run(folder, "merge", *given, "--library", "lib", "-o", tmp_path / "r.json")
    assert (code, out, len(said)) == (2, b"", 1)
    assert ("missing of 2 shards: 2" if damage == "missing" else f"{bad}: ") in said[0]
    assert not (tmp_path / "r.json").exists()


def test_a_command_that_cannot_start_is_2_and_no_finding():
    code = "import sys; sys.modules['click'] = None\nfrom audit.cli.start import main; main()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert process.returncode == 2
    (line,) = process.stderr.decode().splitlines()
    assert "cannot start" in line
    assert "click" in line
