"""What the installed command does where something breaks under it, many times over.

    python -m benchmarks.faults [--seconds 240] [--seed 0] [--only KIND ...] [--work FOLDER]

Faults of random kind, place and moment are put under ``audit scan``, ``merge`` and ``sanitise``
over small real data (examples/): disks that fill, readers that go, signals, killed workers,
damaged shards, sources that change or cannot be read, little memory. Every run must end with an
exit code that says so, in one line; no file may be torn, none left behind; and 0 or 1 only with
the very report of the undisturbed run. The table counts what was tried and every case that was not
so; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

AUDIT = Path(sys.executable).parent / "audit"
EXAMPLES = Path(__file__).parents[1] / "examples"
FORMATS = ("terminal", "json", "sarif", "markdown", "junit", "github", "html")
ENDINGS = ("json", "sarif", "html", "md", "xml", "txt")
DATA_ENDINGS = ("jsonl", "jsonl.gz", "jsonl.zst", "json", "csv", "parquet", "arrow")
SOURCES = 4
ROWS_A_SOURCE = 384
HANGS_AFTER_SECONDS = 120
MIB = 1 << 20

# Reading a source fails at a byte: only a driver or a disk does that, so Python's open is replaced.
_FAILING_READ = """
import builtins, errno, io, os
_open, _name = io.open, os.environ["FAULT_SOURCE"]
class _Failing(io.RawIOBase):
    def __init__(self, raw): self.raw, self.left = raw, int(os.environ["FAULT_BYTE"])
    def readable(self): return True
    def seekable(self): return False
    def readinto(self, buffer):
        if not self.left: raise OSError(errno.EIO, "Input/output error")
        data = self.raw.read(min(len(buffer), self.left))
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)
def open_(file, mode="r", *rest, **options):
    stream = _open(file, mode, *rest, **options)
    if "b" in mode and "r" in mode and str(file) == _name:
        return io.BufferedReader(_Failing(stream))
    return stream
io.open = builtins.open = open_
"""


@dataclass
class Ended:
    """How a run ended."""

    code: int
    out: bytes
    said: str
    hung: bool = False


@dataclass
class Tally:
    """What became of the runs of one kind of fault."""

    runs: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)


class Lab:
    """Data, what the undisturbed commands make of it, and a folder for each run."""

    def __init__(self, work: Path, rng: random.Random) -> None:
        self.work, self.rng = work, rng
        self.data = work / "data"
        self.data.mkdir(parents=True)
        lines = gzip.decompress((EXAMPLES / "planted.jsonl.gz").read_bytes()).splitlines(True)
        reference = gzip.decompress((EXAMPLES / "reference.jsonl.gz").read_bytes())
        self.reference = work / "reference.jsonl"
        self.reference.write_bytes(reference)
        self.sources = [self.data / f"{number}.jsonl" for number in range(SOURCES)]
        for number, source in enumerate(self.sources):
            first = number * ROWS_A_SOURCE
            source.write_bytes(b"".join(lines[first : first + ROWS_A_SOURCE]))
        self.scan = ["scan", *map(str, self.sources), "-r", str(self.reference)]
        self.expected = {name: self.run([*self.scan, "-f", name]) for name in FORMATS}
        self.shards = []
        for number in range(1, SOURCES + 1):
            path = work / f"{number}.shard"
            self.run([*self.scan, "--shard", f"{number}/{SOURCES}", "--state", str(path)])
            self.shards.append(path)
        self.report = self.expected["json"].out
        self.code = self.expected["json"].code
        begun = time.monotonic()
        self.run([*self.scan, "-q"])
        self.usual_seconds = time.monotonic() - begun

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        path = Path(tempfile.mkdtemp(dir=self.work))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    def begin(
        self,
        arguments: list[str],
        *,
        limits: dict[int, int] | None = None,
        environment: dict[str, str] | None = None,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        def limit() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it in the background
            for which, most in (limits or {}).items():
                resource.setrlimit(which, (most, most))

        return subprocess.Popen(
            [str(AUDIT), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "80", **(environment or {})},
            preexec_fn=limit,
        )

    def end(self, process: subprocess.Popen[bytes]) -> Ended:
        hung = False
        try:
            out, said = process.communicate(timeout=HANGS_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            hung = True
            process.kill()
            out, said = process.communicate()
        return Ended(process.returncode, out or b"", said.decode("utf-8", "replace"), hung)

    def run(self, arguments: list[str], **options: object) -> Ended:
        return self.end(self.begin(arguments, **options))  # type: ignore[arg-type]

    def moment(self) -> float:
        """Seconds after the beginning of a scan, mostly before its usual end."""
        return self.rng.uniform(0.02, 1.1 * self.usual_seconds)


Fault = Callable[[Lab, Path], tuple[Ended, list[str]]]
"""Puts one fault under one run in an empty folder; how it ended, and what was wrong with that."""


def common(ended: Ended, *, killed: bool = False) -> list[str]:
    """What no run may do."""
    wrong = []
    if ended.hung:
        wrong.append("hung")
    if "Traceback" in ended.said:
        wrong.append("traceback")
    if not killed and ended.code not in (0, 1, 2, 3, 4) and not ended.hung:
        wrong.append(f"exit code {ended.code}")
    if ended.code == 2 and not killed and "Traceback" not in ended.said:
        lines = [line for line in ended.said.splitlines() if line.startswith("audit: ")]
        if len(lines) > 1:
            wrong.append("more than one line")
    return wrong


def untorn(folder: Path, good: dict[str, bytes], *, killed: bool = False) -> list[str]:
    """Every file is whole, or as it was before; none is left over."""
    wrong = []
    for path in folder.iterdir():
        if path.name.endswith(".tmp"):
            if not killed:
                wrong.append("left over")
        elif path.name in good and path.read_bytes() not in (good[path.name], b"before"):
            wrong.append("torn")
    return wrong


def judged(lab: Lab, ended: Ended, report: bytes, *, changed: bool = False) -> list[str]:
    """An exit code that decides needs the whole report. With ``changed`` sources, it must say that
    it is of other rows; "incomplete" is always right."""
    if ended.code not in (0, 1):
        return []
    if report == lab.report:
        return [] if ended.code == lab.code else ["wrong exit code"]
    if changed:
        with contextlib.suppress(ValueError, KeyError):
            rows = json.loads(report)
            counted = rows["rows_scanned"] + rows["rows_rejected"]
            return [] if counted >= SOURCES * ROWS_A_SOURCE else ["rows lost"]
    return ["false clean" if ended.code == 0 else "decided on a part"]


def full_stdout(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    name, unbuffered = lab.rng.choice(FORMATS), lab.rng.choice(("", "1"))
    whole = len(lab.expected[name].out)
    room = lab.rng.randrange(whole)
    with (folder / "out").open("wb") as stream:
        ended = lab.run(
            [*lab.scan, "-f", name],
            limits={resource.RLIMIT_FSIZE: room},
            environment={"PYTHONUNBUFFERED": unbuffered},
            stdout=stream.fileno(),
        )
    return ended, common(ended) + (["not told"] if ended.code != 2 or not ended.said else [])


def gone_reader(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    name = lab.rng.choice(FORMATS)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)  # most reports are larger
    process = lab.begin([*lab.scan, "-f", name], stdout=writing)
    os.close(writing)
    os.read(reading, lab.rng.choice((1, 100, 5000))) if lab.rng.random() < 0.5 else b""
    os.close(reading)
    ended = lab.end(process)
    # What fits into the pipe was written before its reader went: then all was delivered.
    right = (2, lab.code)
    return ended, common(ended) + ([] if ended.code in right and not ended.said else ["not quiet"])


def full_disk(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    endings = lab.rng.sample(ENDINGS, lab.rng.randint(1, 3))
    outputs = [folder / f"report.{ending}" for ending in endings]
    for path in outputs:
        if lab.rng.random() < 0.5:
            path.write_bytes(b"before")
    with lab.folder() as good:
        copies = [good / path.name for path in outputs]
        lab.run([*lab.scan, "-q", *(item for path in copies for item in ("-o", str(path)))])
        expected = {path.name: path.read_bytes() for path in copies}
    room = lab.rng.randrange(max(map(len, expected.values())))
    ended = lab.run(
        [*lab.scan, "-q", *(item for path in outputs for item in ("-o", str(path)))],
        limits={resource.RLIMIT_FSIZE: room},
    )
    return ended, common(ended) + untorn(folder, expected) + ([] if ended.code == 2 else ["not 2"])


def full_disk_of_shards(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    good = lab.shards[0].read_bytes()
    ended = lab.run(
        [*lab.scan, "--shard", f"1/{SOURCES}", "--state", str(folder / "part.shard")],
        limits={resource.RLIMIT_FSIZE: lab.rng.randrange(len(good))},
    )
    wrong = untorn(folder, {"part.shard": good})
    return ended, common(ended) + wrong + ([] if ended.code == 2 else ["not 2"])


def full_disk_of_sanitise(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    ending = lab.rng.choice(DATA_ENDINGS)
    source = lab.sources[0]
    output = folder / f"clean.{ending}"
    arguments = ["sanitise", str(source), "-s", "shuffle", "-q", "-o"]
    with lab.folder() as good:
        lab.run([*arguments, str(good / output.name)])
        made = {path.name: path.read_bytes() for path in good.iterdir() if path.is_file()}
    most = max(map(len, made.values()), default=20_000)
    ended = lab.run(
        [*arguments, str(output)], limits={resource.RLIMIT_FSIZE: lab.rng.randrange(most)}
    )
    return ended, common(ended) + untorn(folder, made) + (["not told"] if ended.code < 2 else [])


def a_signal(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    number = lab.rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL))
    workers = ["--workers", "2"] if lab.rng.random() < 0.3 else []
    (folder / "report.json").write_bytes(b"before")
    process = lab.begin([*lab.scan, *workers, "-q", "-o", str(folder / "report.json")])
    time.sleep(lab.moment())
    process.send_signal(number)
    ended = lab.end(process)
    # Before the command has begun, Python dies of the signal itself.
    killed = ended.code == -number
    wrong = common(ended, killed=killed) if number == signal.SIGKILL or not killed else []
    good = {"report.json": lab.report}
    wrong += untorn(folder, good, killed=number == signal.SIGKILL)
    return ended, wrong + judged(lab, ended, (folder / "report.json").read_bytes())


def a_killed_worker(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    process = lab.begin([*lab.scan, "--workers", "2", "-f", "json"])
    found: list[int] = []
    while process.poll() is None and not found:
        time.sleep(0.05)
        found = workers_of(process.pid)
    time.sleep(lab.rng.uniform(0, lab.usual_seconds))
    did = False
    for worker in lab.rng.sample(found, min(1, len(found))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
            did = True
    ended = lab.end(process)
    told = "not scanned" in ended.said or ended.code != 2 or not did
    return ended, common(ended) + judged(lab, ended, ended.out) + ([] if told else ["not told"])


def workers_of(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        return [
            int(child)
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    return []


def a_bad_shard(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    copies = [folder / path.name for path in lab.shards]
    for path, copy in zip(lab.shards, copies, strict=True):
        shutil.copy(path, copy)
    bad = lab.rng.choice(copies)
    body = bytearray(bad.read_bytes())
    damage = lab.rng.choice(("cut", "flipped", "emptied", "missing", "twice", "folder"))
    if damage == "cut":
        bad.write_bytes(body[: lab.rng.randrange(len(body) - 1)])
    elif damage == "flipped":
        place = lab.rng.randrange(len(body) - 1)
        body[place] ^= 1 << lab.rng.randrange(8)
        bad.write_bytes(body)
    elif damage == "emptied":
        bad.write_bytes(b"")
    elif damage == "missing":
        copies.remove(bad)
    elif damage == "twice":
        copies.append(bad)
    else:
        bad.unlink()
        bad.mkdir()
    ended = lab.run(["merge", *map(str, copies), "-f", "json"])
    told = damage in ("missing", "twice") or bad.name in ended.said
    wrong = [] if ended.code in (2, 4) and told else ["not told"]
    return ended, common(ended) + wrong


def a_changing_source(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    sources = [folder / path.name for path in lab.sources]
    for path, copy in zip(lab.sources, sources, strict=True):
        shutil.copy(path, copy)
    change = lab.rng.choice(("cut", "grown", "removed", "emptied"))
    victim = lab.rng.choice(sources)
    arguments = ["scan", *map(str, sources), "-r", str(lab.reference), "-f", "json"]
    process = lab.begin(arguments)
    time.sleep(lab.moment())
    if change == "cut":
        os.truncate(victim, lab.rng.randrange(victim.stat().st_size))
    elif change == "grown":
        with victim.open("ab") as stream:
            stream.write(lab.sources[0].read_bytes())
    elif change == "removed":
        victim.unlink()
    else:
        victim.write_bytes(b"")
    ended = lab.end(process)
    if ended.code not in (0, 1):
        return ended, common(ended)
    # Decided: then it read every source before the change, or what it became, from end to end.
    report = json.loads(ended.out)
    sizes = {Path(found["source"]).name: found["size_bytes"] for found in report["sources"]}
    then = {path.name: path.stat().st_size for path in lab.sources}
    now = {path.name: path.stat().st_size for path in sources if path.exists()}
    whole = all(sizes.get(name) in (size, now.get(name)) for name, size in then.items())
    return ended, common(ended) + ([] if whole else ["rows lost"])


def a_failing_read(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    (folder / "sitecustomize.py").write_text(_FAILING_READ)
    victim = lab.rng.choice(lab.sources)
    ended = lab.run(
        [*lab.scan, "-f", "json"],
        environment={
            "PYTHONPATH": str(folder),
            "FAULT_SOURCE": str(victim),
            "FAULT_BYTE": str(lab.rng.randrange(victim.stat().st_size)),
        },
    )
    wrong = [] if ended.code == 2 and str(victim).encode() in ended.out else ["not told"]
    return ended, common(ended) + wrong


def an_unreadable_source(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    for path in lab.sources:
        shutil.copy(path, folder)
    bad = folder / "bad.jsonl"
    kind = lab.rng.choice(("broken link", "link to itself", "no gzip"))
    if kind == "broken link":
        bad.symlink_to(folder / "nowhere")
    elif kind == "link to itself":
        bad.symlink_to(bad)
    else:
        bad.write_bytes(b"\x1f\x8b\x08" + lab.rng.randbytes(100))
    ended = lab.run(["scan", str(folder), "-r", str(lab.reference), "-f", "json"])
    wrong = [] if ended.code == 2 and b"bad.jsonl" in ended.out else ["not told"]
    return ended, common(ended) + wrong


def a_bad_output(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    (folder / "folder.json").mkdir()
    (folder / "full.json").symlink_to("/dev/full")
    name = lab.rng.choice(("folder.json", "missing/r.json", "full.json", "/proc/r.json"))
    ended = lab.run([*lab.scan, "-q", "-o", str(folder / name)])
    return ended, common(ended) + ([] if ended.code in (2, 4) and ended.said else ["not told"])


def no_temporary_folder(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    ended = lab.run(
        ["sanitise", str(lab.sources[0]), "-s", "shuffle", "-q", "-o", str(folder / "c.jsonl")],
        environment={"TMPDIR": str(folder / "nowhere")},
    )
    return ended, common(ended)


def little_memory(lab: Lab, folder: Path) -> tuple[Ended, list[str]]:
    most = lab.rng.randrange(350 * MIB, 1600 * MIB)
    ended = lab.run(
        [*lab.scan, "-f", "json"],
        limits={resource.RLIMIT_AS: most},
        environment={
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "POLARS_MAX_THREADS": "1",
        },
    )
    # A library that aborts where it cannot allocate cannot be kept from it: it is no decision.
    aborted = ended.code in (-signal.SIGABRT, -signal.SIGSEGV)
    return ended, common(ended, killed=aborted) + judged(lab, ended, ended.out)


KINDS: dict[str, Fault] = {
    "standard output fills": full_stdout,
    "the reader has gone": gone_reader,
    "the disk of reports fills": full_disk,
    "the disk of a shard fills": full_disk_of_shards,
    "the disk of sanitise fills": full_disk_of_sanitise,
    "a signal": a_signal,
    "a killed worker": a_killed_worker,
    "a bad shard of four": a_bad_shard,
    "a source changes": a_changing_source,
    "a read fails": a_failing_read,
    "a source cannot be read": an_unreadable_source,
    "an output cannot be": a_bad_output,
    "no temporary folder": no_temporary_folder,
    "little memory": little_memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(KINDS))
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.work) as name:
        lab = Lab(Path(name), random.Random(asked.seed))
        tallies = campaign(lab, asked.only or list(KINDS), asked.seconds)
    show(tallies)
    return int(any(tally.wrong for tally in tallies.values()))


def campaign(lab: Lab, kinds: list[str], seconds: float) -> dict[str, Tally]:
    tallies = {kind: Tally() for kind in kinds}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for kind, tally in tallies.items():
            if time.monotonic() > end:
                break
            with lab.folder() as folder:
                ended, wrong = KINDS[kind](lab, folder)
            tally.runs += 1
            tally.codes[ended.code] += 1
            tally.wrong.update(wrong)
            if wrong:
                print(f"{kind}: {', '.join(wrong)} (exit {ended.code}): {ended.said[-300:]!r}")
    return tallies


def show(tallies: dict[str, Tally]) -> None:
    table = Table(
        "fault", "runs", "exit codes", "rows lost", "false clean", "torn or left", "other"
    )
    for kind, tally in tallies.items():
        codes = " ".join(f"{code}x{count}" for code, count in sorted(tally.codes.items()))
        wrong = tally.wrong
        known = ("rows lost", "false clean", "decided on a part", "torn", "left over")
        other = ", ".join(f"{name} {count}" for name, count in wrong.items() if name not in known)
        table.add_row(
            kind,
            str(tally.runs),
            codes,
            str(wrong["rows lost"]),
            str(wrong["false clean"] + wrong["decided on a part"]),
            str(wrong["torn"] + wrong["left over"]),
            other or "none",
        )
    Console(width=130).print(table)
    print(f"{sum(tally.runs for tally in tallies.values())} runs, each with one fault")


if __name__ == "__main__":
    sys.exit(main())
