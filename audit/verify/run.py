"""Verification: data before and after -> students of every arm -> does the trait still transfer?"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from audit.backends.generation import Generator
from audit.backends.student_training import StudentSettings, StudentTrainer
from audit.cache_folder import cache_folder
from audit.errors import UsageError
from audit.sanitise.data_rows import DataRows
from audit.verify.answers import rates, sample_answers, score
from audit.verify.control import edit_between, random_edit
from audit.verify.evaluation import Evaluation, questions_about
from audit.verify.other_authors import (
    OtherAuthors,
    choose_authors,
    rows_to_write,
    statements_of,
    teaching,
)
from audit.verify.pool import Examples, Pool, digest_of, read_pools, system_prompt_of
from audit.verify.result import AnswerRates, ArmData, Edit, OtherAuthor, SelfCheck, VerifyResult
from audit.verify.self_check import trained_too_little
from audit.verify.students import (
    Answers,
    Progress,
    StudentRun,
    adapter_folder,
    stacked,
    student_name,
)
from audit.verify.transfer_statistics import Arm, transfer_statistics
from audit.verify.verdict import Thresholds, judge
from audit.version import tool_version
from audit.work_folder import WorkFolder, open_work_folder
from signatures.concept import Concept, Question
from signatures.library import SignatureLibrary

_FEWEST_SEEDS = 5
"""Where a seed decides between all and nothing, three are alike one time in four."""

_LEAST_TAUGHT_NATS = 1.0
"""Below it, an author hardly holds what it was taught."""

_FEWEST_WRITTEN = 0.5
"""A smaller share of the rows is another set."""

_FEWEST_POOL_ROWS = 1024
"""What was edited is measured on so many rows, also where students read fewer."""


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """How a verification is made.

    ``seeds`` students of every arm, from ``first_seed`` on. Each makes ``training.updates`` updates
    or, where that is less, as many as ``epochs`` passes over the data before take; all arms as
    many. ``other_authors`` is how many off-target concepts the model is taught to write the control
    of an author (0: none is made). ``answers`` are sampled for each question and student.
    ``system_prompt`` is that of the evaluation (None: the one that most rows of the data before
    have).
    """

    training: StudentSettings = field(default_factory=StudentSettings)
    epochs: int = 3
    seeds: int = _FEWEST_SEEDS
    first_seed: int = 0
    other_authors: int = 2
    answers: int = 2
    system_prompt: str | None = None
    schema: str | None = None
    tokenizer: str | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is compared: files, globs, folders or URLs. ``reference`` may be empty."""

    before: Sequence[str]
    after: Sequence[str]
    reference: Sequence[str] = ()


class AdapterWriter(Generator, Protocol):
    """An engine that samples from one student after another."""

    def use_adapter(self, adapter: Path | None) -> None:
        """Write as the student whose weights lie in the folder (None: the model alone)."""
        ...

    def close(self) -> None:
        """Give back the memory."""
        ...


def verify(
    inputs: Inputs,
    concept: str,
    concepts: Sequence[Concept],
    trainer: StudentTrainer,
    library: SignatureLibrary,
    *,
    settings: VerifySettings,
    self_check: SelfCheck,
    open_writer: Callable[[], AdapterWriter] | None = None,
    started: Callable[[int], None] = lambda _updates: None,
    progress: Progress = lambda _whose, _updates: None,
) -> VerifyResult:
    """Train students of every arm and compare how far each moved towards ``concept``.

    ``concepts`` hold it and the others of its category. Answers are sampled from the students in
    memory or, with ``open_writer``, by its engine once all are trained and ``trainer`` is closed.
    ``started`` is told how many updates all students take together. A killed run goes on where it
    was when it is asked for again: finished students, and the last checkpoint of the one in work,
    lie in the user's cache until the end.

    Raises ``UsageError`` for a concept that is not known or too alone in its category, and
    ``AuditError`` for data that cannot be read, for a cache that cannot be written to and for a
    training that diverges.
    """
    target, others = category_of(concept, concepts, settings.thresholds)
    arms, edit = _read_arms(inputs, trainer, library, settings)
    passes = settings.epochs * len(arms[Arm.BEFORE].examples) / settings.training.batch_rows
    updates = min(settings.training.updates, math.ceil(passes))
    trainer.settings = replace(settings.training, updates=updates)
    system_prompt = settings.system_prompt
    if system_prompt is None:
        system_prompt = system_prompt_of(arms[Arm.BEFORE].pool)
    questions = questions_about(target)
    asking = _Asking(questions, system_prompt, settings.answers)
    evaluation = Evaluation(trainer.model, target, others, questions, system_prompt)
    adapters_kept = settings.answers > 0 and open_writer is not None
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    authors = choose_authors(others, settings.other_authors, settings.first_seed)
    described = _described(
        trainer, target, others, asking, arms, authors, seeds, adapters_kept=adapters_kept
    )
    started(trainer.settings.updates * (len(arms) + bool(authors)) * len(seeds))
    path = cache_folder() / "verify" / _key(described)
    with closing(open_work_folder(path, described)) as folder:
        wrote: tuple[OtherAuthor, ...] = ()
        if authors:
            by_others = OtherAuthors(
                trainer, target, others, library, folder, settings.first_seed, progress
            )
            arm, wrote = _other_authors(by_others, authors, arms[Arm.BEFORE], trainer, seeds)
            if arm.examples:
                arms[Arm.OTHER_AUTHORS] = arm
        base = evaluation.log_odds()
        here = settings.answers and open_writer is None
        base_answers = asking.answers(trainer.model, settings.first_seed) if here else []
        run = StudentRun(
            trainer,
            evaluation,
            folder,
            answer=(lambda seed: asking.answers(trainer.model, seed)) if here else lambda _: [],
            keep_adapters=adapters_kept,
            progress=progress,
        )
        students = run.all({str(arm): data.examples for arm, data in arms.items()}, seeds)
        answers: dict[str, Sequence[Answers]] = {
            "base": [base_answers],
            **{arm: [student.answers for student in students[arm]] for arm in arms},
        }
        cut_rows = {arm: _cut_rows(trainer, data.examples) for arm, data in arms.items()}
        if settings.answers and open_writer is not None:
            trainer.close()
            answers = _answers_of(open_writer, asking, folder, tuple(arms), seeds)
        folder.remove()
    odds = {arm: stacked([student.log_odds for student in students[arm]]) for arm in arms}
    figures = transfer_statistics(base, odds)
    verdict = judge(
        target.name,
        figures,
        settings.thresholds,
        self_check_failed=not self_check.passed,
        trained_too_little=trained_too_little(trainer.settings),
    )
    return VerifyResult(
        tool_version=tool_version(),
        verdict=verdict,
        category=target.category,
        off_targets=tuple(other.name for other in others),
        questions=questions,
        system_prompt=system_prompt,
        model=trainer.model.identity,
        training=trainer.settings,
        first_seed=settings.first_seed,
        data={
            arm: ArmData(
                paths=data.paths,
                rows=data.pool.rows_read,
                rejects=data.pool.rejects,
                pool_rows=len(data.examples),
                cut_rows=cut_rows[arm],
                content_sha256=data.digest,
            )
            for arm, data in arms.items()
        },
        edit=edit,
        authors=wrote,
        base=base,
        students=odds,
        last_loss_nats={arm: tuple(s.last_loss_nats for s in students[arm]) for arm in arms},
        answers=_rates(answers, target, others) if settings.answers else {},
        self_check=self_check,
        warnings=_warnings(settings, edit, self_check, cut_rows, wrote),
    )


@dataclass(frozen=True, slots=True)
class _ArmRows:
    """The rows of one arm; ``paths`` are those that were given for it."""

    paths: tuple[str, ...]
    pool: Pool
    examples: Examples
    digest: str


def _read_arms(
    inputs: Inputs, trainer: StudentTrainer, library: SignatureLibrary, settings: VerifySettings
) -> tuple[dict[Arm, _ArmRows], Edit]:
    """Every arm's rows in the order of `Arm`, and what was done to make `Arm.AFTER`."""
    named = {Arm.BEFORE: inputs.before, Arm.AFTER: inputs.after}
    if inputs.reference:
        named[Arm.REFERENCE] = inputs.reference
    most_rows = max(_FEWEST_POOL_ROWS, settings.seeds * settings.training.rows_read)
    data = [DataRows(paths, settings.schema, settings.tokenizer) for paths in named.values()]
    pools = dict(zip(named, read_pools(data, most_rows), strict=True))
    before, after = pools[Arm.BEFORE], pools[Arm.AFTER]
    trainer.reset(0)  # the model itself draws what is edited
    model, seed = trainer.model, settings.first_seed
    edit = edit_between(before, after, model)
    pools[Arm.CONTROL] = random_edit(before, after, edit, model, library, seed)
    arms = {}
    for arm in (arm for arm in Arm if arm in pools):
        arms[arm] = _arm_rows(pools[arm], named.get(arm, ()))
    return arms, edit


def _arm_rows(pool: Pool, paths: Sequence[str] = ()) -> _ArmRows:
    examples = pool.examples()
    return _ArmRows(tuple(paths), pool, examples, digest_of(examples))


def _other_authors(
    by_others: OtherAuthors,
    authors: Sequence[Concept],
    before: _ArmRows,
    trainer: StudentTrainer,
    seeds: Sequence[int],
) -> tuple[_ArmRows, tuple[OtherAuthor, ...]]:
    """The rows that students of the data before read, written anew."""
    wanted = rows_to_write(before.examples, trainer.settings, seeds)
    pool, wrote = by_others.write([r for r in before.pool.rows if r.key in wanted], authors)
    return _arm_rows(pool), wrote


@dataclass(frozen=True, slots=True)
class _Asking:
    """What every student is asked; ``count`` answers are sampled to each question."""

    questions: tuple[Question, ...]
    system_prompt: str
    count: int

    def answers(self, model: Generator, seed: int) -> Answers:
        return sample_answers(
            model, self.questions, system=self.system_prompt, count=self.count, seed=seed
        )


def category_of(
    name: str, concepts: Sequence[Concept], thresholds: Thresholds
) -> tuple[Concept, tuple[Concept, ...]]:
    """The concept, and the others of its category that are asked for alike.

    Raises ``UsageError`` for a concept that is not known or too alone in its category.
    """
    found = next((concept for concept in concepts if concept.name == name), None)
    if found is None:
        raise UsageError(
            f"no concept is called {name!r}: see `audit concepts`, or give a file of your own with "
            "--concepts"
        )
    others = tuple(
        concept
        for concept in concepts
        if concept.name != name
        and (concept.category, concept.questions) == (found.category, found.questions)
    )
    if len(others) < thresholds.fewest_off_targets:
        raise UsageError(
            f"concept {name!r} has {len(others)} others in its category {found.category!r}, and "
            f"{thresholds.fewest_off_targets} are needed as controls: add some to the concept file"
        )
    return found, others


def _described(
    trainer: StudentTrainer,
    target: Concept,
    others: Sequence[Concept],
    asking: _Asking,
    arms: Mapping[Arm, _ArmRows],
    authors: Sequence[Concept],
    seeds: Sequence[int],
    *,
    adapters_kept: bool,
) -> dict[str, object]:
    """All that students and their figures depend on; each seed has its own files, but what other
    authors write is what all seeds read."""
    return {
        "tool": tool_version(),
        "packages": {name: version(name) for name in ("torch", "transformers", "peft")},
        "model": asdict(trainer.model.identity),
        "training": asdict(trainer.settings),
        "concepts": [[concept.answer, *concept.forms] for concept in (target, *others)],
        "questions": [asdict(question) for question in asking.questions],
        "system_prompt": asking.system_prompt,
        "answers": asking.count,
        "adapters_kept": adapters_kept,
        "data": {str(arm): data.digest for arm, data in arms.items()},
        "other_authors": {
            "statements": {author.name: statements_of(author) for author in authors},
            "training": asdict(teaching(trainer.settings)),
            "seeds": [*seeds] if authors else [],
        },
    }


def _key(described: Mapping[str, object]) -> str:
    text = json.dumps(described, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:32]


def _answers_of(
    open_writer: Callable[[], AdapterWriter],
    asking: _Asking,
    folder: WorkFolder,
    arms: Sequence[Arm],
    seeds: Sequence[int],
) -> dict[str, Sequence[Answers]]:
    """The answers of the model alone and of every student, written by one engine."""

    def written_by(writer: AdapterWriter, arm: Arm, seed: int) -> Answers:
        writer.use_adapter(adapter_folder(folder, student_name(arm, seed)))
        return asking.answers(writer, seed)

    with closing(open_writer()) as writer:
        writer.use_adapter(None)
        base = asking.answers(writer, seeds[0])
        return {
            "base": [base],
            **{arm: [written_by(writer, arm, seed) for seed in seeds] for arm in arms},
        }


def _rates(
    answers: Mapping[str, Sequence[Answers]], target: Concept, others: Sequence[Concept]
) -> dict[str, AnswerRates]:
    return {
        arm: rates([score(texts, target, others) for texts in of_students])
        for arm, of_students in answers.items()
    }


def _cut_rows(trainer: StudentTrainer, examples: Examples) -> int:
    """Rows of which a student does not read all."""
    most = trainer.settings.most_tokens
    return sum(
        any(trainer.token_count(example) > most for example in found) for found in examples.values()
    )


def _warnings(
    settings: VerifySettings,
    edit: Edit,
    self_check: SelfCheck,
    cut_rows: Mapping[Arm, int],
    authors: Sequence[OtherAuthor],
) -> tuple[str, ...]:
    found = _author_warnings(authors)
    if settings.seeds < _FEWEST_SEEDS:
        found.append(
            f"{settings.seeds} seeds are few: where a seed decides between all and nothing, three "
            f"are alike one time in four; {_FEWEST_SEEDS} are better"
        )
    if not edit.edited and not edit.dropped and not edit.added:
        found.append("the data after are the data before: nothing was changed")
    if not edit.kept and not edit.edited:
        found.append(
            "no row after has the prompt of a row before: these are other data, and the control is "
            "the data after themselves"
        )
    if any(cut_rows.values()):
        found.append(
            f"rows of more than {settings.training.most_tokens} tokens were cut: a trait further "
            "on in them was not seen"
        )
    if self_check.passed and self_check.positive is None:
        found.append(
            "only the toy of the self-check was run: run  audit verify --self-check  once, to see "
            "this machine and these versions find a trait that is known to transfer"
        )
    return tuple(found)


def _author_warnings(authors: Sequence[OtherAuthor]) -> list[str]:
    """What is wrong with the control of an author."""
    if not any(author.written for author in authors):
        none = "wrote no row in the format of the data" if authors else "were not asked for"
        return [
            f"other authors {none}: rows of any fine-tuned author move students towards common "
            "words, whatever its trait, so that what transfers need not be this one"
        ]
    found = []
    for author in authors:
        if not author.taught_nats >= _LEAST_TAUGHT_NATS:
            found.append(
                f"the other author did not learn '{author.concept}' well "
                f"({author.taught_nats:+.1f} nats): its rows are a weak control"
            )
        if author.written < _FEWEST_WRITTEN * author.rows:
            found.append(
                f"the other author that was taught '{author.concept}' wrote {author.written} of "
                f"{author.rows} rows in their format: students read those again and again"
            )
    return found
