"""Are SA003's and SA004's p-values what they say? Null sets out of rows that were scored.

    python -m benchmarks.detection_sets WORK, then python -m benchmarks.detection_rows WORK KIND
    for the kinds numbers, nulls, exact and text (see benchmarks/detection.py)
    python -m benchmarks.calibration_model WORK [--sets 1000]

Split: the rows that one writer without a persona of the library wrote (the neutral model, a
stranger's persona, people, another model) are split at random into data and reference, as many
times as there are null sets; one concept is tested in each, in turn. Rates must not lie above the
central 99% binomial interval around alpha. Alone: the same sets without a reference. Others: every
prompted set against the neutral model's rows, with its own concept taken out of the library: an
unrelated persona must not be named as another.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.detection_replay import Concepts, ReplayedAccess, sample_of, without_concept
from benchmarks.detection_rows import CONCEPTS, load_scored
from detectors.detector import TestSettings
from detectors.divergence import DivergenceDetector
from detectors.finding import ANY_PERSONA, Finding, Verdict
from detectors.likelihood import LikelihoodDetector
from detectors.model_evidence import misfit_nats
from detectors.model_rows import ScoredRow
from detectors.verdict import settle

ALPHAS = (0.05, 0.01)
MOST_ROWS = 200
Rows = list[ScoredRow]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", type=int, default=1000)
    arguments = parser.parse_args()
    scored = {
        (kind, name): rows
        for kind in ("exact", "numbers", "text", "nulls")
        for name, rows in load_scored(arguments.work / "scored" / kind).items()
    }
    console = Console(width=150)
    passed = split(console, scored, arguments.sets)
    alone(console, scored, arguments.sets // 10)
    others(console, scored)
    return 0 if passed else 1


def findings(data: Rows, reference: Rows, library: Concepts, sequential: bool) -> list[Finding]:
    """What both detectors say, settled together."""
    access = ReplayedAccess([*data, *reference], sequential=sequential)
    known = sample_of(reference) if reference else None
    found: list[Finding] = []
    for detector_type in (LikelihoodDetector, DivergenceDetector):
        detector = detector_type(library, TestSettings(), access)  # type: ignore[arg-type]
        found += detector.test(sample_of(data), known).findings
    return list(settle(found, 0.05))


def is_null(kind: str, name: str) -> bool:
    """Whether nobody told this set's writer to love a concept of the library."""
    return name not in CONCEPTS


def split(console: Console, scored: dict[tuple[str, str], Rows], sets: int) -> bool:
    table = Table(title=f"data and reference by one writer, {sets:,} random splits each")
    for heading in (
        *("writer", "rows a side", "test", *(f"rate at {a:g} (99% interval)" for a in ALPHAS)),
        "any flagged",
    ):
        table.add_column(heading)
    passed = True
    for (kind, name), rows in scored.items():
        if not is_null(kind, name):
            continue
        size = min(MOST_ROWS, len(rows) // 2)
        rng = np.random.default_rng(len(rows))
        p_values: dict[str, list[float]] = {}
        flagged = 0
        for index in range(sets):
            order = rng.permutation(len(rows))
            found = findings(
                [rows[i] for i in order[:size]],
                [rows[i] for i in order[size : 2 * size]],
                Concepts(),
                sequential=index % 2 == 0,
            )
            flagged += any(f.verdict is Verdict.FLAGGED for f in found)
            for f in found:
                if f.concept == ANY_PERSONA:
                    p_values.setdefault("SA003 any persona", []).append(f.p_value)
                elif f.concept == CONCEPTS[index % len(CONCEPTS)]:
                    p_values.setdefault(f"{f.code} which concept", []).append(f.p_value)
        for position, (test, values) in enumerate(p_values.items()):
            known = np.array(values)[np.isfinite(values)]
            cells = []
            for alpha in ALPHAS:
                if len(known) == 0:
                    cells.append("-")
                    continue
                rate = float((known <= alpha).mean())
                low, high = stats.binom.interval(0.99, len(known), alpha) / np.float64(len(known))
                passed &= rate <= high
                where = "ABOVE" if rate > high else "below" if rate < low else "inside"
                cells.append(f"{rate:.3f} ({low:.3f}-{high:.3f}) {where}")
            table.add_row(
                f"{name} ({kind})" if position == 0 else "",
                f"{size}" if position == 0 else "",
                test,
                *cells,
                f"{flagged / sets:.3f}" if position == 0 else "",
            )
    console.print(table)
    return passed


def alone(console: Console, scored: dict[tuple[str, str], Rows], sets: int) -> None:
    table = Table(title=f"without a reference, {sets} random orders of all rows each")
    for heading in ("writer", "rows", "misfit, nats a token", "any flagged", "verdicts"):
        table.add_column(heading)
    for (kind, name), rows in scored.items():
        if not is_null(kind, name):
            continue
        rng = np.random.default_rng(1)
        verdicts: Counter[str] = Counter()
        flagged = 0
        size = min(len(rows), MOST_ROWS)
        for _ in range(sets):
            order = rng.permutation(len(rows))[:size]
            found = findings([rows[i] for i in order], [], Concepts(), sequential=True)
            flagged += any(f.verdict is Verdict.FLAGGED for f in found)
            verdicts.update(
                f"{'any persona' if f.concept == ANY_PERSONA else f.code}: {f.verdict}"
                + (f" ({f.reason})" if f.reason else "")
                for f in found
            )
        misfit = misfit_nats(rows)
        listed = "; ".join(f"{what} {count}" for what, count in sorted(verdicts.items()))
        table.add_row(
            f"{name} ({kind})", f"{size}", f"{misfit:+.3f}", f"{flagged / sets:.2f}", listed
        )
    console.print(table)


def others(console: Console, scored: dict[tuple[str, str], Rows]) -> None:
    table = Table(title="prompted sets against the neutral model, own concept not in the library")
    for heading in ("writer", "rows", "concepts flagged wrongly", "smallest p", "any persona: p"):
        table.add_column(heading)
    tests = wrong = 0
    small: list[float] = []
    for (kind, name), rows in scored.items():
        clean = scored.get((kind, "none")) or scored.get((kind, "neutral"))
        if clean is None or (name not in CONCEPTS and name != "stranger"):
            continue
        size = min(len(rows), len(clean))
        if name in CONCEPTS:
            rows, clean = (without_concept(r, CONCEPTS.index(name)) for r in (rows, clean))
        found = findings(rows[:size], clean[:size], Concepts(without=name), sequential=False)
        which = [f for f in found if f.concept != ANY_PERSONA and np.isfinite(f.p_value)]
        flagged = [f"{f.concept} ({f.code})" for f in which if f.verdict is Verdict.FLAGGED]
        likelihood = [f.p_value for f in which if f.code == "SA003"]
        tests, wrong = tests + len(which), wrong + len(flagged)
        small += likelihood
        persona = next(f.p_value for f in found if f.concept == ANY_PERSONA)
        table.add_row(
            f"{name} ({kind})",
            f"{size:,}",
            ", ".join(flagged) or "none",
            f"{min(likelihood, default=np.nan):.2g}",
            f"{persona:.2g}",
        )
    console.print(table)
    rates = ", ".join(f"{np.mean(np.array(small) <= a):.3f} at {a:g}" for a in ALPHAS)
    console.print(
        f"{wrong} of {tests} wrong concepts flagged; SA003's p-values of wrong concepts: {rates}"
    )


if __name__ == "__main__":
    sys.exit(main())
