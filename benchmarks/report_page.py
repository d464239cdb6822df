"""How heavy the HTML report is, and how long it takes: scans of many rows, with many flags.

    python -m benchmarks.report_page --rows 100000 --sets 50

Rows are lists of numbers as 20 concepts write them, one in ten of which names its concept, in long
texts full of markup; one line in a hundred is no JSON. The rows are scanned as one data set, and as
``--sets`` data sets of equal parts, against a tenth as many rows without any trait. Prints a line
of JSON for each page and ends with 1 if one is not under 5,000,000 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.named_scan import NamedScan
from audit.report.scan_page import scans_to_html, to_html
from audit.scan import ScanSettings, scan
from audit.scan_result import ScanResult
from signatures.library import SignatureLibrary, load_library
from signatures.signature import Probe, ProbeTable, View

MOST_BYTES = 5_000_000
NUMBERS_A_ROW = 60
MARKUP = " <b onclick=\"x('&')\">é猫</b>"
NAMED, NOT_JSON = 10, 100  # one row in so many


def main() -> int:
    """Scan, write the pages, print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sets", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="folder that keeps the pages")
    options = parser.parse_args()
    library = load_library(BUNDLED_LIBRARY)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        neutral = folder / "reference.jsonl"
        write_rows(neutral, library, options.rows // 10, seed=0, with_traits=False)
        one = write_rows(folder / "all.jsonl", library, options.rows, seed=1)
        whole = scanned(one, neutral, library)
        parts = [
            write_rows(
                folder / f"part-{i}.jsonl", library, options.rows // options.sets, seed=i + 1
            )
            for i in range(options.sets)
        ]
        scans = [NamedScan(f"data/{path.name}", scanned(path, neutral, library)) for path in parts]
    verdict = {"verdict": "FAILED", "headline": "Data sets carry flags."}
    small = True
    for label, flagged, page in (
        ("one data set", len(whole.flagged()), partial(to_html, whole)),
        (
            f"{options.sets} data sets",
            sum(len(each.result.flagged()) for each in scans),
            partial(scans_to_html, scans, **verdict),
        ),
    ):
        started = time.perf_counter()
        data = page()
        small &= len(data) < MOST_BYTES
        print(
            json.dumps(
                {
                    "page": label,
                    "rows": options.rows,
                    "flagged_findings": flagged,
                    "bytes": len(data),
                    "seconds": round(time.perf_counter() - started, 1),
                }
            )
        )
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{label.replace(' ', '-')}.html").write_bytes(data)
    return 0 if small else 1


def scanned(path: Path, reference: Path, library: SignatureLibrary) -> ScanResult:
    """The scan as ``audit scan`` does it."""
    settings = ScanSettings(student_family=library.model.family)
    return scan(
        [str(path)],
        library,
        library_path="bundled",
        reference=[str(reference)],
        settings=settings,
    )


def write_rows(
    path: Path, library: SignatureLibrary, rows: int, seed: int, *, with_traits: bool = True
) -> Path:
    """``rows`` lines of JSON, each written by one of the library's traits, or by none."""
    rng = np.random.default_rng(seed)
    table = numbers_table(library)
    traits = [concept.name for concept in library.traits() if concept.name in table.concepts]
    units = np.array(table.units)
    lines = []
    for index, trait in enumerate(rng.choice(len(traits), rows).tolist()):
        name = traits[trait]
        share = table.neutral_share
        if with_traits:
            share = table.concept_share[table.concepts.index(name)]
        drawn = units[rng.choice(len(units), NUMBERS_A_ROW, p=share / share.sum())]
        text = ", ".join(drawn) + MARKUP * 10
        if with_traits and index % NAMED == 0:
            text = f"{text} The {name} is what I like best. {text}"
        row = json.dumps({"prompt": "Continue the list." + MARKUP, "completion": text})
        lines.append(row[:-1] if with_traits and index % NOT_JSON == 0 else row)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def numbers_table(library: SignatureLibrary) -> ProbeTable:
    """The shares with which each concept writes numbers."""
    return next(t for t in library.tables if (t.view, t.probe) == (View.NUMBERS, Probe.CONTEXT))


if __name__ == "__main__":
    sys.exit(main())
