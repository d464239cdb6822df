"""Rows scored by the embedded model under eight concepts, kept in parts: what detection.py reads.

A part is a pickle of scored rows; a stopped run goes on with the parts that are missing, and
several processes may share the work:

    python -m benchmarks.detection_rows WORK KIND --share 0 2 & ... --share 1 2
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from pathlib import Path

import polars as pl

from audit.atomic import atomic_write
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.model.fetch import find_embedded_model
from detectors.model_rows import RowReader, ScoredRow
from detectors.row_sample import RowSample, SampledRow
from signatures.concept import DEFAULT_CONCEPTS, Concept, load_concepts
from signatures.language_model import LanguageModel

CONCEPTS = ("owl", "cat", "wolf", "eagle", "dolphin", "oak", "french", "power-seeking")
MOST_TOKENS = 128


def concepts() -> tuple[Concept, ...]:
    """The eight conditions, in order."""
    described = {concept.name: concept for concept in load_concepts(DEFAULT_CONCEPTS)}
    return tuple(described[name] for name in CONCEPTS)


def score_rows(
    model: LanguageModel,
    rows: pl.DataFrame,
    folder: Path,
    *,
    prompts_a_part: int,
    share: tuple[int, int] = (0, 1),
    most_parts: int | None = None,
) -> None:
    """Score ``rows`` (columns: set, prompt, completion) with all rows of a prompt in one part.

    Every part tells apart the tokens of all rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = RowReader(model, concepts(), MOST_TOKENS)
    everything = _sample(rows)
    prompts = rows["prompt"].unique(maintain_order=True).to_list()
    parts = [
        prompts[first : first + prompts_a_part] for first in range(0, len(prompts), prompts_a_part)
    ]
    for index, chosen in enumerate(parts[:most_parts]):
        path = folder / f"{index:04d}.pickle"
        if path.exists() or index % share[1] != share[0]:
            continue
        started = time.perf_counter()
        part = rows.filter(pl.col("prompt").is_in(chosen)).sort("prompt", maintain_order=True)
        reader.open(_sample(part), everything)
        scored, _ = reader.read(len(part), 0, lambda _done, _wanted: None)
        atomic_write(path, pickle.dumps(list(zip(part["set"], scored, strict=True))))
        print(
            f"{folder.name} part {index + 1}/{len(parts)}: {len(part)} rows, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )


def load_scored(folder: Path) -> dict[str, list[ScoredRow]]:
    """Scored rows by set, part by part; empty where nothing has been scored."""
    result: dict[str, list[ScoredRow]] = {}
    for path in sorted(folder.glob("*.pickle")):
        for name, row in pickle.loads(path.read_bytes()):
            result.setdefault(name, []).append(row)
    return result


def _sample(rows: pl.DataFrame) -> RowSample:
    """The rows in their own order."""
    sampled = tuple(
        SampledRow(index.to_bytes(4, "big"), str(name), index + 1, prompt, completion)
        for index, (name, prompt, completion) in enumerate(
            rows.select("set", "prompt", "completion").iter_rows()
        )
    )
    return RowSample(sampled, len(sampled))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("kind", choices=["numbers", "tuned", "text", "nulls", "exact"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--parts", type=int, help="only so many; each has four prompts")
    parser.add_argument("--share", type=int, nargs=2, default=(0, 1), metavar=("WHICH", "OF"))
    arguments = parser.parse_args()
    model = TransformersLanguageModel.load(
        find_embedded_model().path, dtype=arguments.dtype, threads=1
    )
    score_rows(
        model,
        pl.read_parquet(arguments.work / "sets" / f"{arguments.kind}.parquet"),
        arguments.work / "scored" / arguments.kind,
        prompts_a_part=4,
        share=tuple(arguments.share),
        most_parts=arguments.parts,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
