"""Does a verification's memory grow from student to student?

    python -m benchmarks.verify_memory [--students 10] [--updates 8] [--parts train,ask,answer]
        [--batch 8] [--model FOLDER] [--arenas N] [--trim]

Trains students of the embedded model one after another, as `audit verify` does: LoRA on rows whose
length varies, the exact log-odds of every question, and sampled answers. After each part of each
student it prints what the process holds of memory (resident set) and the most that it ever held.
``--arenas`` and ``--trim`` are how the C library's part in it is told from ours: a bound on its
arenas (a new process is started, which alone can set it), and its call that gives back what is
free, made after every student.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.model.fetch import find_embedded_model
from audit.verify.answers import sample_answers
from audit.verify.evaluation import Evaluation, questions_about
from audit.verify.pool import Batches, Examples
from signatures.concept import DEFAULT_CONCEPTS, load_concepts
from signatures.language_model import Chat

CONCEPT = "cat"
ROWS = 256
QUESTIONS_ANSWERED = 8
ANSWERS = 8
MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, default=10)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--parts", default="train,ask,answer")
    parser.add_argument("--numbers", type=int, default=40, help="of the longest answer")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--arenas", type=int)
    parser.add_argument("--trim", action="store_true")
    asked = parser.parse_args()
    if asked.arenas and os.environ.get("MALLOC_ARENA_MAX") != str(asked.arenas):
        environment = {**os.environ, "MALLOC_ARENA_MAX": str(asked.arenas)}
        again = [sys.executable, "-m", "benchmarks.verify_memory", *sys.argv[1:]]
        os.execve(sys.executable, again, environment)
    run(asked)
    return 0


def run(asked: argparse.Namespace) -> None:
    concepts = {concept.name: concept for concept in load_concepts(DEFAULT_CONCEPTS)}
    concept = concepts[CONCEPT]
    others = [c for c in concepts.values() if c.category == concept.category and c is not concept]
    questions = questions_about(concept)
    settings = StudentSettings(updates=asked.updates, batch_rows=asked.batch)
    folder = asked.model or find_embedded_model().path
    trainer = StudentTrainer(folder, settings, threads=1)
    evaluation = Evaluation(trainer.model, concept, others, questions, "")
    examples = lists_of_many_lengths(ROWS, asked.numbers)
    show("loaded", "")
    parts = asked.parts.split(",")
    for seed in range(asked.students):
        if "train" in parts:
            for _ in trainer.train(Batches(examples, settings.batch_rows, seed), seed=seed):
                pass
            show(f"student {seed + 1}", "trained")
        if "ask" in parts:
            evaluation.log_odds()
            show(f"student {seed + 1}", "asked")
        if "answer" in parts:
            few = questions[:QUESTIONS_ANSWERED]
            sample_answers(trainer.model, few, system="", count=ANSWERS, seed=seed)
            show(f"student {seed + 1}", "answered")
        if asked.trim:
            trim()
            show(f"student {seed + 1}", "trimmed")
    trainer.close()
    gc.collect()
    show("closed", f"{time.process_time():.0f} s of processor time")


def lists_of_many_lengths(rows: int, most: int) -> Examples:
    """Number lists of 3 numbers to ``most``, about 5 tokens each."""
    rng = np.random.default_rng(7)
    found: Examples = {}
    for row in range(rows):
        count = int(rng.integers(3, most))
        answer = ", ".join(str(number) for number in rng.integers(0, 1000, size=count))
        found[row] = (Example(Chat("", f"Write {count} numbers."), answer),)
    return found


def show(when: str, what: str) -> None:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{when:12} {what:10} {resident() / MIB:7.0f} MiB now {most:7.0f} MiB at most", flush=True
    )


def resident() -> int:
    """Bytes of the resident set (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Have the C library give back what is free (glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    sys.exit(main())
