"""SA002 on real sets with signatures that others measured: the confusion matrix of the literature.

For every set of the Llama-3.1-8B field data, the reference is the other nine sets together (there
is no control set), the signatures are the authors' own ``logit.csv``. Prints z by set and concept,
top-1 accuracy, q-values and wrong flags.

    python benchmarks/field.py FIELD_DATA_FOLDER
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from audit.dataset.read import read_batches
from audit.signature_import import ImportSettings, import_number_table
from detectors.detector import TestSettings
from detectors.finding import Verdict
from detectors.frequency import FrequencyDetector
from detectors.verdict import settle
from signatures.number_trie import NumberTokens


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--keep-digit-structure", action="store_true", help="do not project it out, to compare"
    )
    arguments = parser.parse_args()
    folder = arguments.folder / "llama-3.1-8b-animals"
    console = Console(width=150)
    if not folder.is_dir():
        console.print(f"no field data at {folder}: nothing was measured")
        return 3
    library = import_number_table(
        folder / "logit.csv",
        ImportSettings(
            "llama-logit",
            "meta-llama/Llama-3.1-8B-Instruct",
            "llama",
            NumberTokens.SPLIT if arguments.keep_digit_structure else NumberTokens.WHOLE,
            "animal",
        ),
    )
    names = [concept.name for concept in library.traits()]
    frames = {name: read(folder / f"{name.replace(' ', '_')}.parquet") for name in names}
    started = time.perf_counter()
    z = np.empty((len(names), len(names)))
    q = np.empty_like(z)
    effect = np.empty_like(z)
    flagged = np.zeros(z.shape, dtype=bool)
    for row, name in enumerate(names):

        def reference(own: str = name) -> Iterator[pl.DataFrame]:
            return (frame for other, frame in frames.items() if other != own)

        detector = FrequencyDetector(library, TestSettings())
        detector.prepare(reference)
        known = detector.identity()
        for frame in reference():
            known = detector.merge(known, detector.map(frame))
        result = detector.test(detector.map(frames[name]), known)
        for finding in settle(result.findings, 0.05):
            column = names.index(finding.concept)
            z[row, column], q[row, column] = finding.z, finding.q_value
            effect[row, column] = finding.effect
            flagged[row, column] = finding.verdict is Verdict.FLAGGED
    table = Table(title="z by data set (rows) and signature (columns); * flagged at FDR .05")
    for heading in ["data set", *names, "top-1", "own q", "own effect (sd)"]:
        table.add_column(heading, justify="right")
    for row, name in enumerate(names):
        cells = [f"{v:.1f}{'*' if f else ''}" for v, f in zip(z[row], flagged[row], strict=True)]
        best = names[int(z[row].argmax())]
        table.add_row(name, *cells, best, f"{q[row, row]:.2g}", f"{effect[row, row]:.3f}")
    console.print(table)
    off = ~np.eye(len(names), dtype=bool)
    console.print(
        f"top-1 {int((z.argmax(axis=1) == np.arange(len(names))).sum())} of {len(names)}; "
        f"own set flagged {int(np.diag(flagged).sum())}, wrong flags {int(flagged[off].sum())}; "
        f"off-target z has sd {z[off].std():.2f}; {time.perf_counter() - started:.1f} s"
    )
    return 0


def read(path: Path) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in read_batches([str(path)])])


if __name__ == "__main__":
    sys.exit(main())
