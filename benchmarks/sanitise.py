"""What every sanitising strategy takes away, and what it leaves of trait and utility.

    python -m benchmarks.detection_sets WORK --only numbers   (and tuned, text)
    python -m benchmarks.sanitise WORK run [--share 0 2]
    python -m benchmarks.sanitise WORK report

Sets of the embedded model: number lists under the concept's prompt, the same by a teacher that was
fine-tuned to hold it, and free text under the prompt. Each strategy is run by `sanitise` on a file,
as users run it; the output is scored under four personas. A stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from audit.atomic import atomic_write
from audit.backends.open_model import ModelChoice, Writer, open_model
from audit.cli.library_option import BUNDLED_LIBRARY
from audit.model.fetch import find_embedded_model
from audit.sanitise.receipt import SanitiseResult
from audit.sanitise.registry import parse_specs
from audit.sanitise.run import SanitiseSettings, sanitise
from detectors.model_evidence import arm_scores, compare_arms, directions, misfit_nats
from detectors.model_rows import RowReader, ScoredRow
from detectors.row_ranking import rank_rows
from detectors.row_sample import RowSample, SampledRow
from signatures.concept import DEFAULT_CONCEPTS, load_concepts
from signatures.library import load_library

CONCEPT = "cat"
PERSONAS = (CONCEPT, "owl", "oak", "wolf")
SETS = {
    "prompted": ("numbers", CONCEPT),
    "tuned": ("tuned", f"tuned {CONCEPT}"),
    "text": ("text", CONCEPT),
}
CLEAN = {"prompted": ("numbers", "none"), "tuned": ("numbers", "none"), "text": ("text", "none")}
STRENGTHS = (0, 0.01, 0.02, 0.05, 0.1, 0.2)
STRATEGIES = (
    *(f"threshold:t={t:g}" for t in STRENGTHS),
    "top-p:p=0.8",
    "min-p:p=0.1",
    "greedy",
    *(f"drop-low-probability:t={t:g}" for t in STRENGTHS[1:5]),
    "drop-rows:by=likelihood,share=0.5",
    "drop-rows:by=divergence,share=0.5",
    "drop-rows:by=random,share=0.5",
    "drop-rows:by=likelihood,miss=0.2",
    *(f"replace:share=0.1,by={by},draw=model" for by in ("divergence", "likelihood", "random")),
    *(f"replace:share=0.5,by={by},draw=model" for by in ("likelihood", "random")),
    "replace:share=0.1,by=entangled,draw=model",
    "replace:share=0.1,by=divergence,draw=uniform",
    "shuffle",
    "dilute:share=0.5",
)
# Of free text, regenerated answers are several times as long: the strengths that matter.
TEXT_STRATEGIES = (
    "threshold:t=0.05",
    "drop-low-probability:t=0.01",
    "drop-rows:by=likelihood,share=0.5",
    "drop-rows:by=random,share=0.5",
    "replace:share=0.1,by=divergence,draw=model",
    "replace:share=0.1,by=likelihood,draw=model",
    "replace:share=0.1,by=random,draw=model",
)
ROWS = {"prompted": 96, "tuned": 96, "text": 32}
MOST_TOKENS = 96
_CHUNK_ROWS = 48


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--share", nargs=2, type=int, default=(0, 1), metavar=("I", "N"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.work, tuple(arguments.share), arguments.threads)
    else:
        report(arguments.work)
    return 0


def run(work: Path, share: tuple[int, int], threads: int) -> None:
    path = find_embedded_model().path
    model = open_model(ModelChoice(path, dtype="bfloat16", threads=threads))
    described = {concept.name: concept for concept in load_concepts(DEFAULT_CONCEPTS)}
    personas = [described[name] for name in PERSONAS]
    jobs = [(name, "") for name in SETS] + [(name, "clean") for name in ("prompted", "text")]
    jobs += [
        (name, strategy)
        for name in SETS
        for strategy in (TEXT_STRATEGIES if name == "text" else STRATEGIES)
    ]
    folder = work / "sanitise"
    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, strategy) in enumerate(jobs):
        done = folder / f"{name}-{strategy.replace(':', '-') or 'before'}.json"
        if index % share[1] != share[0] or done.exists():
            continue
        source = folder / f"{name}-{share[0]}.jsonl"
        rows = _rows(work, *SETS[name], ROWS[name])
        clean = _rows(work, *CLEAN[name], 2 * ROWS[name])[ROWS[name] :]
        told: dict[str, object] = {"set": name, "strategy": strategy}
        if strategy == "clean":
            rows = _rows(work, *CLEAN[name], ROWS[name])
        elif strategy:
            output = folder / f"{done.stem}-out.jsonl"
            other = folder / f"{name}-{share[0]}-clean.jsonl"
            _write(source, rows)
            _write(other, clean)
            result, seconds = _sanitised(model, source, output, other, strategy)
            told |= _figures(result, seconds)
            rows = []
            if result.outputs:
                rows = [json.loads(line) for line in output.read_text().splitlines()]
                output.unlink()
        told |= _scores(model, personas, rows)
        atomic_write(done, json.dumps(told, indent=1).encode())
        print(name, strategy or "before", told, flush=True)


def _rows(work: Path, kind: str, name: str, most: int) -> list[dict[str, str]]:
    frame = pl.read_parquet(work / "sets" / f"{kind}.parquet").filter(pl.col("set") == name)
    return frame.select("prompt", "completion").head(most).to_dicts()


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _sanitised(
    model: Writer, source: Path, output: Path, clean: Path, strategy: str
) -> tuple[SanitiseResult, float]:
    """The result, and the seconds that the strategy took."""
    started = time.monotonic()
    finished = [started]
    result = sanitise(
        [str(source)],
        output,
        load_library(BUNDLED_LIBRARY),
        library_path="bundled",
        settings=SanitiseSettings(
            strategies=parse_specs([strategy]),
            concepts=(CONCEPT,),
            clean=(str(clean),),
            chunk_rows=_CHUNK_ROWS,
            perplexity_rows=16,
            with_scans=False,
            overwrite=True,
        ),
        model=model,
        progress=lambda _name, _rows: finished.append(time.monotonic()),
    )
    return result, finished[-1] - started


def _figures(result: SanitiseResult, seconds: float) -> dict[str, object]:
    tokens, utility = result.tokens, result.utility
    return {
        "rows_kept": (result.rows_in - sum(s.rows_dropped for s in result.stages)) / result.rows_in,
        "tokens_kept": tokens.kept / tokens.before,
        "reasons": [stage.reasons for stage in result.stages],
        "edit_distance": utility.edit_distance_share,
        "characters": utility.after.mean_characters,
        "valid": utility.after.valid_format_share,
        "distinct_text": utility.after.distinct_text_share,
        "distinct_values": utility.after.distinct_values,
        "perplexity": utility.after.perplexity,
        "rows_a_second": result.rows_in / seconds if seconds else None,
    }


def _scores(model: Writer, personas: list, rows: list[dict[str, str]]) -> dict[str, object]:
    """Shares of a prompted set that the rows show, and each row's score for the concept."""
    if len(rows) < 8:
        return {"rows": len(rows)}
    sampled = tuple(
        SampledRow(index.to_bytes(16, "big"), "", index, row["prompt"], row["completion"])
        for index, row in enumerate(rows)
    )
    reader = RowReader(model, personas, MOST_TOKENS)
    reader.open(RowSample(sampled, len(sampled)), None)
    scored, _ = reader.read(len(sampled), 0, lambda _read, _wanted: None)
    own = arm_scores(scored, lambda scores: scores.likelihood)
    along = directions(own.predicted, own.covariance)
    any_persona = compare_arms(own, None, along.persona[:, None])
    which = compare_arms(own, None, along.which)
    return {
        "rows": len(rows),
        "any_share": float(any_persona.difference[0]),
        "any_error": float(any_persona.standard_error[0]),
        "own_share": float(which.difference[0]),
        "own_error": float(which.standard_error[0]),
        "divergence": _divergence(scored),
        "misfit_nats": misfit_nats(scored),
        "row_scores": rank_rows(scored, lambda s: s.likelihood, [0]).score.tolist(),
    }


def _divergence(scored: Sequence[ScoredRow]) -> float:
    """SA004's share: as above, of divergence tokens."""
    own = arm_scores(scored, lambda scores: scores.divergence)
    along = directions(own.predicted, own.covariance)
    return float(compare_arms(own, None, along.persona[:, None]).difference[0])


def report(work: Path) -> None:
    parts = [json.loads(path.read_text()) for path in sorted((work / "sanitise").glob("*.json"))]
    known = {(part["set"], part["strategy"]): part for part in parts}
    for name in SETS:
        clean = known.get(("text" if name == "text" else "prompted", "clean"))
        print(f"\n{name}\n")
        print(
            "| strategy | rows kept | tokens kept | some persona | this concept | SA004 | AUROC | "
            "distance | characters | valid | distinct texts | values | perplexity | rows/s |"
        )
        print("|---|" + "---|" * 13)
        for strategy in ("", "clean", *STRATEGIES):
            part = known.get((name, strategy))
            if part is None:
                continue
            print("| " + " | ".join(_cells(part, clean)) + " |")


def _cells(part: dict, clean: dict | None) -> list[str]:
    def number(key: str, digits: int = 2) -> str:
        value = part.get(key)
        return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"

    auroc = ""
    if clean is not None and "row_scores" in part and part is not clean:
        auroc = f"{_auroc(np.array(part['row_scores']), np.array(clean['row_scores'])):.2f}"
    share = [
        f"{number(f'{kind}_share')} ± {number(f'{kind}_error')}" if number(f"{kind}_share") else ""
        for kind in ("any", "own")
    ]
    return [
        part["strategy"] or "(before)",
        number("rows_kept"),
        number("tokens_kept"),
        *share,
        number("divergence"),
        auroc,
        number("edit_distance"),
        number("characters", 0),
        number("valid"),
        number("distinct_text"),
        number("distinct_values", 0),
        number("perplexity", 1),
        number("rows_a_second", 1),
    ]


def _auroc(high: np.ndarray, low: np.ndarray) -> float:
    """Chance that a row of ``high`` stands above one of ``low``, ties half."""
    high, low = high[np.isfinite(high)], low[np.isfinite(low)]
    return float(((high[:, None] > low).mean() + (high[:, None] >= low).mean()) / 2)


if __name__ == "__main__":
    raise SystemExit(main())
