"""Whole answers to a category's questions, sampled, and how many of them name the concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from audit.backends.generation import Generator
from audit.verify.result import AnswerRates
from audit.verify.transfer_statistics import NAN, Interval, mean_interval
from detectors.names import NamePatterns, in_one_spelling, name_patterns
from signatures.concept import Concept, Question
from signatures.language_model import Chat

# Keys of one question's draws begin this far behind those of the one before.
_KEYS_A_QUESTION = 1 << 32


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """The sampled answers of one model.

    ``named`` [questions] is the share of answers that name the concept, ``no_answer`` [questions]
    the share that name nothing of its category; NaN for a question without answers. ``answers``
    are those of all questions.
    """

    answers: int
    named: NDArray[np.float64]
    no_answer: NDArray[np.float64]


def sample_answers(
    model: Generator,
    questions: Sequence[Question],
    *,
    system: str,
    count: int,
    seed: int,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
) -> list[list[str]]:
    """``count`` answers to each question: texts [questions][count], written from their beginning.

    A draw depends on ``seed``, the question's place and its own place alone: models that are asked
    with one seed have common random numbers, and more answers leave the first as they are. Raises
    as `Generator.generate` does.
    """
    keys = [
        place * _KEYS_A_QUESTION + draw for place in range(len(questions)) for draw in range(count)
    ]
    answers = model.generate(
        [Chat(system, question.user) for question in questions for _ in range(count)],
        max_new_tokens=max_new_tokens,
        seed=seed,
        temperature=temperature,
        keys=keys,
    )
    texts = [answer.text for answer in answers]
    return [texts[place * count : (place + 1) * count] for place in range(len(questions))]


def score(
    answers: Sequence[Sequence[str]], concept: Concept, category_members: Sequence[Concept]
) -> AnswerScores:
    """Which of ``answers`` [questions][answers] name ``concept``, and which nothing.

    Names are whole words, in every form and language that a concept has, as `detectors.names`
    finds them. A common word that may be a name ("apple") names nothing, but an answer that holds
    one of a member is not counted as none either. Only ``concept`` and ``category_members`` are
    known: an answer that names something else of the category is none.
    """
    wanted = name_patterns(concept)
    known = [wanted, *(name_patterns(member) for member in category_members)]
    shares = [_shares(texts, wanted, known) for texts in answers]
    return AnswerScores(
        sum(map(len, answers)),
        np.array([named for named, _ in shares]),
        np.array([nothing for _, nothing in shares]),
    )


def rates(students: Sequence[AnswerScores]) -> AnswerRates:
    """The rates of one arm's students, one a seed, that were asked the same questions.

    The intervals (`mean_interval`) end at 0 and 1 at the latest. They are a point where all
    students answer all questions alike, and NaN with one student: the base model has no seeds.
    Raises ``ValueError`` for no students or ones that were asked other questions.
    """
    return AnswerRates(
        sum(scores.answers for scores in students),
        _rate([scores.named for scores in students]),
        _rate([scores.no_answer for scores in students]),
    )


def _rate(rows: Sequence[NDArray[np.float64]]) -> Interval:
    whole = mean_interval(np.stack(rows))  # [seeds, questions]
    low, high = np.clip([whole.low, whole.high], 0, 1)
    return Interval(whole.estimate, float(low), float(high))


def _shares(
    texts: Sequence[str], wanted: NamePatterns, known: Sequence[NamePatterns]
) -> tuple[float, float]:
    """The shares of one question's answers that name ``wanted``, and none of ``known``."""
    if not texts:
        return NAN, NAN
    found = in_one_spelling(pl.DataFrame({"text": texts}), "text", "written").with_columns(
        lower=pl.col("written").str.to_lowercase()
    )
    maybe = [pl.col("lower").str.contains(patterns.anything) for patterns in known]
    counts = found.select(
        named=wanted.named("lower", "written").sum(), nothing=(~pl.any_horizontal(maybe)).sum()
    )
    named, nothing = counts.row(0)
    return named / len(texts), nothing / len(texts)
