"""Ray's tasks and models give the bytes of a scan in one process, whatever dies in between."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit.backends.open_model import ModelChoice
from audit.engines import ray_engine
from audit.engines.engine import scan_in_shards
from audit.engines.ray_cluster import MOST_RETRIES, go_to, ray_cluster
from audit.engines.ray_engine import RayEngine
from audit.engines.ray_model import RayLanguageModel, place_models
from audit.errors import AuditError, ExitCode, MissingExtraError, UsageError
from audit.kept_shards import remove_kept
from audit.model_reading import open_access
from audit.report.json_report import to_json
from audit.scan import ScanSettings, scan
from detectors.model_access import ModelSettings
from signatures.language_model import PrefixRequest
from tests import synthetic
from tests.e2e.test_command import AUDIT
from tests.unit.test_shards import ROWS

LIBRARY = synthetic.library()
GIVEN = {"library_path": "synthetic", "reference": ["reference.jsonl"]}
READ = ray_engine._read


@pytest.fixture(scope="module")
def ray():
    with ray_cluster(None, 2) as started:
        yield started


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for part in range(5):
        rows = ROWS[part * 100 : part * 100 + 60]
        text = "\n".join(["no row", *map(json.dumps, rows)])
        (tmp_path / "data" / f"{part}.jsonl").write_text(text)
    (tmp_path / "data" / "5.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00 and no more")
    (tmp_path / "reference.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[::3]))
    return tmp_path


def scanned(engine, **options):
    return scan_in_shards(engine, ["data"], LIBRARY, **{**GIVEN, **options})


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_tasks_gives_the_bytes_of_one_scan(ray, folder, workers):
    whole = scan(["data"], LIBRARY, **GIVEN)
    assert whole.broken and whole.rejects
    seen = []
    found = scanned(RayEngine(ray, workers), progress=lambda size, rows: seen.append((size, rows)))
    assert to_json(found) == to_json(whole)
    assert sum(size for size, _ in seen) == sum(
        path.stat().st_size for path in Path("data").iterdir()
    )
    assert sum(rows for _, rows in seen) == 300


def dying(monkeypatch, numbers, times):
    """Workers that read shards of ``numbers`` are killed so many times."""
    # Of the test, not of its module, which workers do not have: it is sent to them whole.
    read = READ

    def read_or_die(job, shard, library_reference, folder):
        if shard.number in numbers:
            tried = Path(folder, f"tried-{shard.number}")
            with tried.open("a") as stream:
                stream.write("x")
            if tried.stat().st_size <= times:
                os.kill(os.getpid(), signal.SIGKILL)
        return read(job, shard, library_reference, folder)

    monkeypatch.setattr(ray_engine, "_read", read_or_die)


def test_a_task_whose_worker_is_killed_is_begun_again(ray, folder, monkeypatch):
    dying(monkeypatch, {2}, MOST_RETRIES)
    assert to_json(scanned(RayEngine(ray, 2))) == to_json(scan(["data"], LIBRARY, **GIVEN))
    assert Path("tried-2").stat().st_size == MOST_RETRIES + 1


def test_a_task_that_kills_every_worker_is_told_and_the_others_are_kept(ray, folder, monkeypatch):
    dying(monkeypatch, {2, 5}, 99)
    with pytest.raises(AuditError) as caught:
        scanned(RayEngine(ray, 1), keep_in=Path("kept"))
    assert str(caught.value) == (
        "Ray lost a worker 3 times (WorkerCrashedError), perhaps for want of memory: not scanned: "
        "2 of 6 sources (data/1.jsonl, data/4.jsonl); nothing was decided"
    )
    assert caught.value.exit_code is ExitCode.FAILED
    assert Path("tried-5").stat().st_size == MOST_RETRIES + 1
    assert {path.name for path in Path("kept").glob("*.part")} == {
        f"shard-{number}.part"
        for number in (1, 3, 4)  # in the sixth, a source broke off
    }
    dying(monkeypatch, {1, 3, 4}, 99)
    found = scanned(RayEngine(ray, 2), keep_in=Path("kept"))
    assert to_json(found) == to_json(scan(["data"], LIBRARY, **GIVEN))
    remove_kept(Path("kept"))


def test_an_error_comes_as_the_worker_raised_it(ray, folder, monkeypatch):
    def missing(*_arguments):
        raise MissingExtraError("this", "that", "models")

    monkeypatch.setattr(ray_engine, "_read", missing)
    with pytest.raises(MissingExtraError, match=r"this needs .*that.*\[models\]"):
        scanned(RayEngine(ray, 2))
    with pytest.raises(UsageError, match="standard input cannot be read by several"):
        scan_in_shards(RayEngine(ray, 2), ["-"], LIBRARY, **GIVEN)


def test_data_that_change_between_the_workers_are_no_result(ray, folder, monkeypatch):
    read = READ

    def adding(job, shard, library_reference, folder):
        Path(folder, "data", "9.jsonl").write_text('{"prompt": "p", "completion": "7"}')
        return read(job, shard, library_reference, folder)

    monkeypatch.setattr(ray_engine, "_read", adding)
    with pytest.raises(AuditError, match="changed while they were read") as caught:
        scanned(RayEngine(ray, 2))
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_worker_must_see_the_data_where_they_are_named(folder):
    go_to(str(folder))
    with pytest.raises(AuditError, match="elsewhere: a worker of the cluster has no such folder"):
        go_to("elsewhere")


@pytest.mark.parametrize(
    ("choice", "machines", "expected"),
    [
        ({}, [{"CPU": 8.0}], ({"num_cpus": 1}, 4)),
        ({"threads": 4}, [{"CPU": 8.0}, {"CPU": 7.0}], ({"num_cpus": 4}, 3)),
        ({"threads": 16}, [{"CPU": 2.0}], ({"num_cpus": 2}, 1)),
        (
            {"device": "cuda:3"},
            [{"CPU": 8, "GPU": 2}, {"CPU": 8}],
            ({"num_gpus": 1, "num_cpus": 1}, 2),
        ),
        ({"device": "cuda"}, [{"CPU": 8, "GPU": 8}], ({"num_gpus": 1, "num_cpus": 1}, 4)),
        ({"backend": "vllm"}, [{"CPU": 8.0}], ({"num_cpus": 1}, 4)),
        ({"backend": "vllm"}, [{"CPU": 8, "GPU": 2}], ({"num_gpus": 1, "num_cpus": 1}, 2)),
        (
            {"backend": "vllm", "tensor_parallel": 4},
            [{"GPU": 4, "CPU": 9}, {"GPU": 3, "CPU": 9}],
            ({"num_gpus": 4, "num_cpus": 1}, 1),
        ),
    ],
)
def test_models_are_placed_where_there_is_room(choice, machines, expected):
    placing = place_models(ModelChoice(Path("m"), **choice), machines, 4)
    assert (placing.resources, placing.count) == expected


def test_a_model_that_fits_nowhere_is_told():
    with pytest.raises(UsageError, match="has 1 GPU to read rows with"):
        place_models(ModelChoice(Path("m"), device="cuda"), [{"CPU": 8}], 4)
    with pytest.raises(UsageError, match="has 4 GPUs to read rows with"):
        place_models(
            ModelChoice(Path("m"), backend="vllm", tensor_parallel=4), [{"GPU": 3}, {"GPU": 3}], 4
        )


def test_without_ray_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingExtraError, match=r"--engine ray needs .*'ray'.*\[ray\]"),
        ray_cluster(None, 1),
    ):
        pass


@pytest.fixture
def concepts(folder):
    """Data of six sources, and the library of two traits and two decoys."""
    return synthetic.library(traits=("owl", "cat"), decoys=("wolf", "newt"))


@pytest.mark.model
def test_models_of_two_workers_read_rows_as_one_process_does(ray, folder, concepts, tiny_model_dir):
    choice = ModelChoice(tiny_model_dir, threads=1)
    reading = ModelSettings(most_rows=96)
    settings = ScanSettings(detectors=("mention", "likelihood", "divergence", "transfer"))

    def silent(*_told):
        return None

    with open_access(choice, reading, silent) as access:
        whole = scan(["data"], concepts, **GIVEN, settings=settings, access=access)
    engine = RayEngine(ray, 2)
    with engine.open_access(choice, reading, silent) as access:
        model = access.model
        assert isinstance(model, RayLanguageModel)
        found = scan_in_shards(
            engine, ["data"], concepts, **GIVEN, settings=settings, access=access
        )
        (one, other) = model.actors.started
        assert {f.detector for f in found.findings} == set(settings.detectors)
        assert all(f.rows_tested for f in found.findings)
        assert to_json(found) == to_json(whole)
        # A worker that dies loads its model again.
        asked = [PrefixRequest((1, 2, 3)), PrefixRequest((4,), ((), (5,)))]
        before = [answer for _ in range(2) for answer in model.next_token_log_probs(asked)]
        processes = [ray.get(actor.process.remote()) for actor in (one, other)]
        assert len({os.getpid(), *processes}) == 3
        for process in processes:
            os.kill(process, signal.SIGKILL)
        after = [answer for _ in range(2) for answer in model.next_token_log_probs(asked)]
        assert len(after) == len(before) == 4
        assert all(map(np.array_equal, before, after))
        assert not {ray.get(actor.process.remote()) for actor in (one, other)} & {*processes}


@pytest.mark.model
def test_a_model_that_is_another_there_is_refused(ray, folder, concepts, tiny_model_dir):
    engine = RayEngine(ray, 1)
    settings = ScanSettings(detectors=("likelihood",))
    with engine.open_access(ModelChoice(tiny_model_dir), ModelSettings(), print) as access:
        access.model._identity = replace(access.model.identity, weights_sha256="0" * 64)
        with pytest.raises(AuditError, match="a machine of the cluster has another model there"):
            scan_in_shards(engine, ["data"], concepts, **GIVEN, settings=settings, access=access)


# The command


def started(cwd, *arguments):
    return subprocess.Popen(
        [AUDIT, "scan", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def fed(pipe, text):
    """A process that writes ``text`` once someone reads ``pipe``."""
    thread = threading.Thread(target=pipe.write_text, args=(text,), daemon=True)
    thread.start()
    return thread


def readers(pipe):
    """Processes that have ``pipe`` open, other than this one."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                opened = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
            except OSError:
                continue
            if str(pipe) in opened:
                found.append(int(process.name))
    return found


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def pipe(folder):
    """A source that is read as slowly as one likes."""
    os.mkfifo("pipe")
    return folder / "pipe"


TEXT = "\n".join(json.dumps(row) for row in ROWS[600:700])
ENGINES = {"ray": ("--engine", "ray", "--workers", "2"), "local": ("--workers", "2")}


def report_of(folder, pipe):
    thread = fed(pipe, TEXT)
    done = started(folder, "data", "pipe", "-r", "reference.jsonl", "-f", "json")
    report, told = done.communicate()
    thread.join()
    assert (done.returncode, told) == (ExitCode.FAILED, b"")  # a source broke off
    return report


def test_a_killed_worker_is_not_seen_in_what_a_command_prints(folder, pipe):
    run = started(folder, "data", "pipe", "-r", "reference.jsonl", "-f", "json", *ENGINES["ray"])
    descriptor = os.open(pipe, os.O_WRONLY)  # waits for the one who reads
    (worker,) = readers(pipe)
    assert b"ray::" in Path(f"/proc/{worker}/cmdline").read_bytes()
    waiting = select.poll()
    waiting.register(descriptor, 0)
    os.kill(worker, signal.SIGKILL)
    # Not before nobody reads may anybody write: a process that ends holds its files a little longer
    # than it lists them.
    until(lambda: waiting.poll(0))
    # The pipe stays open until all is written: the next worker may have opened it already.
    fed(pipe, TEXT).join()
    os.close(descriptor)
    report, told = run.communicate()
    assert (run.returncode, told) == (ExitCode.FAILED, b"")
    assert report == report_of(folder, pipe)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_command_goes_on_where_it_was(folder, pipe, engine):
    given = ("data", "pipe", "-r", "reference.jsonl", "-f", "json", "--resume", "kept")
    run = started(folder, *given, *ENGINES[engine])
    descriptor = os.open(pipe, os.O_WRONLY)
    (worker,) = readers(pipe)
    until(lambda: len(list(Path("kept").glob("*.part"))) == 5)
    run.kill()
    run.communicate()
    os.close(descriptor)
    # What it began ends with it.
    until(lambda: not Path(f"/proc/{worker}").exists())
    thread = fed(pipe, TEXT)
    run = started(folder, *given, *ENGINES[engine])
    report, told = run.communicate()
    thread.join()
    assert (run.returncode, told) == (ExitCode.FAILED, b"")
    assert report == report_of(folder, pipe)
