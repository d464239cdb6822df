"""Authors whose trait is known, and students of what they write: the jobs of the self-check.

Each is a function of its own, for a process of its own, on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.backends.fine_tuned import TeacherSettings, fine_tuned_teacher
from audit.backends.other_initialisation import other_initialisation, teach_all_weights
from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.verify.evaluation import Evaluation, questions_about
from audit.verify.known_data import write_number_lists
from audit.verify.pool import Batches, Examples
from audit.verify.transfer_statistics import LogOdds
from signatures.concept import Concept, Question
from signatures.language_model import Chat, LanguageModel, ModelIdentity
from signatures.statements import statements

CHECK_TRAINING = StudentSettings(updates=16, batch_rows=16)
"""As little as shows a trait that is known to transfer."""
_DATA_SEED = 11
_TEACHER_SEED = 4
_HALF = 1
_TEACHER_QUESTIONS = 8
"""Whether a teacher holds the trait is plain on a few questions."""
_THREADS = 1

Rows = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """The model, and the concept that is asked for among ``others``."""

    model_folder: Path
    device: str
    concept: Concept
    others: tuple[Concept, ...]


@dataclass(frozen=True, slots=True)
class AuthorJob:
    """Teach ``taught`` to the model or, with ``is_other``, to one of another initialisation."""

    asked: Asked
    taught: Concept
    is_other: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Pairs (prompt, answer), and the mean log-odds, in nats, that the author has of the concept
    that is asked for."""

    rows: Rows
    held_nats: float


@dataclass(frozen=True, slots=True)
class StudentJob:
    """Train a student of the model on ``rows``."""

    asked: Asked
    rows: Rows
    seed: int


@dataclass(frozen=True, slots=True)
class Trained:
    """What the student answers to every question, and the model that it began as."""

    log_odds: LogOdds
    model: ModelIdentity


def write_known(job: AuthorJob) -> Written:
    """Number lists by the author, as many as a student reads. Raises as its training does."""
    with _author(job) as author:
        rows = write_number_lists(author, CHECK_TRAINING.rows_read, _DATA_SEED)
        questions = questions_about(job.asked.concept)[:_TEACHER_QUESTIONS]
        odds = _evaluation(author, job.asked, questions).log_odds()
        return Written(rows, float(odds.concept.mean()))


def train_known(job: StudentJob) -> Trained:
    """The student. Raises as `StudentTrainer` does."""
    asked = job.asked
    with closing(
        StudentTrainer(asked.model_folder, CHECK_TRAINING, device=asked.device, threads=_THREADS)
    ) as trainer:
        examples: Examples = {
            key: (Example(Chat("", prompt), answer),)
            for key, (prompt, answer) in enumerate(job.rows)
        }
        for _ in trainer.train(
            Batches(examples, CHECK_TRAINING.batch_rows, job.seed), seed=job.seed
        ):
            pass
        odds = _evaluation(trainer.model, asked, questions_about(asked.concept)).log_odds()
        return Trained(odds, trainer.model.identity)


def _evaluation(model: LanguageModel, asked: Asked, questions: tuple[Question, ...]) -> Evaluation:
    return Evaluation(model, asked.concept, asked.others, questions, "")


@contextmanager
def _author(job: AuthorJob) -> Iterator[TransformersLanguageModel]:
    folder, device = job.asked.model_folder, job.asked.device
    if not job.is_other:
        teaching = TeacherSettings(half=_HALF, seed=_TEACHER_SEED)
        with fine_tuned_teacher(folder, teaching, "bfloat16", device, _THREADS, job.taught) as (
            author,
            _,
        ):
            yield author
        return
    with closing(
        other_initialisation(folder, _TEACHER_SEED, device=device, threads=_THREADS)
    ) as author:
        teach_all_weights(author, statements(job.taught, half=_HALF))
        yield author
