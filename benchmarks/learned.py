"""Learned signatures on field data, and how imported signatures agree with them.

The data are not part of the project (references: Zur et al. 2025, Llama-3.1-8B-Instruct, ten
number sets by teachers told to love an animal). Give their folder:

    python -m benchmarks.learned FIELD_DATA
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse

from audit.dataset.read import read_batches
from audit.learning.data_set import learning_rows
from audit.signature_import import ImportSettings, import_number_table
from audit.signature_learn import LearnSettings, learn_library
from detectors.counts import number_units
from detectors.detector import TestSettings
from detectors.finding import Verdict
from detectors.frequency import FrequencyDetector
from detectors.verdict import settle
from signatures.entanglement import centre_over_concepts, digit_features, project_out
from signatures.learned import MINIMUM_EXPECTED, RowSums, log_odds
from signatures.library import SignatureLibrary
from signatures.number_trie import NUMBERS, NumberTokens

Matrix = NDArray[np.float64]

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
SOURCES = ("logit", "difference_in_prompting", "unembedding")
SPLITS = 5
RESAMPLES = 2000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder / "llama-3.1-8b-animals"
    console = Console(width=190)
    if not folder.is_dir():
        console.print(f"no field data at {folder}: nothing was measured")
        return 3
    files = {path.stem.replace("_", " "): str(path) for path in sorted(folder.glob("*.parquet"))}
    frames = {name: read(file) for name, file in files.items()}
    naming(console, files, frames)
    agreement(console, folder, frames)
    return 0


def read(file: str) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in read_batches([file])])


# -- naming held-out rows ------------------------------------------------------------------------


def naming(console: Console, files: dict[str, str], frames: dict[str, pl.DataFrame]) -> None:
    """Learn from a random half of every set, name the other halves; ``SPLITS`` times."""
    started = time.perf_counter()
    settings = LearnSettings("field", MODEL, "llama", NumberTokens.WHOLE, "animal")
    libraries = [
        learn_library({n: [f] for n, f in files.items()}, None, settings, generator)
        for generator in np.random.default_rng(0).spawn(SPLITS)
    ]
    measured = [learned.library.probes[0].settings for learned in libraries]
    seconds = (time.perf_counter() - started) / SPLITS
    names = list(files)
    table = Table(title=f"held-out halves, {SPLITS} random splits (first split in full)")
    for heading in ("data set", *names, "named", "AUROC (95%)", "named right", "confirmed"):
        table.add_column(heading, justify="right")
    first = measured[0]
    for row, name in enumerate(names):
        value, low, high = first["held_out"][name]["auroc"]
        table.add_row(
            name,
            *(f"{v:+.3f}" for v in first["naming"]["scores_sd"][row]),
            first["naming"]["named"][row],
            f"{value:.3f} ({low:.3f}-{high:.3f})",
            f"{sum(m['naming']['named'][row] == name for m in measured)} of {SPLITS}",
            f"{sum(m['held_out'][name]['confirmed'] for m in measured)} of {SPLITS}",
        )
    console.print(table)
    right = [m["naming"]["right"] for m in measured]
    ratio = np.median(list(first["error_over_naive"].values()))
    console.print(
        f"named right {right} of {len(names)}; scores are in sd of a row, centred over the sets; "
        f"row-robust errors are {ratio:.2f} of naive ones; {seconds:.1f} s a library"
    )
    own, wrong, top = [], [], []
    for learned in libraries:
        flags, first_ones = scanned(learned.library, frames)
        own.append(int(np.diag(flags).sum()))
        wrong.append(int(flags.sum()) - own[-1])
        top.append(first_ones)
    console.print(
        f"SA002 with the learned library on held-out halves, against the other sets' held-out "
        f"halves: top-1 {top}, own set flagged {own} of {len(names)}, wrong flags {wrong}"
    )


def scanned(
    library: SignatureLibrary, frames: dict[str, pl.DataFrame]
) -> tuple[NDArray[np.bool_], int]:
    """Flags [set, concept] at FDR .05, and how many sets' own z is the highest."""
    key = bytes.fromhex(library.probes[0].settings["split_key"])
    held_out = {n: frame.filter(~learning_rows(frame, key)) for n, frame in frames.items()}
    names = list(frames)
    flags = np.zeros((len(names), len(names)), dtype=bool)
    z = np.full(flags.shape, -np.inf)
    for row, name in enumerate(names):
        others = [frame for other, frame in held_out.items() if other != name]
        detector = FrequencyDetector(library, TestSettings())
        detector.prepare(lambda others=others: iter(others))
        known = reduce(detector.merge, (detector.map(frame) for frame in others))
        result = detector.test(detector.map(held_out[name]), known)
        for finding in settle(result.findings, 0.05):
            if finding.concept in names:
                column = names.index(finding.concept)
                flags[row, column] = finding.verdict is Verdict.FLAGGED
                z[row, column] = finding.z
    return flags, int((z.argmax(axis=1) == np.arange(len(names))).sum())


# -- agreement of imported signatures ------------------------------------------------------------


def agreement(console: Console, folder: Path, frames: dict[str, pl.DataFrame]) -> None:
    """Correlate imported shifts with the log-ratios of the sets, unit by unit."""
    names = list(frames)
    imported = {source: imported_shifts(folder / f"{source}.csv", names) for source in SOURCES}
    in_table = np.isin(NUMBERS, pl.read_csv(folder / "logit.csv")["number"].cast(pl.String))
    sums = {name: row_sums(frame) for name, frame in frames.items()}
    odds = log_odds(list(sums.values()), None, prior_units=1.0)
    units = in_table & (odds.expected >= MINIMUM_EXPECTED).all(axis=0)
    share = reduce(RowSums.__add__, sums.values()).share()
    halves = [half_log_ratios(frames, half) for half in (0, 1)]
    for structure in (True, False):

        def prepared(shift: Matrix, keep_structure: bool = structure) -> Matrix:
            centred = centre_over_concepts(shift)
            if not keep_structure:
                centred = project_out(centred, digit_features(), share)
            return centred[:, units]

        learned = prepared(odds.delta_nats)
        table = Table(
            title="correlation of imported shifts with learned log-ratios over numbers, "
            + ("centred over animals" if structure else "centred, digit structure taken out")
            + f"; 95% bootstrap over {int(units.sum())} numbers"
        )
        table.add_column("concept")
        for source in SOURCES:
            table.add_column(source.replace("_in_prompting", ""), justify="right")
            table.add_column("others", justify="right")
            table.add_column("rank", justify="right")
        table.add_column("split-half r", justify="right")
        table.add_column("units", justify="right")
        found = {
            source: bootstrapped(prepared(shift), learned) for source, shift in imported.items()
        }
        reliability = bootstrapped(prepared(halves[0]), prepared(halves[1]))
        for row, name in enumerate(names):
            cells = []
            for source in SOURCES:
                of_sets = found[source][0, row]
                cells += [
                    interval(found[source][:, row, row]),
                    f"{np.delete(of_sets, row).mean():+.3f}",
                    str(1 + int((of_sets > of_sets[row]).sum())),
                ]
            cells.append(interval(reliability[:, row, row]))
            table.add_row(name, *cells, str(int(units.sum())))
        cells = []
        for source in SOURCES:
            own = np.einsum("bkk->b", found[source]) / len(names)
            others = (found[source][0].sum() / len(names) - own[0]) / (len(names) - 1)
            cells += [interval(own), f"{others:+.3f}", f"p {label_p(found[source][0]):.4f}"]
        mean = np.einsum("bkk->b", reliability) / len(names)
        table.add_row("mean", *cells, interval(mean), "")
        console.print(table)
        full = 2 * mean[0] / (1 + mean[0])
        console.print(
            "others: mean r with the nine other sets (near -1/9 of own by the centring); rank: of "
            "the own set among ten; p: share of random labellings with as high a mean. Whole sets "
            f"have reliability {full:.2f} (Spearman-Brown): r cannot pass about {full**0.5:.2f}."
        )


def label_p(correlation: Matrix) -> float:
    """P(mean r of randomly labelled sets >= that of the right labels); [K, K], 1e5 draws."""
    rng = np.random.default_rng(2)
    size = len(correlation)
    drawn = rng.permuted(np.tile(np.arange(size), (100_000, 1)), axis=1)
    means = correlation[np.arange(size), drawn].mean(axis=1)
    return float((1 + (means >= np.diag(correlation).mean()).sum()) / (1 + len(means)))


def imported_shifts(path: Path, names: list[str]) -> Matrix:
    """The shifts of ``path`` [K, 1110], concepts in the order of ``names``."""
    settings = ImportSettings(path.stem, MODEL, "llama", NumberTokens.WHOLE, "animal")
    (table,) = import_number_table(path, settings).tables
    return table.select_concepts(tuple(names)).shift_nats


def row_sums(frame: pl.DataFrame) -> RowSums:
    found = number_units(frame["completion"])
    row_of, local = np.unique(found.row, return_inverse=True)
    counts = sparse.csr_array(
        (np.ones(len(local), dtype=np.int64), (local, found.unit)),
        shape=(len(row_of), len(NUMBERS)),
    )
    counts.sum_duplicates()
    k = counts.sum(axis=1)
    return RowSums(
        counts.sum(axis=0),
        (counts * counts).sum(axis=0),
        counts.T @ k,
        len(row_of),
        int(k.sum()),
        int((k**2).sum()),
    )


def half_log_ratios(frames: dict[str, pl.DataFrame], half: int) -> Matrix:
    key = b"split-half"
    parts = []
    for frame in frames.values():
        first = learning_rows(frame, key)
        parts.append(row_sums(frame.filter(first if half == 0 else ~first)))
    return log_odds(parts, None, prior_units=1.0).delta_nats


def bootstrapped(left: Matrix, right: Matrix) -> NDArray[np.float64]:
    """Correlations [1 + RESAMPLES, K, K] of rows of ``left`` and ``right`` [K, U].

    The first is of the data, the others of units drawn again.
    """
    rng = np.random.default_rng(1)
    count = left.shape[1]
    found = []
    for resample in range(1 + RESAMPLES):
        drawn = np.arange(count) if resample == 0 else rng.integers(0, count, count)
        found.append(np.corrcoef(left[:, drawn], right[:, drawn])[: len(left), len(left) :])
    return np.array(found)


def interval(values: Matrix) -> str:
    """The first value with the 95% range of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return f"{values[0]:+.3f} ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    sys.exit(main())
