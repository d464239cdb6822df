"""A check with a known answer: a trait that must transfer, and one that must not.

The positive control is a set of number lists by a teacher that was fine-tuned on a concept from the
students' own initialisation; the negative one is by a teacher of the same architecture with other
initial weights, taught the same until it holds the trait as well. Each is compared with lists of a
teacher that was taught *another* concept in the same way, so that only the trait makes the
difference: students of any fine-tuned author's lists move towards common words, whatever its trait
(docs/evidence.md).
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import msgspec

from audit.atomic import atomic_write
from audit.backends.student_training import StudentSettings
from audit.cache_folder import cache_folder
from audit.errors import AuditError
from audit.verify.ghost_logits import run_ghost_logits
from audit.verify.known_students import (
    CHECK_TRAINING,
    Asked,
    AuthorJob,
    StudentJob,
    train_known,
    write_known,
)
from audit.verify.result import ControlTransfer, SelfCheck
from audit.verify.students import Progress, stacked
from audit.verify.transfer_statistics import LogOdds, shift
from audit.version import tool_version
from audit.workers import in_workers, worker_count
from signatures.concept import DEFAULT_CONCEPTS, load_concepts

Job = TypeVar("Job")
Result = TypeVar("Result")

_CONCEPT = "cat"
_OTHER_CONCEPT = "eagle"
_SEEDS = range(3)
_RATE = 0.05


def check_self(
    model_folder: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    started: Callable[[int], None] = lambda _updates: None,
    progress: Progress = lambda _whose, _updates: None,
) -> SelfCheck:
    """Train students whose answer is known, and remember whether the check passed.

    It passes if the toy on digits does, the positive control's effect is above 0 at a rate of 5%
    over seeds and questions, and larger than the off-target concepts' spread makes likely at 5%,
    and the negative one's is neither. `checked` gives the result to every later verification with
    the same versions. On a CPU the work is done in ``threads`` processes (None: one a core, at
    most four) of one thread each: students are independent. Raises as `StudentTrainer` does.
    """
    began = time.monotonic()
    ghost = run_ghost_logits()
    concepts = load_concepts(DEFAULT_CONCEPTS)
    concept, other = (
        next(found for found in concepts if found.name == name)
        for name in (_CONCEPT, _OTHER_CONCEPT)
    )
    others = [c for c in concepts if c.category == concept.category and c.name != _CONCEPT]
    asked = Asked(model_folder, device, concept, tuple(others))
    workers = worker_count(device, threads)
    # The set of each initialisation and trait, in this order.
    authors = [
        AuthorJob(asked, taught, is_other)
        for is_other in (False, True)
        for taught in (concept, other)
    ]
    started(CHECK_TRAINING.updates * len(authors) * len(_SEEDS))
    progress("four authors write", 0)
    written = _all(write_known, authors, workers, lambda: None)
    students = _all(
        train_known,
        [StudentJob(asked, known.rows, seed) for known in written for seed in _SEEDS],
        workers,
        lambda: progress("students of known lists", CHECK_TRAINING.updates),
    )
    found = [student.log_odds for student in students]
    odds = [stacked(found[n : n + len(_SEEDS)]) for n in range(0, len(found), len(_SEEDS))]
    positive, negative = (
        _control(odds[n] - odds[n + 1], written[n].held_nats - written[n + 1].held_nats)
        for n in (0, 2)
    )
    check = SelfCheck(
        model=students[0].model,
        concept=_CONCEPT,
        ghost=ghost,
        positive=positive,
        negative=negative,
        seconds=time.monotonic() - began,
        passed=ghost.passed and _transfers(positive) and not _transfers(negative),
    )
    _remember(check)
    return check


def _all(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, told: Callable[[], None]
) -> list[Result]:
    """The results in the order of the jobs; ``told`` of each."""
    found = {}
    for place, result in in_workers(work, jobs, workers):
        found[place] = result
        told()
    return [found[place] for place in range(len(jobs))]


def trained_too_little(training: StudentSettings) -> bool:
    """Whether students read fewer rows, or make smaller steps, than those of the check."""
    return (
        training.rows_read < CHECK_TRAINING.rows_read
        or training.path_length < 0.99 * CHECK_TRAINING.path_length
    )


def _transfers(control: ControlTransfer) -> bool:
    return control.p_value <= _RATE and control.unusual_p <= _RATE


def _control(effect: LogOdds, teacher_nats: float) -> ControlTransfer:
    found = shift(effect)
    return ControlTransfer(teacher_nats, found.specific, found.specific_p, found.unusual_p)


def remembered() -> SelfCheck | None:
    """The last check on this machine with these versions, or None. Trains nothing."""
    try:
        return msgspec.convert(json.loads(_record().read_text()), SelfCheck)
    except (OSError, ValueError):  # none, or of another form
        return None


def checked() -> SelfCheck:
    """The last check on this machine with these versions; without one, the toy alone is run.

    Raises ``MissingExtraError`` where the toy would need a package that is missing.
    """
    found = remembered()
    if found is not None:
        return found
    ghost = run_ghost_logits()
    return SelfCheck(None, "", ghost, None, None, ghost.seconds, ghost.passed)


def _remember(check: SelfCheck) -> None:
    path = _record()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(asdict(check)).encode())
    except OSError as error:
        raise AuditError(f"{path}: cannot be written: {error.strerror or error}") from error


def _record() -> Path:
    versions: Mapping[str, str] = {
        "audit": tool_version(),
        "python": sys.version,
        **{name: _version(name) for name in ("torch", "transformers", "peft", "numpy")},
    }
    key = hashlib.sha256(json.dumps(versions, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "self-check" / f"{key}.json"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
