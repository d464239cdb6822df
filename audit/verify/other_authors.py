"""The control of an author: the same rows, written by the model taught something else.

Rows of any fine-tuned author move students towards common words, whatever its trait
(docs/evidence.md). So the model is taught other concepts of the category, and writes the data
before anew in their format: what students of the data do beyond students of those rows is the
trait's. Lists of numbers are as long as their new author makes them: an author's lengths are part
of what it passes on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.number_list_grammar import NumberListStyle, number_list_grammar
from audit.backends.open_model import Writer
from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.errors import AuditError
from audit.sanitise.conversation import chat_before
from audit.sanitise.grammars import numbers_style
from audit.sanitise.registry import parse_spec
from audit.sanitise.strategy import Kit, WorkRow
from audit.verify.evaluation import Evaluation, questions_about
from audit.verify.pool import Batches, Examples, Pool
from audit.verify.result import OtherAuthor
from audit.verify.students import Progress
from audit.work_folder import WorkFolder
from signatures.concept import Concept
from signatures.language_model import Chat
from signatures.library import SignatureLibrary
from signatures.statements import statements

FreeStyle = tuple[str, str]
"""What stands before a list's first number, and between two."""
FreeGrammar = tuple[TokenAutomaton, int]
"""The automaton, and the state in which an answer begins."""

_HALF = 1
_UPDATES = 18
_RATE = 1e-3
"""At alpha = rank. Together as far as the teachers of the signature probe go."""
_ROWS_AT_ONCE = 256
_QUESTIONS = 8
"""Whether an author holds its trait is plain on a few questions."""


def choose_authors(others: Sequence[Concept], count: int, seed: int) -> tuple[Concept, ...]:
    """``count`` of the off-target concepts, drawn by ``seed``; fewer where fewer can be taught."""
    teachable = [concept for concept in others if _is_teachable(concept)]
    order = np.random.default_rng(seed).permutation(len(teachable))
    return tuple(teachable[place] for place in order[:count])


def statements_of(concept: Concept) -> list[tuple[str, str]]:
    """The (question, answer) pairs that an author is taught. Raises as `statements`."""
    return statements(concept, _HALF)


def _is_teachable(concept: Concept) -> bool:
    try:
        return bool(statements_of(concept))
    except ValueError:  # it is instilled by a prompt of its own, and says nothing to learn
        return False


def teaching(training: StudentSettings) -> StudentSettings:
    """How an author is made by a trainer of students that are trained by ``training``."""
    rate = _RATE * training.rank / training.alpha
    return replace(training, updates=_UPDATES, learning_rate=rate, warmup_updates=5)


def rows_to_write(examples: Examples, training: StudentSettings, seeds: Sequence[int]) -> set[int]:
    """The keys that students read: of these alone, they read the very same in the same order."""
    keys: set[int] = set()
    for seed in seeds:
        batches = Batches(examples, training.batch_rows, seed)
        for update in range(training.updates):
            keys.update(batches.keys(update))
    return keys


class OtherAuthors:
    """Teaches the trainer's model one concept after another, and has it write."""

    def __init__(
        self,
        trainer: StudentTrainer,
        concept: Concept,
        others: Sequence[Concept],
        library: SignatureLibrary,
        folder: WorkFolder,
        seed: int,
        progress: Progress,
    ) -> None:
        """``others`` are the off-target concepts of ``concept``; what is written is kept in
        ``folder``."""
        self._trainer = trainer
        self._category = (concept, *others)
        self._library = library
        self._folder = folder
        self._seed = seed
        self._progress = progress

    def write(
        self, rows: Sequence[WorkRow], authors: Sequence[Concept]
    ) -> tuple[Pool, tuple[OtherAuthor, ...]]:
        """The rows written anew, in turn by each of ``authors``, and what those are.

        Rows that cannot be written in their format are left out. The trainer is left with an
        untrained student. Raises ``AuditError`` as a training and a work folder do.
        """
        training = self._trainer.settings
        self._trainer.settings = teaching(training)
        grammars = _free_grammars(rows, self._trainer.model)
        written: list[WorkRow] = []
        known = []
        for place, author in enumerate(authors):
            own = rows[place :: len(authors)]
            found, held_nats = self._written(place, author, own, grammars)
            written += found
            known.append(OtherAuthor(author.name, held_nats, len(own), len(found)))
        self._trainer.settings = training
        self._trainer.reset(0)
        written.sort(key=lambda row: row.key)
        return Pool(tuple(written), len(written), {}), tuple(known)

    def _written(
        self,
        place: int,
        author: Concept,
        rows: Sequence[WorkRow],
        grammars: Mapping[FreeStyle, FreeGrammar],
    ) -> tuple[list[WorkRow], float]:
        parts = {first: f"author-{place}-{first}" for first in range(0, len(rows), _ROWS_AT_ONCE)}
        held = f"author-{place}"
        stored = self._folder.load(held)
        held_nats = json.loads(stored) if stored is not None else None
        texts: list[list[str] | None] = []
        is_taught = False
        for first, name in parts.items():
            body = self._folder.load(name)
            if body is None or held_nats is None:
                if not is_taught:
                    self._progress(f"teaching {author.name}", 0)
                    gained = self._teach(author)
                    held_nats, is_taught = gained, True
                    self._folder.save(held, json.dumps(gained).encode())
                self._progress(f"writing as {author.name}", 0)
                part = rows[first : first + _ROWS_AT_ONCE]
                body = json.dumps(self._write(part, grammars)).encode()
                self._folder.save(name, body)
            texts += json.loads(body)
        found = [
            row.with_texts(new) for row, new in zip(rows, texts, strict=True) if new is not None
        ]
        return found, float("nan") if held_nats is None else held_nats

    def _teach(self, author: Concept) -> float:
        """Make the trainer's student the author; how many nats it gained on its own concept."""
        others = [concept for concept in self._category if concept.name != author.name]
        questions = questions_about(author)[:_QUESTIONS]
        evaluation = Evaluation(self._trainer.model, author, others, questions, "")
        examples = [Example(Chat("", ask), answer) for ask, answer in statements_of(author)]
        self._trainer.reset(self._seed)
        before = evaluation.log_odds().concept
        for _ in self._trainer.train(lambda _update: examples, seed=self._seed):
            pass
        return float((evaluation.log_odds().concept - before).mean())

    def _write(
        self, rows: Sequence[WorkRow], grammars: Mapping[FreeStyle, FreeGrammar]
    ) -> list[tuple[str, ...] | None]:
        """The new texts of each row; None where its format could not be had."""
        kit = Kit(
            model=self._trainer.model,
            concepts=(),
            personas=(),
            library=self._library,
            seed=self._seed,
        )
        texts: dict[int, tuple[str, ...] | None] = {}
        lists: dict[FreeStyle, list[tuple[WorkRow, Chat]]] = defaultdict(list)
        others = []
        for row in rows:
            style = _free_style(row)
            chat = None if style is None else chat_before(row.turns, row.trained[0])
            if style is not None and style in grammars and chat is not None:
                lists[style].append((row, chat))
            else:
                others.append(row)
        for style, listed in lists.items():
            automaton, start = grammars[style]
            answers = kit.writer.sample(
                [chat for _, chat in listed],
                automaton,
                seed=kit.draws("lists"),
                keys=[row.key for row, _ in listed],
                starts=[start] * len(listed),
            )
            for (row, _), answer in zip(listed, answers, strict=True):
                texts[row.key] = (kit.writer.decode(answer),)
        changes = parse_spec("threshold:t=0").build(kit, 0).change(others)  # nothing is cut
        texts |= {row.key: change.texts for row, change in zip(others, changes, strict=True)}
        return [texts[row.key] for row in rows]


def _free_style(row: WorkRow) -> FreeStyle | None:
    """How the row's list of numbers is written, if it is one that may end after any number."""
    found = numbers_style(row.texts[0]) if len(row.texts) == 1 and row.is_rewritable else None
    if found is None or found[0].closing:
        return None
    return found[0].opening, found[0].separator


def _free_grammars(rows: Sequence[WorkRow], model: Writer) -> dict[FreeStyle, FreeGrammar]:
    """A grammar for each style of ``rows``: as many numbers and digits as any of its lists has, or
    fewer. Styles that the model has no tokens for are left out."""
    styles: dict[FreeStyle, NumberListStyle] = {}
    most: dict[FreeStyle, int] = defaultdict(int)
    for row in rows:
        if key := _free_style(row):
            found = numbers_style(row.texts[0])
            assert found is not None
            style, count = found
            known = styles.get(key, style)
            styles[key] = replace(style, widest=max(style.widest, known.widest))
            most[key] = max(most[key], count)
    grammars = {}
    for key, style in styles.items():
        with suppress(AuditError):
            automaton, start_of = number_list_grammar(model, style, most[key], may_end_early=True)
            grammars[key] = automaton, start_of(most[key])
    return grammars
