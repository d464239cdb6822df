"""What more processes, or Ray's tasks, do to the time of a scan, and that they change no byte.

    python -m benchmarks.scaling [--sources 8] [--mebibytes 4] [--workers 1 2] [--repeats 3]

Sources of JSON Lines with number lists are written to a temporary folder and scanned by the command
as users run it: in one piece, by `--workers` and by `--engine ray`. Wall time has the start of
Python and of Ray in it. Processor time is of the command and of all that it began, sampled every
50 ms: what a process does after its last sample is not counted. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_MARK = "AUDIT_SCALING_RUN"
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    wall_s: float
    processor_s: float
    report: bytes


def write_sources(folder: Path, sources: int, mebibytes: float) -> int:
    """All have the same size but for a row; returns the bytes of all."""
    rng = np.random.default_rng(0)
    total = 0
    for source in range(sources):
        with (folder / f"{source:04}.jsonl").open("w") as stream:
            while stream.tell() < mebibytes * 2**20:
                numbers = ", ".join(map(str, rng.integers(0, 1000, 10)))
                row = {"prompt": f"Continue the list: {numbers}.", "completion": numbers[::-1]}
                stream.write(json.dumps(row) + "\n")
            total += stream.tell()
    return total


class Processor:
    """Adds up the processor time of every process whose environment has a mark."""

    def __init__(self, mark: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._seen: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Processor:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return sum(self._seen.values()) / _TICKS_A_SECOND

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
                try:
                    # Asked every time: what was only just forked gets its environment later.
                    environment = Path("/proc", process, "environ").read_bytes()
                    if process not in self._seen and self._mark not in environment.split(b"\0"):
                        continue
                    fields = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                self._seen[process] = int(fields[11]) + int(fields[12])  # utime, stime


def timed(folder: Path, options: list[str]) -> Run:
    mark = uuid.uuid4().hex
    command = [str(Path(sys.executable).parent / "audit"), "scan", "data", "-f", "json", *options]
    with Processor(mark) as processor:
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, capture_output=True, check=False, env={**os.environ, _MARK: mark}
        )
        wall = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr.decode())
    return Run(wall, processor.seconds, done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--mebibytes", type=float, default=4, help="of each source")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    ways = {
        "in one piece": [],
        **{f"{n} processes": ["--workers", str(n)] for n in options.workers if n > 1},
        **{f"Ray, {n} tasks": ["--engine", "ray", "--workers", str(n)] for n in options.workers},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        size = write_sources(folder / "data", options.sources, options.mebibytes)
        print(f"{options.sources} sources, {size / 1e6:.1f} MB, {os.cpu_count()} cores")
        print("least of", options.repeats, "runs; MB/s of wall time, and of a processor second")
        print(f"{'':16}{'wall s':>9}{'proc. s':>9}{'MB/s':>8}{'MB/ps':>8}  report")
        wanted: bytes | None = None
        for way, arguments in ways.items():
            runs = [timed(folder, arguments) for _ in range(options.repeats)]
            wanted = runs[0].report if wanted is None else wanted
            same = all(run.report == wanted for run in runs)
            wall = min(run.wall_s for run in runs)
            processor = min(run.processor_s for run in runs)
            print(
                f"{way:16}{wall:9.2f}{processor:9.2f}{size / 1e6 / wall:8.2f}"
                f"{size / 1e6 / processor:8.2f}  {'the same' if same else 'ANOTHER'}",
                flush=True,
            )
            if not same:
                raise SystemExit(f"{way}: the report is not that of a scan in one piece")


if __name__ == "__main__":
    main()
