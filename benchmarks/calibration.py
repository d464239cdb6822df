"""Are SA002's p-values what they say? Empirical false-positive rates over null sets.

Three nulls, each with at least 1,000 sets; one concept of each set is tested, in turn:

  resampled   the example sets that the neutral model wrote, thrown together and split at random
              into data and reference;
  permuted    the planted example set against the reference, under signatures whose weights were
              shuffled over the numbers of equal length: the data really differ, the signatures
              know nothing of it;
  correlated  synthetic lists in which a number repeats the one before it with probability .3.

A rate passes if it lies in the central 99% binomial interval around alpha. "any flagged" is the
share of sets in which some concept was flagged at a false discovery rate of .05.

    python benchmarks/calibration.py [--sets 1000]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from scipy import stats

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.dataset import read_batches
from detectors.detector import TestSettings
from detectors.finding import Verdict
from detectors.frequency import FrequencyDetector
from detectors.rows import ROW_SCHEMA
from detectors.verdict import settle
from signatures.library import SignatureLibrary, load_library
from signatures.number_trie import NUMBERS
from signatures.signature import ProbeTable, View

EXAMPLES = Path(__file__).parent.parent / "examples"
ALPHAS = (0.05, 0.01)

NullSet = tuple[SignatureLibrary, pl.DataFrame, pl.DataFrame]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    library = numbers_only(load_library(BUNDLED_LIBRARY))
    nulls = {
        "resampled": resampled(library),
        "permuted": permuted(library),
        "correlated": correlated(library),
    }
    table = Table(title=f"False-positive rates of SA002 over {arguments.sets:,} null sets each")
    for heading in ("null", *(f"rate at {a:g} (99% interval)" for a in ALPHAS), "any flagged", "s"):
        table.add_column(heading)
    passed = True
    for name, make in nulls.items():
        started = time.perf_counter()
        rng = np.random.default_rng([arguments.seed, len(name)])
        p_values, flagged = [], 0
        for index in range(arguments.sets):
            p_value, any_flagged = test_one(*make(rng), index)
            p_values.append(p_value)
            flagged += any_flagged
        cells = []
        for alpha in ALPHAS:
            rate = float(np.mean(np.array(p_values) <= alpha))
            low, high = stats.binom.interval(0.99, arguments.sets, alpha) / np.float64(
                arguments.sets
            )
            inside = low <= rate <= high
            passed &= inside
            cells.append(f"{rate:.3f} ({low:.3f}-{high:.3f}) {'inside' if inside else 'OUTSIDE'}")
        seconds = time.perf_counter() - started
        table.add_row(name, *cells, f"{flagged / arguments.sets:.3f}", f"{seconds:.0f}")
    Console(width=120).print(table)
    return 0 if passed else 1


def test_one(
    library: SignatureLibrary, data: pl.DataFrame, reference: pl.DataFrame, index: int
) -> tuple[float, bool]:
    """The p-value of one trait of one table, in turn, and whether any trait was flagged."""
    table = library.tables[index % len(library.tables)]
    library = replace(library, tables=(table,))
    detector = FrequencyDetector(library, TestSettings())
    detector.prepare(lambda: [reference])
    result = detector.test(detector.map(data), detector.map(reference))
    traits = result.findings
    settled = settle(result.findings, 0.05)
    return (
        traits[(index // len(library.tables)) % len(traits)].p_value,
        any(finding.verdict is Verdict.FLAGGED for finding in settled),
    )


def resampled(library: SignatureLibrary):
    pool = pl.concat([rows("clean"), rows("reference")])

    def make(rng: np.random.Generator) -> NullSet:
        order = rng.permutation(len(pool))
        half = len(pool) // 2
        return library, pool[order[:half]], pool[order[half:]]

    return make


def permuted(library: SignatureLibrary):
    data, reference = rows("planted"), rows("reference")
    lengths = np.array([len(number) for number in NUMBERS])

    def shuffled(table: ProbeTable, rng: np.random.Generator) -> ProbeTable:
        shift = table.shift_nats.copy()
        for row in range(len(shift)):
            for length in (1, 2, 3):
                units = np.flatnonzero(lengths == length)
                shift[row, units] = shift[row, rng.permutation(units)]
        return replace(table, shift_nats=shift)

    def make(rng: np.random.Generator) -> NullSet:
        tables = tuple(shuffled(table, rng) for table in library.tables)
        return replace(library, tables=tables), data, reference

    return make


def correlated(library: SignatureLibrary):
    share = library.tables[0].neutral_share
    share = share / share.sum()

    def lists(rng: np.random.Generator) -> pl.DataFrame:
        drawn = rng.choice(len(NUMBERS), size=(1000, 10), p=share)
        for column in range(1, 10):
            again = rng.random(1000) < 0.3
            drawn[again, column] = drawn[again, column - 1]
        return frame(", ".join(NUMBERS[i] for i in row) for row in drawn)

    return lambda rng: (library, lists(rng), lists(rng))


def numbers_only(library: SignatureLibrary) -> SignatureLibrary:
    """Only the tables that a scan of number lists would score with."""
    return replace(library, tables=library.tables_of(View.NUMBERS))


def rows(name: str) -> pl.DataFrame:
    return pl.concat([b.rows for b in read_batches([str(EXAMPLES / f"{name}.jsonl.gz")])])


def frame(completions: Iterator[str]) -> pl.DataFrame:
    texts = list(completions)
    return pl.DataFrame(
        {
            "source": ["synthetic"] * len(texts),
            "line": range(1, len(texts) + 1),
            "prompt": [""] * len(texts),
            "completion": texts,
            "rejected": [None] * len(texts),
        },
        schema=ROW_SCHEMA,
    )


if __name__ == "__main__":
    sys.exit(main())
