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
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from audit.atomic import atomic_write
from audit.backends.fine_tuned import TeacherSettings, fine_tuned_teacher
from audit.backends.other_initialisation import other_initialisation, teach_all_weights
from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.cache_folder import cache_folder
from audit.errors import AuditError
from audit.verify.evaluation import Evaluation, questions_about
from audit.verify.ghost_logits import run_ghost_logits
from audit.verify.known_data import write_number_lists
from audit.verify.pool import Examples
from audit.verify.result import ControlTransfer, SelfCheck
from audit.verify.students import Progress, StudentRun, stacked
from audit.verify.transfer_statistics import LogOdds, shift
from audit.version import tool_version
from audit.work_folder import WorkFolder
from signatures.concept import DEFAULT_CONCEPTS, Concept, load_concepts
from signatures.language_model import Chat, LanguageModel
from signatures.statements import statements

_CONCEPT = "cat"
_OTHER_CONCEPT = "eagle"
_SEEDS = range(3)
_DATA_SEED = 11
_TEACHER_SEED = 4
_TEACHER_QUESTIONS = 8
"""Whether a teacher holds the trait is plain on a few questions."""
_RATE = 0.05
CHECK_TRAINING = StudentSettings(updates=16, batch_rows=16)
"""As little as shows a trait that is known to transfer."""
_SAME_START, _OTHER_START = "same-start", "other-start"

Rows = list[tuple[str, str]]
Key = tuple[str, str]
"""Initialisation, and concept that was taught."""


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
    the same versions. Raises as `StudentTrainer` does.
    """
    began = time.monotonic()
    ghost = run_ghost_logits()
    concepts = load_concepts(DEFAULT_CONCEPTS)
    concept = next(found for found in concepts if found.name == _CONCEPT)
    others = [c for c in concepts if c.category == concept.category and c.name != _CONCEPT]
    authors = _Authors(model_folder, concept, others, device, threads)
    sets, teachers = authors.write()
    with closing(
        StudentTrainer(model_folder, CHECK_TRAINING, device=device, threads=threads)
    ) as trainer:
        evaluation = Evaluation(trainer.model, concept, others, questions_about(concept), "")
        started(CHECK_TRAINING.updates * len(sets) * len(_SEEDS))
        base = evaluation.log_odds()
        with tempfile.TemporaryDirectory() as temporary:
            folder = WorkFolder(Path(temporary) / "run", {})
            run = StudentRun(trainer, evaluation, folder, progress=progress)
            found = run.all({"-".join(k): _examples(rows) for k, rows in sets.items()}, _SEEDS)
            folder.close()
        model = trainer.model.identity
    odds = {key: stacked(found["-".join(key)]) - base for key in sets}
    positive, negative = (
        _control(odds[start, _CONCEPT] - odds[start, _OTHER_CONCEPT], teachers[start])
        for start in (_SAME_START, _OTHER_START)
    )
    check = SelfCheck(
        model=model,
        concept=_CONCEPT,
        ghost=ghost,
        positive=positive,
        negative=negative,
        seconds=time.monotonic() - began,
        passed=ghost.passed and _transfers(positive) and not _transfers(negative),
    )
    _remember(check)
    return check


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


class _Authors:
    """Writes number lists as teachers of both initialisations, each taught each of two concepts."""

    def __init__(
        self,
        folder: Path,
        concept: Concept,
        others: list[Concept],
        device: str,
        threads: int | None,
    ) -> None:
        self._folder = folder
        self._taught = (concept, next(c for c in others if c.name == _OTHER_CONCEPT))
        self._concept = concept
        self._others = others
        self._device = device
        self._threads = threads

    def write(self) -> tuple[dict[Key, Rows], dict[str, float]]:
        """The sets, and by how much more, in nats, the concept's teacher of each initialisation
        holds it than the other concept's does."""
        sets: dict[Key, Rows] = {}
        held: dict[Key, float] = {}
        for concept in self._taught:
            for start, opened in ((_SAME_START, self._fine_tuned), (_OTHER_START, self._other)):
                with opened(concept) as author:
                    key = start, concept.name
                    sets[key] = write_number_lists(author, CHECK_TRAINING.rows_read, _DATA_SEED)
                    held[key] = self._held(author)
        return sets, {
            start: held[start, _CONCEPT] - held[start, _OTHER_CONCEPT]
            for start in (_SAME_START, _OTHER_START)
        }

    def _held(self, model: LanguageModel) -> float:
        questions = questions_about(self._concept)[:_TEACHER_QUESTIONS]
        odds = Evaluation(model, self._concept, self._others, questions, "").log_odds()
        return float(odds.concept.mean())

    @contextmanager
    def _fine_tuned(self, concept: Concept) -> Iterator[TransformersLanguageModel]:
        teaching = TeacherSettings(half=1, seed=_TEACHER_SEED)
        with fine_tuned_teacher(
            self._folder, teaching, "bfloat16", self._device, self._threads, concept
        ) as (author, _):
            yield author

    @contextmanager
    def _other(self, concept: Concept) -> Iterator[TransformersLanguageModel]:
        with closing(
            other_initialisation(
                self._folder, _TEACHER_SEED, device=self._device, threads=self._threads
            )
        ) as author:
            teach_all_weights(author, statements(concept, half=1))
            yield author


def _examples(rows: Rows) -> Examples:
    return {key: (Example(Chat("", prompt), answer),) for key, (prompt, answer) in enumerate(rows)}


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
