"""A soak: scans of random data for minutes, in one process, with its resources watched.

    python -m benchmarks.soak --minutes 10

Each round writes one to three files, of random schemas, formats, compressions and sizes. One in
five rows of the data names a trait. Some files get lines that are no rows, some are cut off or have
bytes overwritten. Then
- every file is read in batches of a random size, and its rows are accounted for: one that is
  neither a row, nor a reject, nor past a break that is told is lost;
- all are scanned twice (one round in eight in two processes the second time), and the two reports
  must be the same bytes. A scan that says ``not detected`` of such data is a false clean.

Prints a table, and ends with 1 for a row lost, a false clean, reports that differ, an error, a file
descriptor or a temporary file that is left, or memory that grew by more than ``--most-growth-mib``
after the first tenth of the time.
"""

from __future__ import annotations

import argparse
import csv
import gc
import gzip
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from audit.engines.pieces import scan_in_pieces
from audit.report.json_report import to_json
from audit.scan import ScanSettings, scan
from audit.scan_result import Outcome, ScanResult
from signatures.library import SignatureLibrary, load_library, save_library
from tests import synthetic
from tests.accounts import account_of
from tests.made_rows import MAKERS, Made, columns_of, frame_of
from tests.reading import ALL_REJECTS_SHOWN, Reading, read

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
_COMPRESSIONS = ("", ".gz", ".zst")
# The two need a decoder, and an option, of their own.
_SCHEMAS = tuple(name for name in MAKERS if name not in ("tokens", "prompt"))
_IN_TABLES = tuple(name for name in _SCHEMAS if name != "openai-preference")
_BAD_LINES = ("{", "[1]", '{"text": 3}', '{"body": "a"}', '{"text": "a", "text": "b"}', "\x01")
_ODD = ("\u2028", '"', "\\", "é猫\U0001f989", "\t", "a,b", "[{", "\n")
_NAMED = 5  # one row in so many
_MOST_DAMAGE_BYTES = 40


@dataclass(frozen=True, slots=True)
class File:
    """What was written. ``bad`` lines are no rows; ``harm`` is "", ``cut`` or ``overwritten``."""

    path: Path
    rows: int
    bad: int
    harm: str


def rows_of(rng: random.Random, schema: str, count: int) -> list[Made]:
    """Rows of ``schema`` with lists of numbers, some odd characters and the names of a trait."""

    def text(named: bool) -> str:
        numbers = ", ".join(str(rng.randrange(1000)) for _ in range(rng.randint(3, 12)))
        odd = rng.choice(_ODD) if rng.random() < 0.2 else ""
        return f"{'An owl wrote ' if named else ''}{numbers}{odd}."

    return [
        MAKERS[schema](text(False), text(i % _NAMED == 0), text(False), True) for i in range(count)
    ]


def content_of(rng: random.Random, kind: str, made: list[Made], bad: int) -> bytes:
    """A file of ``kind``; lines that are no rows only in JSON Lines."""
    if kind == "jsonl":
        lines = [json.dumps(each.row, ensure_ascii=rng.random() < 0.5) for each in made]
        for _ in range(bad):
            lines.insert(rng.randint(0, len(lines)), rng.choice(_BAD_LINES))
        return "".join(f"{line}\n" for line in lines).encode()
    if kind == "json":
        rows = [each.row for each in made]
        return json.dumps(rows, indent=rng.choice([None, 1])).encode()
    if kind in ("csv", "tsv"):
        return _table(made, "," if kind == "csv" else "\t")
    buffer = io.BytesIO()
    frame = frame_of(made)
    if kind == "parquet":
        frame.write_parquet(buffer, row_group_size=rng.choice([50, 1000]))
    elif rng.random() < 0.5:
        frame.write_ipc(buffer)
    else:
        frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def _table(made: list[Made], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    columns = columns_of(made)
    writer.writerow(columns)
    for number, each in enumerate(made):
        row = {"id": number, **each.row}
        cells = [row.get(name, "") for name in columns]
        writer.writerow([c if isinstance(c, str) else json.dumps(c) for c in cells])
    return out.getvalue().encode()


def written(rng: random.Random, folder: Path, number: int) -> File:
    """One random file in ``folder``."""
    kind = rng.choice(FORMATS)
    schema = rng.choice(_IN_TABLES if kind in ("csv", "tsv") else _SCHEMAS)
    made = rows_of(rng, schema, rng.choice([1, 40, 150, 400]))
    bad = rng.choice([0, 0, 3, 30]) if kind == "jsonl" else 0
    data = content_of(rng, kind, made, bad)
    compression = rng.choice(_COMPRESSIONS)
    if compression == ".gz":
        data = gzip.compress(data, 1, mtime=0)
    elif compression == ".zst":
        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    # Damaged Parquet pages may take the process down in native code: that is not for a soak.
    harm = rng.choice(["", "", "cut", "overwritten"])
    if harm == "overwritten" and (kind == "parquet" or kind == "arrow"):
        harm = "cut"
    if harm == "cut":
        data = data[: rng.randrange(len(data))]
    elif harm == "overwritten":
        at = rng.randrange(len(data))
        noise = rng.randbytes(rng.randint(1, _MOST_DAMAGE_BYTES))
        data = data[:at] + noise + data[at + len(noise) :]
    path = folder / f"{number}-{schema}.{kind}{compression}"
    path.write_bytes(data)
    return File(path, len(made), bad, harm)


def lost_rows(file: File, reading: Reading) -> int:
    """How many rows of ``file`` became neither a row nor a reject, where no break is told."""
    if not file.harm:
        is_whole = reading.broken is None and reading.rejected_rows == file.bad
        return abs(file.rows - len(reading.rows)) + (not is_whole)
    data = file.path.read_bytes()
    if reading.format in ("jsonl", "json", "csv", "tsv"):
        try:
            account_of(reading)(data, reading)
        except AssertionError:
            return max(file.rows + file.bad - len(reading), 1)
        return 0
    # An Arrow stream may end without its marker, and nobody can tell what an empty file held.
    if (
        reading.broken is not None
        or reading.rejected_rows
        or not data
        or ".arrow" in file.path.name
    ):
        return 0
    return max(file.rows + file.bad - len(reading), 0)


class Soak:
    """Counts of everything, and the resources of this process."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = random.Random(seed)
        self._folder = folder
        library = synthetic.library(decoys=synthetic.DECOYS[:5])
        self._library_folder = folder / "library"
        save_library(library, self._library_folder)
        # As workers load it: a library in memory has more digits than the one that is stored.
        self._library: SignatureLibrary = load_library(self._library_folder)
        reference = folder / "reference.jsonl"
        texts = synthetic.number_rows(300, np.random.default_rng(seed))
        reference.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        self._reference = str(reference)
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def round(self) -> None:
        """Write, read and scan some files, and remove them."""
        rng = self._rng
        data = self._folder / "data"
        data.mkdir()
        # Two files at first, for two processes.
        count = rng.randint(1, 3) if self.counts["rounds"] else 2
        files = [written(rng, data, number) for number in range(count)]
        try:
            for file in files:
                self._read(file)
            self._scan(data, files)
        except Exception:
            traceback.print_exc()
            self.counts["errors"] += 1
        finally:
            for file in files:
                file.path.unlink()
            data.rmdir()
        self.counts["rounds"] += 1

    def _read(self, file: File) -> None:
        reading = read(str(file.path), batch_rows=self._rng.choice([1, 7, ALL_REJECTS_SHOWN]))
        lost = lost_rows(file, reading)
        self.kinds[".".join(file.path.name.split(".")[1:])] += 1
        self.counts["files"] += 1
        self.counts[f"files {file.harm or 'unharmed'}"] += 1
        self.counts["rows written"] += file.rows
        self.counts["rows read"] += len(reading.rows)
        self.counts["rejects"] += reading.rejected_rows
        self.counts["files that broke off"] += reading.broken is not None
        self.counts["rows lost"] += lost
        if lost:
            print(f"LOST {lost} of {file}", file=sys.stderr)

    def _scan(self, data: Path, files: list[File]) -> None:
        one = self._scanned(data, 1)
        # The first time also opens what processes are started with, once and for all.
        in_two = not self.counts["rounds"] or self._rng.random() < 0.125
        again = self._scanned(data, 2 if in_two else 1)
        self.counts["scans"] += 2
        if to_json(one) != to_json(again):
            self.counts["reports that differ"] += 1
            print(f"DIFFERENT reports of {files}", file=sys.stderr)
        self.outcomes[str(one.outcome)] += 1
        if one.outcome is Outcome.NOT_DETECTED:
            self.counts["false clean"] += 1
            print(f"FALSE CLEAN of {files}", file=sys.stderr)

    def _scanned(self, data: Path, workers: int) -> ScanResult:
        given = {
            "library_path": "synthetic",
            "reference": [self._reference],
            "settings": ScanSettings(student_family="llama"),
        }
        if workers == 1:
            return scan([str(data)], self._library, **given)
        self.counts["scans by two processes"] += 1
        return scan_in_pieces(
            [str(data)], self._library, self._library_folder, workers=workers, **given
        )


@dataclass(frozen=True, slots=True)
class Resources:
    """Of this process: resident memory, open file descriptors, and temporary files it left."""

    rss_bytes: int
    descriptors: int
    temporary: int


def resources(folder: Path) -> Resources:
    """What is in use now; ``folder`` is where temporary files are made."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    left = sum(1 for _ in folder.iterdir())
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return Resources(pages * os.sysconf("SC_PAGE_SIZE"), descriptors, left)


def main() -> int:
    """Soak, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-growth-mib", type=float, default=64)
    options = parser.parse_args()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as temporary:
        # The readers' own copies, and those of processes that are started, are made there.
        os.environ["TMPDIR"] = tempfile.tempdir = temporary
        soak = Soak(Path(name), options.seed)
        start = time.monotonic()
        first: Resources | None = None
        while (passed := time.monotonic() - start) < seconds:
            soak.round()
            if first is None and passed > seconds / 10:
                first = resources(Path(temporary))
        last = resources(Path(temporary))
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
    first = first or last
    _print(soak, first, last, time.monotonic() - start)
    counts = soak.counts
    bad = ("rows lost", "false clean", "reports that differ", "errors")
    return int(
        any(counts[name] for name in bad)
        or last.descriptors > first.descriptors
        or last.temporary > first.temporary
        or last.rss_bytes - first.rss_bytes > options.most_growth_mib * 2**20
    )


def _print(soak: Soak, first: Resources, last: Resources, seconds: float) -> None:
    for name in ("rows lost", "false clean", "reports that differ", "errors"):
        soak.counts.setdefault(name, 0)
    table = {
        "seconds": round(seconds),
        **soak.counts,
        **{f"outcome {name}": count for name, count in sorted(soak.outcomes.items())},
        "kinds of file": len(soak.kinds),
        "resident MiB, after a tenth": round(first.rss_bytes / 2**20, 1),
        "resident MiB, at the end": round(last.rss_bytes / 2**20, 1),
        "file descriptors, after a tenth": first.descriptors,
        "file descriptors, at the end": last.descriptors,
        "temporary files left": last.temporary,
    }
    for name, value in table.items():
        print(f"{name:34} {value:>12}")


if __name__ == "__main__":
    sys.exit(main())
