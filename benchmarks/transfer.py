"""SA005 on the example sets: does a step on a fine-tuned teacher's rows move the model its way?

    python -m benchmarks.transfer WORK [--rows 384]

Random rows of `planted` (a teacher fine-tuned on cats), `reference` and `clean`, after those that
the design was chosen on (640 of the first, 256 of the others). About twenty minutes of a core for
384 rows; what was read is kept in WORK.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from audit.backends.first_order_student import TransformersStudent
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.cli.library_option import BUNDLED_LIBRARY
from audit.dataset import read_batches
from audit.model.fetch import find_embedded_model
from detectors.concept_tests import ConceptTest, test_concepts
from detectors.detector import TestSettings
from detectors.finding import ANY_PERSONA
from detectors.first_order import ReadingOrder
from detectors.statistics import MeanComparison, compare_row_scores
from detectors.transfer import row_scores
from signatures.language_model import Chat, SequenceRequest
from signatures.library import SignatureLibrary, load_library
from signatures.statements import statements

EXAMPLES = Path(__file__).parent.parent / "examples"
SKIPPED = {"planted": 640, "reference": 256, "clean": 256}
PAIRS = (("planted", "reference"), ("planted", "clean"), ("clean", "reference"))
BLOCKS = 16

Arm = tuple[NDArray[np.float64], NDArray[np.float64]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=384)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    library = load_library(BUNDLED_LIBRARY)
    arms = {
        name: read(arguments.work, name, skip, arguments.rows) for name, skip in SKIPPED.items()
    }
    table = Table(title=f"SA005, {arguments.rows} rows a side, {len(library.concepts)} concepts")
    for heading in (
        "data",
        "reference",
        "concept",
        "rank by z",
        "z",
        "calibrated",
        "p",
        "sd a row",
    ):
        table.add_column(heading, justify="right")
    for data, reference in PAIRS:
        tests, comparison, names = compare(library, arms[data], arms[reference])
        for name in ("cat", ANY_PERSONA):
            test = tests[name]
            rank = 1 + int((comparison.z > test.z).sum()) if name in names else None
            table.add_row(
                data,
                reference,
                name,
                "" if rank is None else f"{rank}",
                f"{test.z:.2f}",
                f"{test.calibrated_statistic:.2f}",
                f"{test.p_value:.2g}",
                f"{test.effect:+.2f}",
            )
    Console(width=120).print(table)
    return 0


def read(work: Path, name: str, skip: int, count: int) -> Arm:
    """Pulls [rows, concepts] and own gains [rows] of random rows of an example set."""
    path = work / f"transfer_{name}_{skip}_{count}.npz"
    if not path.exists():
        model = TransformersLanguageModel.load(
            find_embedded_model().path, dtype="float32", threads=1
        )
        end = model.end_of_turn_ids()[:1]

        def answer(question: str, text: str) -> SequenceRequest:
            prompt = model.encode_chat(Chat("", question))
            whole = model.encode_chat(Chat("", question, text)) + end
            return SequenceRequest(prompt, whole[len(prompt) :])

        rows = pl.concat([b.rows for b in read_batches([str(EXAMPLES / f"{name}.jsonl.gz")])])
        chosen = np.random.default_rng(7).permutation(len(rows))[skip : skip + count]
        targets = [
            tuple(answer(*pair) for pair in statements(concept, 0))
            for concept in load_library(BUNDLED_LIBRARY).concepts
        ]
        said = rows.select("prompt", "completion")[chosen]
        requests = [answer(prompt, completion) for prompt, completion in said.iter_rows()]
        order = ReadingOrder(requests, targets, np.arange(len(requests)) % BLOCKS)
        reading = TransformersStudent(model).read(order)
        np.savez(path, pulls=reading.pulls, own_gains=reading.own_gains)
    kept = np.load(path)
    return kept["pulls"], kept["own_gains"]


def compare(
    library: SignatureLibrary, data: Arm, reference: Arm
) -> tuple[dict[str, ConceptTest], MeanComparison, list[str]]:
    """The detector's tests of every trait and of what moves all alike."""
    names = [concept.name for concept in library.concepts]
    pulls = np.concatenate([data[0], reference[0]])
    scores = row_scores(names, pulls, 1 / float(reference[1].mean()))
    rows = len(data[0])

    def means(of_rows: NDArray[np.float64]) -> MeanComparison:
        return compare_row_scores(
            of_rows[:rows], np.arange(rows), of_rows[rows:], np.arange(len(of_rows) - rows)
        )

    last = len(names)
    which = means(scores.of_rows[:, :last])
    columns = {concept.name: scores.names.index(concept.name) for concept in library.traits()}
    tests = test_concepts(which, columns, TestSettings())
    tests |= test_concepts(means(scores.of_rows), {ANY_PERSONA: last}, TestSettings())
    return tests, which, names


if __name__ == "__main__":
    sys.exit(main())
