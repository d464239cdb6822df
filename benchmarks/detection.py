"""How well each detector names a teacher's concept, by rows read.

    python -m benchmarks.detection_sets WORK          # write the sets (half an hour on one core)
    python -m benchmarks.detection_rows WORK numbers  # score them (hours on one core; goes on where
    python -m benchmarks.detection_rows WORK tuned    # it stopped, and several may run at once)
    python -m benchmarks.detection_rows WORK text
    python -m benchmarks.detection report WORK --library LIBRARY
    python -m benchmarks.detection speed

``report`` prints, for every kind of set that has been scored, of random subsets of 1, 10, 100, ...
rows: AUROC of the concept's score between its own sets and sets by none (and by the other
concepts), top-1 of all concepts, the true-positive rate at a false-positive rate of .01, and the
rows that the sequential test reads. LIBRARY gives SA002 its tables: one of the eight concepts of
this model (audit signature build). ``speed`` compares reading with a plain loop.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from audit.backends.transformers_backend import TransformersLanguageModel
from audit.model.fetch import find_embedded_model
from benchmarks.calibration import frame
from benchmarks.detection_replay import Concepts, ReplayedAccess, sample_of
from benchmarks.detection_rows import CONCEPTS, concepts, load_scored
from benchmarks.detection_sets import numbers
from detectors.condition_scores import TILTS, ConditionScores, FunctionScore, score_tokens
from detectors.detector import TestSettings
from detectors.finding import ANY_PERSONA, Verdict
from detectors.frequency import FrequencyDetector
from detectors.likelihood import LikelihoodDetector, row_scores
from detectors.model_evidence import arm_scores, clipped, directions
from detectors.model_rows import RowReader, ScoredRow, kind_of
from detectors.row_sample import sample_rows
from detectors.sequential import any_persona_log_martingale
from detectors.unit_scores import find_units
from detectors.verdict import settle
from signatures.language_model import Chat, SequenceRequest
from signatures.library import load_library
from signatures.signature import Probe, View

Matrix = NDArray[np.float64]
SIZES = (1, 10, 30, 100, 300, 600, 1000, 3000)
DRAWS = 400
NONE = "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report")
    report.add_argument("work", type=Path)
    report.add_argument("--library", type=Path)
    commands.add_parser("speed").add_argument("--rows", type=int, default=16)
    arguments = parser.parse_args()
    console = Console(width=150)
    if arguments.command == "speed":
        return speed(console, arguments.rows)
    for kind in ("numbers", "text", "tuned"):
        scored = load_scored(arguments.work / "scored" / kind)
        if kind == "tuned" and scored:
            prompts = {row.row.prompt for rows in scored.values() for row in rows}
            clean = load_scored(arguments.work / "scored" / "numbers")[NONE]
            scored[NONE] = [row for row in clean if row.row.prompt in prompts]
        if scored.get(NONE):
            report_kind(console, kind, scored, arguments.library if kind != "text" else None)
    return 0


# Scores


def report_kind(
    console: Console, kind: str, scored: dict[str, list[ScoredRow]], library: Path | None
) -> None:
    sizes = {name: len(rows) for name, rows in scored.items()}
    console.print(f"\n[bold]{kind}[/bold]: rows scored by set {sizes}")
    detectors: dict[str, dict[str, Matrix]] = {
        "SA003 likelihood": which_scores(scored, lambda scores: scores.likelihood),
        "SA004 divergence": which_scores(scored, lambda scores: scores.divergence),
    }
    if library is not None:
        detectors["SA002 frequency"] = frequency_scores(scored, library)
    table = Table(title=f"{kind}: which concept (scores less the mean of the sets by none)")
    for heading in ("detector", "rows", "top-1", "AUROC vs none", "AUROC vs others", "TPR at .01"):
        table.add_column(heading, justify="right")
    for name, scores in detectors.items():
        for size in SIZES:
            measured = by_rows(scores, size, np.random.default_rng(size))
            if measured is not None:
                table.add_row(name, f"{size:,}", *(f"{value:.3f}" for value in measured))
    console.print(table)
    strengths(console, detectors)
    persona(console, scored)
    decisions(console, scored)
    mixtures(console, scored)


def own_column(name: str) -> int | None:
    """The concept that a set's teacher was told, or trained, to love."""
    return CONCEPTS.index(name.split(" ")[-1]) if name.split(" ")[-1] in CONCEPTS else None


def which_scores(
    scored: dict[str, list[ScoredRow]], function: Callable[[ConditionScores], FunctionScore]
) -> dict[str, Matrix]:
    """[rows, C] by set, in shares; directions are predicted from the contexts of all sets."""
    everything = [function(row.scores) for rows in scored.values() for row in rows]
    along = directions(
        np.mean([part.predicted for part in everything], axis=0),
        np.mean([part.covariance for part in everything], axis=0),
    )
    return {
        name: clipped(np.array([function(row.scores).score for row in rows]) @ along.which)
        for name, rows in scored.items()
    }


def frequency_scores(scored: dict[str, list[ScoredRow]], folder: Path) -> dict[str, Matrix]:
    """[rows, C] by set: SA002's row scores with its context table of numbers."""
    library = load_library(folder)
    tables = tuple(t for t in library.tables_of(View.NUMBERS) if t.probe is Probe.CONTEXT)
    detector = FrequencyDetector(library, TestSettings())
    clean = frame([row.row.completion for row in scored[NONE]])
    detector.prepare(lambda: [clean])
    view = next(v for v in detector.views if v.table.probe in {t.probe for t in tables})
    order = [view.table.concepts.index(name) for name in CONCEPTS]
    result = {}
    for name, rows in scored.items():
        text = frame([r.row.completion for r in rows])["completion"]
        found = find_units([view.units_of], text)[view.units_of]
        totals = np.zeros((len(rows), len(order)))
        np.add.at(totals, found.row, view.weights[order][:, found.unit].T)
        counts = np.bincount(found.row, minlength=len(rows))[:, None]
        result[name] = totals / np.maximum(counts, 1)
    return result


def by_rows(
    scores: dict[str, Matrix], size: int, rng: np.random.Generator
) -> tuple[float, float, float, float] | None:
    """Top-1, AUROC against none and against other concepts, and TPR at FPR .01; means over sets.

    Of ``DRAWS`` random subsets of ``size`` rows a set. None where a set has not as many rows.
    """
    own = {name: column for name in scores if (column := own_column(name)) is not None}
    if min(len(scores[name]) for name in (*own, NONE)) < size:
        return None
    base = scores[NONE].mean(axis=0)
    spread = np.nanstd(scores[NONE], axis=0)
    draws = DRAWS if size < min(map(len, scores.values())) else 1
    means = {
        name: np.stack(
            [
                (rows[rng.choice(len(rows), size, replace=False)].mean(axis=0) - base) / spread
                for _ in range(draws)
            ]
        )
        for name, rows in scores.items()
    }
    top, none, others, rates = [], [], [], []
    for name, column in own.items():
        mine = means[name][:, column]
        top.append((means[name].argmax(axis=1) == column).mean())
        null = means[NONE][:, column]
        rest = np.concatenate([means[o][:, column] for o, c in own.items() if c != column])
        none.append(auroc(mine, null))
        others.append(auroc(mine, rest))
        rates.append((mine > np.quantile(null, 0.99)).mean() if draws > 1 else np.nan)
    return tuple(float(np.mean(values)) for values in (top, none, others, rates))  # type: ignore[return-value]


def auroc(positive: Matrix, negative: Matrix) -> float:
    statistic = stats.mannwhitneyu(positive, negative).statistic
    return float(statistic / (len(positive) * len(negative)))


def strengths(console: Console, detectors: dict[str, dict[str, Matrix]]) -> None:
    """How many standard deviations of a row each set's own score lies above none's."""
    table = Table(title="own score of a row above none's, in sd (standard error); rows for z = 3")
    table.add_column("detector")
    names = [n for n in next(iter(detectors.values())) if own_column(n) is not None]
    for name in (*names, "mean", "rows for z = 3"):
        table.add_column(name, justify="right")
    for detector, scores in detectors.items():
        clean = scores[NONE]
        values = []
        for name in names:
            column = own_column(name)
            difference = scores[name][:, column].mean() - clean[:, column].mean()
            values.append(difference / clean[:, column].std())
        error = np.sqrt(1 / len(clean) + 1 / len(scores[names[0]]))
        mean = float(np.mean(values))
        rows = f"{(3 / mean) ** 2:,.0f}" if mean > 0 else "never"
        table.add_row(
            detector, *(f"{v:+.3f}" for v in values), f"{mean:+.3f} ({error:.3f} each)", rows
        )
    console.print(table)


# Some persona?


def persona(console: Console, scored: dict[str, list[ScoredRow]]) -> None:
    everything = [row.scores.likelihood for rows in scored.values() for row in rows]
    along = directions(
        np.mean([part.predicted for part in everything], axis=0),
        np.mean([part.covariance for part in everything], axis=0),
    ).persona
    shares = {
        name: clipped(np.array([row.scores.likelihood.score for row in rows]) @ along[:, None])
        for name, rows in scored.items()
    }
    table = Table(
        title="SA003: written under some persona? (sets by a teacher against sets by none)"
    )
    for heading in ("rows", "AUROC: mean, least", "TPR at .01: mean, least"):
        table.add_column(heading, justify="right")
    rng = np.random.default_rng(0)
    own = [name for name in scored if own_column(name) is not None]
    for size in SIZES[:4]:
        if min(len(shares[name]) for name in (*own, NONE)) < size:
            continue
        means = {
            name: np.array(
                [rows[rng.choice(len(rows), size, replace=False)].mean() for _ in range(DRAWS)]
            )
            for name, rows in shares.items()
        }
        areas = [auroc(means[name], means[NONE]) for name in own]
        limit = np.quantile(means[NONE], 0.99)
        rates = [(means[name] > limit).mean() for name in own]
        table.add_row(
            f"{size:,}",
            f"{np.mean(areas):.4f}, {min(areas):.4f}",
            f"{np.mean(rates):.3f}, {min(rates):.3f}",
        )
    console.print(table)
    listed = ", ".join(
        f"{name} {rows.mean():.2f} ± {1.96 * rows.std() / np.sqrt(len(rows)):.2f}"
        for name, rows in shares.items()
    )
    console.print(f"share of a prompted set's effect that each set shows (95%): {listed}")


# The sequential test


ORDERS = 20


def decisions(console: Console, scored: dict[str, list[ScoredRow]]) -> None:
    """What the detector itself says of every set, in ``ORDERS`` random orders of its rows."""
    table = Table(title=f"SA003 itself, sequential, {ORDERS} random orders of each set's rows")
    for heading in ("set", "rows", "reference", "named", "wrongly", "rows read"):
        table.add_column(heading, justify="right")
    table.add_column("some persona flagged", justify="right")
    table.add_column("e-value of 20 after", justify="right")
    rng = np.random.default_rng(1)
    for name, rows in scored.items():
        if own_column(name) is None and name != NONE:
            continue
        for with_reference in (True, False):
            own = CONCEPTS[own_column(name) or 0] if name != NONE else ""
            verdicts = []
            for _ in range(ORDERS):
                data = [rows[i] for i in rng.permutation(len(rows))]
                clean = [scored[NONE][i] for i in rng.permutation(len(scored[NONE]))]
                if name == NONE and with_reference:
                    data, clean = clean[: len(clean) // 2], clean[len(clean) // 2 :]
                verdicts.append(judge(data, clean if with_reference else [], own))
            named, wrong, read, personas, reached = zip(*verdicts, strict=True)
            known = [rows_to for rows_to in reached if rows_to is not None]
            table.add_row(
                name,
                f"{len(data):,}",
                "yes" if with_reference else "no",
                f"{sum(named)}",
                f"{sum(wrong)}",
                f"{np.mean(read):,.0f}",
                f"{sum(personas)}",
                "" if with_reference else f"{np.median(known):.0f}" if known else "never",
            )
    console.print(table)


def judge(
    data: list[ScoredRow], reference: list[ScoredRow], own: str
) -> tuple[bool, bool, int, bool, int | None]:
    """Named, wrongly named, rows read, some persona flagged, and rows to an e-value of 20."""
    access = ReplayedAccess([*data, *reference])
    detector = LikelihoodDetector(Concepts(), TestSettings(), access)  # type: ignore[arg-type]
    known = sample_of(reference) if reference else None
    found = settle(detector.test(sample_of(data), known).findings, 0.05)
    flagged = {f.concept for f in found if f.verdict is Verdict.FLAGGED}
    crossed = np.flatnonzero(any_persona_log_martingale(data) >= np.log(20))
    return (
        own in flagged,
        bool(flagged - {own, ANY_PERSONA}),
        found[0].rows_tested,
        ANY_PERSONA in flagged,
        int(crossed[0]) + 1 if len(crossed) else None,
    )


# Mixtures


def mixtures(console: Console, scored: dict[str, list[ScoredRow]]) -> None:
    """Sets of which only a share is a teacher's: detection, and how well rows can be ranked."""
    clean = scored[NONE]
    own = [name for name in scored if own_column(name) is not None]
    half = min(len(clean) // 2, *(len(scored[name]) for name in own))
    table = Table(
        title=f"mixtures: {half} rows of data, {half} of reference, one row in so many bad"
    )
    for heading in (
        *("share of a teacher's rows", "some persona flagged", "share estimated (mean, sd)"),
        *("own concept flagged", "others flagged"),
        *("rows ranked, AUROC: some persona", "own concept", "plain ratio", "length"),
    ):
        table.add_column(heading, justify="right")
    library = Concepts()
    rng = np.random.default_rng(2)
    for share in (0.0, 0.01, 0.05, 0.1, 0.5, 1.0):
        bad = round(share * half)
        personas, estimates, named, wrong = [], [], [], []
        ranks: dict[str, list[float]] = {key: [] for key in ("persona", "own", "plain", "length")}
        for name in own:
            column = own_column(name)
            assert column is not None
            for _ in range(5):
                order = rng.permutation(len(clean))
                teacher = [scored[name][i] for i in rng.permutation(len(scored[name]))[:bad]]
                data = [*teacher, *(clean[i] for i in order[: half - bad])]
                reference = [clean[i] for i in order[half : 2 * half]]
                is_bad = np.arange(half) < bad
                access = ReplayedAccess([*data, *reference], sequential=False)
                detector = LikelihoodDetector(library, TestSettings(), access)  # type: ignore[arg-type]
                found = settle(detector.test(sample_of(data), sample_of(reference)).findings, 0.05)
                flagged = {f.concept for f in found if f.verdict is Verdict.FLAGGED}
                personas.append(ANY_PERSONA in flagged)
                named.append(CONCEPTS[column] in flagged)
                wrong.append(bool(flagged - {CONCEPTS[column], ANY_PERSONA}))
                estimates.append(next(f.effect for f in found if f.concept == ANY_PERSONA))
                if 0 < bad < half:
                    for key, scores in row_rankings(data, column).items():
                        ranks[key].append(auroc(scores[is_bad], scores[~is_bad]))
        table.add_row(
            f"{share:.0%} ({bad} rows)",
            f"{np.mean(personas):.2f}",
            f"{np.mean(estimates):.2f}, {np.std(estimates):.2f}",
            f"{np.mean(named):.2f}",
            f"{np.mean(wrong):.2f}",
            *(f"{np.mean(values):.3f}" if values else "-" for values in ranks.values()),
        )
    console.print(table)


def row_rankings(rows: list[ScoredRow], column: int) -> dict[str, Matrix]:
    """Scores [rows] to rank rows by: with prompt, length and difficulty taken out, and without."""
    own = arm_scores(rows, lambda scores: scores.likelihood)
    along = directions(own.predicted, own.covariance)
    plain = [row.scores.log_martingale_nats[column, TILTS.index(1.0)] for row in rows]
    return {
        "persona": row_scores(own, rows, along.persona),
        "own": row_scores(own, rows, along.which[:, column]),
        "plain": np.array(plain),
        "length": np.array([row.scores.tokens for row in rows], dtype=np.float64),
    }


# Speed


def speed(console: Console, count: int) -> int:
    """Seconds for the same rows by a plain loop and by the reader, and how far they differ."""
    rows = numbers().filter(pl.col("set") == NONE)
    model = TransformersLanguageModel.load(find_embedded_model().path, dtype="float32", threads=1)
    table = Table(title=f"log-likelihood ratios of {count} rows under 8 concepts, one thread")
    for heading in ("rows", "plain loop, s", "reader, s", "times", "largest difference, nats"):
        table.add_column(heading, justify="right")
    for title, chosen in (
        ("eight answers a prompt", rows.head(count)),
        ("one answer a prompt", rows.gather_every(8).head(count)),
    ):
        prompts = chosen["prompt"].to_list()
        drawn = sample_rows(frame(chosen["completion"].to_list()), count, 0)
        rows_of = tuple(replace(row, prompt=prompts[row.line - 1]) for row in drawn.rows)
        reader = RowReader(model, concepts(), 128)
        reader.open(replace(drawn, rows=rows_of), None)
        started = time.perf_counter()
        read, _ = reader.read(count, 0, lambda _done, _wanted: None)
        fast = time.perf_counter() - started
        columns = reader.columns
        texts = model.vocabulary()
        kinds = np.array([kind_of(texts[token]) for token in columns])
        started = time.perf_counter()
        worst = 0.0
        for row in read:
            tables = []
            for system in ("", *(c.system_prompt for c in concepts())):
                request = SequenceRequest(
                    model.encode_chat(Chat(system, row.row.prompt)), row.token_ids
                )
                tables.append(plain_pass(model, request)[:, columns])
            ids = np.array(row.token_ids)
            place = np.minimum(np.searchsorted(columns, ids), len(columns) - 1)
            place = np.where(columns[place] == ids, place, -1)
            plain = score_tokens(tables, place, kinds).likelihood.score
            worst = max(worst, float(np.abs(plain - row.scores.likelihood.score).max()))
        slow = time.perf_counter() - started
        table.add_row(title, f"{slow:.1f}", f"{fast:.1f}", f"{slow / fast:.1f}", f"{worst:.1e}")
        console.print(table)
    return 0


def plain_pass(model: TransformersLanguageModel, request: SequenceRequest) -> NDArray[np.float32]:
    """log-softmax [positions, vocabulary] by one pass of the network over one sequence."""
    import torch

    ids = torch.tensor([request.prefix + request.continuation])
    with torch.inference_mode():
        logits = model.network(input_ids=ids, use_cache=False).logits[0]
        start = len(request.prefix) - 1
        part = logits[start : start + len(request.continuation)].float().log_softmax(-1)
    return np.asarray(part.numpy())


if __name__ == "__main__":
    sys.exit(main())
