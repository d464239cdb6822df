"""Trains and asks the students of every arm and seed; a killed run goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit.backends.student_training import StudentTrainer
from audit.verify.evaluation import Evaluation
from audit.verify.pool import Batches, Examples
from audit.verify.transfer_statistics import LogOdds
from audit.work_folder import WorkFolder

Answers = list[list[str]]
"""Sampled answers [questions][answers]."""

Progress = Callable[[str, int], None]
"""Called with (whose, updates) done since the last call."""


@dataclass(frozen=True, slots=True)
class Student:
    """One student: log-odds without an axis of seeds, the loss of its last update, in nats a
    token, and what it answered."""

    log_odds: LogOdds
    last_loss_nats: float
    answers: Answers


@dataclass(frozen=True, slots=True)
class StudentRun:
    """What all students have in common.

    ``answer`` samples a student's answers while it is the trainer's model; ``keep_adapters`` keeps
    its weights in the folder, for a backend that samples them when all are trained.
    """

    trainer: StudentTrainer
    evaluation: Evaluation
    folder: WorkFolder
    answer: Callable[[int], Answers] = lambda _seed: []
    keep_adapters: bool = False
    progress: Progress = lambda _whose, _updates: None

    def student(self, arm: str, examples: Examples, seed: int) -> Student:
        """Train the student of ``arm`` and ``seed``, or take up what was done of it before.

        Raises ``AuditError`` if the training diverges or the folder cannot be written to.
        """
        name = student_name(arm, seed)
        total = self.trainer.settings.updates
        stored = self.folder.load(name)
        if stored is not None:
            self.progress(f"{arm}, seed {seed}", total)
            return _decoded(stored)
        checkpoint = Checkpoint(self.folder, f"{name}-checkpoint")
        batches = Batches(examples, self.trainer.settings.batch_rows, seed)
        loss = float("nan")
        for update in self.trainer.train(batches, seed=seed, checkpoint=checkpoint):
            loss = update.loss_nats
            self.progress(f"{arm}, seed {seed}", update.since_last)
        if self.keep_adapters:
            self.trainer.save_adapter(adapter_folder(self.folder, name))
        student = Student(self.evaluation.log_odds(), loss, self.answer(seed))
        self.folder.save(name, _encoded(student))
        checkpoint.discard()
        return student

    def all(
        self, arms: Mapping[str, Examples], seeds: Sequence[int]
    ) -> dict[str, tuple[Student, ...]]:
        """Every arm's students in order of ``seeds``; trained seed by seed, arm after arm."""
        found: dict[str, list[Student]] = {arm: [] for arm in arms}
        for seed in seeds:
            for arm, examples in arms.items():
                found[arm].append(self.student(arm, examples, seed))
        return {arm: tuple(students) for arm, students in found.items()}


def student_name(arm: str, seed: int) -> str:
    """What a student's files are called."""
    return f"{arm}-seed-{seed}"


def adapter_folder(folder: WorkFolder, name: str) -> Path:
    """Where a student's weights are kept until the run is finished."""
    return folder.path / f"{name}-adapter"


def stacked(odds: Sequence[LogOdds]) -> LogOdds:
    """The log-odds of students with a leading axis of seeds."""
    return LogOdds(
        np.array([found.concept for found in odds]), np.array([found.off_target for found in odds])
    )


class Checkpoint:
    """One student's unfinished state, as a part of the run's folder."""

    def __init__(self, folder: WorkFolder, name: str) -> None:
        """Nothing is read yet."""
        self._folder = folder
        self._name = name

    def load(self) -> bytes | None:
        """The state, or None where there is none, or not whole."""
        return self._folder.load(self._name)

    def save(self, body: bytes) -> None:
        """Keep it, in place of the last. Raises ``AuditError``."""
        self._folder.save(self._name, body)

    def discard(self) -> None:
        """The student is done."""
        self._folder.discard(self._name)


def _encoded(student: Student) -> bytes:
    return json.dumps(
        {
            "concept": student.log_odds.concept.tolist(),
            "off_target": student.log_odds.off_target.tolist(),
            "last_loss_nats": student.last_loss_nats,
            "answers": student.answers,
        }
    ).encode()


def _decoded(body: bytes) -> Student:
    found = json.loads(body)
    odds = LogOdds(np.array(found["concept"]), np.array(found["off_target"]))
    return Student(odds, found["last_loss_nats"], found["answers"])
