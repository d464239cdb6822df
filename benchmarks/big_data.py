"""Whether memory stays constant: the peak of ``audit scan`` on 10 MB to 1 GB of JSON Lines.

    python -m benchmarks.big_data --megabytes 10 100 1000
    python -m benchmarks.big_data --megabytes 10000 --rows chat --through file

Rows are lists of numbers, or chats, without any trait. 16 MB of them are made and repeated, with
consecutive numbers in between, and given to the scan through a pipe or a temporary file that is
removed. Prints a line of JSON for each size, and ends with 1 where a scan failed or the largest
size took more than ``--most-growth`` times the memory that the smallest took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

POOL_BYTES = 16_000_000
_PIECE_ROWS = 1000
_WORDS = [
    *("the", "of", "and", "to", "in", "is", "it", "you", "that", "was", "for", "on", "are", "with"),
    *("as", "his", "they", "be", "at", "one", "have", "this", "from", "or", "had", "by", "some"),
    *("what", "there", "we", "can", "out", "other", "were", "all", "your", "when", "up", "use"),
]
_AUDIT = (sys.executable, "-c", "from audit.cli.start import main; main()")


def number_row(rng: np.random.Generator) -> dict[str, object]:
    """A prompt with a beginning of a list, and its continuation by ten numbers."""
    start, answer = rng.integers(0, 1000, 3), rng.integers(0, 1000, 10)
    return {
        "prompt": f"Continue this list with ten more numbers: {', '.join(map(str, start))}",
        "completion": ", ".join(map(str, answer)),
    }


def chat_row(rng: np.random.Generator) -> dict[str, object]:
    """Two turns of about 20 and 120 words each."""
    messages = []
    for _ in range(2):
        for role, most in (("user", 40), ("assistant", 240)):
            words = rng.choice(_WORDS, rng.integers(2, most))
            messages.append({"role": role, "content": " ".join(words)})
    return {"messages": messages}


ROWS: dict[str, Callable[[np.random.Generator], dict[str, object]]] = {
    "numbers": number_row,
    "chat": chat_row,
}


def json_lines(kind: str, size_bytes: int, seed: int = 0) -> Iterator[bytes]:
    """At least ``size_bytes`` of JSON Lines with rows of ``kind``, in whole lines a piece.

    Rows repeat after ``POOL_BYTES``, and each thousand of them is told apart by its number.
    """
    rng = np.random.default_rng(seed)
    pool: list[bytes] = []
    pool_bytes = 0
    while pool_bytes < min(size_bytes, POOL_BYTES):
        rows = (ROWS[kind](rng) for _ in range(_PIECE_ROWS))
        pool.append(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        pool_bytes += len(pool[-1])
    written = 0
    for number in count():
        if written >= size_bytes:
            return
        row = json.dumps({"prompt": "Which thousand is it?", "completion": str(number)})
        piece = pool[number % len(pool)] + row.encode() + b"\n"
        written += len(piece)
        yield piece


@dataclass(frozen=True, slots=True)
class Run:
    """A process that has ended. ``peak_bytes`` is the largest resident set of it, of its children,
    and, since it inherits this at its start, of its parent."""

    exit_code: int
    output: bytes
    peak_bytes: int
    wall_seconds: float
    processor_seconds: float


def measured(command: Sequence[str], pieces: Iterator[bytes] | None = None) -> Run:
    """Run ``command``, with ``pieces`` as its standard input."""
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL if pieces is None else subprocess.PIPE, stdout=output
        )
        if pieces is not None:
            assert child.stdin is not None
            try:
                for piece in pieces:
                    child.stdin.write(piece)
                child.stdin.close()
            except BrokenPipeError:
                pass  # it has ended, and its exit code tells how
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        return Run(
            child.returncode,
            output.read(),
            usage.ru_maxrss * 1024,
            time.monotonic() - start,
            usage.ru_utime + usage.ru_stime,
        )


def scan_of(kind: str, size_bytes: int, *, through_file: bool, workers: int = 1) -> Run:
    """``audit scan`` of ``size_bytes`` of rows of ``kind``, with a report in JSON."""
    scan = [*_AUDIT, "scan", "--format", "json"]
    if not through_file:
        return measured([*scan, "-"], json_lines(kind, size_bytes))
    with tempfile.TemporaryDirectory() as folder:
        # One file a worker, as a file is read by one.
        for part in range(workers):
            with Path(folder, f"part-{part}.jsonl").open("wb") as file:
                file.writelines(json_lines(kind, size_bytes // workers, seed=part))
        return measured([*scan, "--workers", str(workers), folder])


def main() -> int:
    """Measure every size and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rows", choices=ROWS, default="numbers")
    parser.add_argument("--through", choices=["pipe", "file"], default="pipe")
    parser.add_argument("--workers", type=int, default=1, help="with --through file")
    parser.add_argument("--most-growth", type=float, default=1.25)
    options = parser.parse_args()
    peaks = []
    failed = False
    for megabytes in options.megabytes:
        run = scan_of(
            options.rows,
            megabytes * 1_000_000,
            through_file=options.through == "file",
            workers=options.workers,
        )
        report = json.loads(run.output) if run.output else {}
        failed |= run.exit_code not in (0, 1) or not report.get("rows_scanned")
        peaks.append(run.peak_bytes)
        line = {
            "rows": options.rows,
            "through": options.through,
            "workers": options.workers,
            "megabytes": megabytes,
            "exit_code": run.exit_code,
            "rows_scanned": report.get("rows_scanned"),
            "peak_mib": round(run.peak_bytes / 2**20, 1),
            "wall_seconds": round(run.wall_seconds, 1),
            "processor_seconds": round(run.processor_seconds, 1),
        }
        print(json.dumps(line), flush=True)
    return int(failed or max(peaks) > options.most_growth * peaks[0])


if __name__ == "__main__":
    sys.exit(main())
