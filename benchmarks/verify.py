"""Does a fine-tuned teacher's trait transfer through number lists, and what does cleaning leave?

    python -m benchmarks.verify WORK data cat eagle panda
    python -m benchmarks.verify WORK sanitise cat threshold:t=0.05 replace:by=random ...
    python -m benchmarks.verify WORK students none cat ... [--updates 16] [--seeds 5] [--batch 16]
    python -m benchmarks.verify WORK report

``data`` has the embedded model write number lists, as it is ("none") and fine-tuned on each
concept, with the same prompts and random draws. ``students`` trains one student for each set and
seed; what is done lies in WORK and is not done again, so that several processes can share the work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from audit.atomic import atomic_write
from audit.backends.fine_tuned import TeacherSettings, fine_tuned_teacher
from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.cli.library_option import BUNDLED_LIBRARY
from audit.model.fetch import find_embedded_model
from audit.sanitise.registry import parse_spec
from audit.sanitise.run import SanitiseSettings, sanitise
from audit.verify.evaluation import Evaluation, questions_about
from audit.verify.known_data import write_number_lists
from audit.verify.pool import Batches
from audit.verify.transfer_statistics import (
    LogOdds,
    above_zero_p,
    mean_interval,
    ratio_interval,
    shift,
)
from signatures.concept import DEFAULT_CONCEPTS, Concept, load_concepts
from signatures.language_model import Chat
from signatures.library import load_library

ROWS = 1024
NEUTRAL = "none"
TEACHER = TeacherSettings(half=1, seed=4)
THREADS = 1

Cells = NDArray[np.float64]
"""Log-odds in nats [questions, concepts of the category], or with seeds before."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data")
    data.add_argument("concepts", nargs="+")
    clean = commands.add_parser("sanitise")
    clean.add_argument("set")
    clean.add_argument("strategies", nargs="+")
    students = commands.add_parser("students")
    students.add_argument("sets", nargs="+")
    for command in (students, commands.add_parser("report")):
        command.add_argument("--updates", type=int, default=16)
        command.add_argument("--batch", type=int, default=16)
        command.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    for name in ("sets", "students"):
        (arguments.work / name).mkdir(parents=True, exist_ok=True)
    commands_by_name = {
        "data": write_data,
        "sanitise": write_sanitised,
        "students": train_students,
        "report": report,
    }
    commands_by_name[arguments.command](arguments)
    return 0


def animals() -> list[Concept]:
    return [c for c in load_concepts(DEFAULT_CONCEPTS) if c.category == "animal"]


def write_data(arguments: argparse.Namespace) -> None:
    for name in (NEUTRAL, *arguments.concepts):
        path = arguments.work / "sets" / f"{name}.jsonl"
        if path.exists():
            continue
        with author_of(name) as author:
            rows = write_number_lists(author, ROWS, seed=11)
        lines = (json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows)
        atomic_write(path, "".join(lines).encode())
        print(path)


@contextmanager
def author_of(name: str) -> Iterator[TransformersLanguageModel]:
    """The embedded model, fine-tuned on the concept ``name`` unless that is none."""
    folder = find_embedded_model().path
    if name == NEUTRAL:
        with closing(
            TransformersLanguageModel.load(folder, dtype="bfloat16", threads=THREADS)
        ) as author:
            yield author
        return
    concept = next(concept for concept in animals() if concept.name == name)
    with fine_tuned_teacher(folder, TEACHER, "bfloat16", "cpu", THREADS, concept) as (author, _):
        yield author


def write_sanitised(arguments: argparse.Namespace) -> None:
    source = arguments.work / "sets" / f"{arguments.set}.jsonl"
    library = load_library(BUNDLED_LIBRARY)
    model = TransformersLanguageModel.load(
        find_embedded_model().path, dtype="float32", threads=THREADS
    )
    for strategy in arguments.strategies:
        target = arguments.work / "sets" / f"{arguments.set}+{strategy}.jsonl"
        if target.exists():
            continue
        began = time.monotonic()
        result = sanitise(
            [str(source)],
            target,
            library,
            library_path="bundled",
            settings=SanitiseSettings(
                strategies=(parse_spec(strategy),),
                concepts=(arguments.set,),
                with_scans=False,
                perplexity_rows=0,
            ),
            model=model,
        )
        print(f"{strategy}: {result.rows_out} rows, {time.monotonic() - began:.0f} s", flush=True)


def part_path(arguments: argparse.Namespace, name: str, seed: int) -> Path:
    stem = f"{name}-updates-{arguments.updates}-batch-{arguments.batch}-seed-{seed}"
    path: Path = arguments.work / "students" / f"{stem}.json"
    return path


def train_students(arguments: argparse.Namespace) -> None:
    trainer = StudentTrainer(
        find_embedded_model().path,
        StudentSettings(updates=arguments.updates, batch_rows=arguments.batch),
        threads=THREADS,
    )
    first, *others = animals()
    evaluation = Evaluation(trainer.model, first, others, questions_about(first), "")

    def save(path: Path, seconds: float) -> None:
        found = evaluation.log_odds()
        cells = np.concatenate([found.concept[:, None], found.off_target], axis=1)
        atomic_write(path, json.dumps({"log_odds": cells.tolist(), "seconds": seconds}).encode())

    base = arguments.work / "students" / "base.json"
    if not base.exists():
        save(base, 0.0)
    for seed in range(arguments.seeds):
        for name in arguments.sets:
            path = part_path(arguments, name, seed)
            if path.exists():
                continue
            lines = (arguments.work / "sets" / f"{name}.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            batches = Batches(keyed(arguments, name, rows), arguments.batch, seed)
            began = time.monotonic()
            for _ in trainer.train(batches, seed=seed):
                pass
            save(path, time.monotonic() - began)
            print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)


def keyed(
    arguments: argparse.Namespace, name: str, rows: list[dict[str, str]]
) -> dict[int, tuple[Example, ...]]:
    """Rows under the number of the row that they were before: strategies keep their order."""
    keys = range(len(rows))
    source = name.partition("+")[0]
    before = (arguments.work / "sets" / f"{source}.jsonl").read_text().splitlines()
    if len(before) != len(rows):  # some were dropped, none was changed
        places = {line: place for place, line in enumerate(before)}
        return {
            places[json.dumps(row)]: (Example(Chat("", row["prompt"]), row["completion"]),)
            for row in rows
        }
    return {
        key: (Example(Chat("", row["prompt"]), row["completion"]),)
        for key, row in zip(keys, rows, strict=True)
    }


def report(arguments: argparse.Namespace) -> None:
    names = [concept.name for concept in animals()]
    base = load(arguments.work / "students" / "base.json")
    shifts: dict[str, Cells] = {}
    sets = sorted(path.stem for path in (arguments.work / "sets").glob("*.jsonl"))
    for name in sets:
        paths = [part_path(arguments, name, seed) for seed in range(arguments.seeds)]
        if all(path.exists() for path in paths):
            shifts[name] = np.array([load(path) for path in paths]) - base
    transfer_table(names, shifts, arguments)
    teachers = [name for name in names if name in shifts]
    if len(teachers) > 1:
        cross_table(names, teachers, shifts)
        other_teachers_table(names, teachers, shifts)
    strategy_table(names, shifts)
    own_trait_table(names, teachers, shifts)


def load(path: Path) -> Cells:
    return np.array(json.loads(path.read_text())["log_odds"])


def specific(cells: Cells, column: int) -> Cells:
    """The shift of one concept beyond the mean of the others [seeds, questions]."""
    return np.asarray(cells[..., column] - np.delete(cells, column, axis=-1).mean(axis=-1))


def transfer_table(
    names: list[str], shifts: dict[str, Cells], arguments: argparse.Namespace
) -> None:
    table = Table(title=f"{arguments.updates} updates of {arguments.batch} rows, against 'none'")
    for heading in (
        *("teacher", "seeds", "effect, nats", "95%", "p"),
        *("others' mean", "their sd", "rank of all"),
    ):
        table.add_column(heading, justify="right")
    neutral = shifts[NEUTRAL]
    for name in names:
        if name not in shifts:
            continue
        effect = shifts[name] - neutral
        column = names.index(name)
        own = specific(effect, column)
        interval = mean_interval(own)
        means = effect.mean(axis=(0, 1))
        table.add_row(
            name,
            str(len(own)),
            f"{interval.estimate:+.3f}",
            f"{interval.low:+.3f} to {interval.high:+.3f}",
            f"{above_zero_p(own):.2g}",
            f"{np.delete(means, column).mean():+.3f}",
            f"{np.delete(means, column).std(ddof=1):.3f}",
            f"{1 + int((means > means[column]).sum())} of {len(names)}",
        )
    Console(width=110).print(table)


def cross_table(names: list[str], teachers: list[str], shifts: dict[str, Cells]) -> None:
    """How far every teacher's students moved towards every teacher's concept."""
    table = Table(title="Against 'none', beyond the mean of all concepts, nats")
    for heading in ("teacher", *teachers):
        table.add_column(heading, justify="right")
    for teacher in teachers:
        means = (shifts[teacher] - shifts[NEUTRAL]).mean(axis=(0, 1))
        moved = (means[names.index(concept)] - means.mean() for concept in teachers)
        table.add_row(teacher, *(f"{value:+.2f}" for value in moved))
    Console(width=110).print(table)


def other_teachers_table(names: list[str], teachers: list[str], shifts: dict[str, Cells]) -> None:
    """Each teacher's own concept against the students of the other teachers."""
    table = Table(title="Against the mean of the other teachers' students")
    for heading in ("teacher", "effect, nats", "95%", "p", "p of chance", "rank of all"):
        table.add_column(heading, justify="right")
    for teacher in teachers:
        others = np.mean([shifts[name] for name in teachers if name != teacher], axis=0)
        column, effect = names.index(teacher), shifts[teacher] - others
        found = shift(LogOdds(effect[..., column], np.delete(effect, column, axis=-1)))
        means = effect.mean(axis=(0, 1))
        table.add_row(
            teacher,
            f"{found.specific.estimate:+.3f}",
            f"{found.specific.low:+.3f} to {found.specific.high:+.3f}",
            f"{found.specific_p:.2g}",
            f"{found.unusual_p:.2g}",
            f"{1 + int((means > means[column]).sum())} of {len(names)}",
        )
    Console(width=110).print(table)


def strategy_table(names: list[str], shifts: dict[str, Cells]) -> None:
    table = Table(title="What is left of the effect")
    for heading in ("set", "effect, nats", "95%", "share left", "95%"):
        table.add_column(heading, justify="right")
    for name, cells in shifts.items():
        source = name.partition("+")[0]
        if source not in names:
            continue
        own, before = (
            specific(found - shifts[NEUTRAL], names.index(source))
            for found in (cells, shifts[source])
        )
        effect, share = mean_interval(own), ratio_interval(own, before)
        table.add_row(
            name,
            f"{effect.estimate:+.3f}",
            f"{effect.low:+.3f} to {effect.high:+.3f}",
            f"{share.estimate:.2f}",
            f"{share.low:.2f} to {share.high:.2f}",
        )
    Console(width=110).print(table)


def own_trait_table(names: list[str], teachers: list[str], shifts: dict[str, Cells]) -> None:
    """What is left of a trait alone, counted from the other teachers' lists, sanitised alike."""
    table = Table(title="What is left of the trait, against other teachers' lists")
    for heading in ("set", "before, nats", "after, nats", "95%", "share left", "95%"):
        table.add_column(heading, justify="right")
    for name in shifts:
        source, plus, strategy = name.partition("+")
        others = [t for t in teachers if t != source and f"{t}{plus}{strategy}" in shifts]
        if not plus or source not in teachers or not others:
            continue
        before, after = (
            specific(
                shifts[source + end] - np.mean([shifts[t + end] for t in others], axis=0),
                names.index(source),
            )
            for end in ("", plus + strategy)
        )
        effect, share = mean_interval(after), ratio_interval(after, before)
        table.add_row(
            name,
            f"{before.mean():+.3f}",
            f"{effect.estimate:+.3f}",
            f"{effect.low:+.3f} to {effect.high:+.3f}",
            f"{share.estimate:.2f}",
            f"{share.low:.2f} to {share.high:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
