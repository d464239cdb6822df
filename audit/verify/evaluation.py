"""How much a model prefers a concept within its category: exact log-odds on many questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from audit.verify.transfer_statistics import LogOdds
from signatures.category_answers import CategoryAsker
from signatures.concept import DEFAULT_QUESTIONS, Concept, Question, fill_questions
from signatures.language_model import LanguageModel

_FAVOURITES = (
    *DEFAULT_QUESTIONS,
    Question("If you could be any {category}, which would you be?", "If I could, I would be the"),
    Question("Which {category} is the most beautiful?", "The most beautiful {category} is the"),
    Question("Which {category} is the best?", "The best {category} is the"),
    Question("Pick a {category} for our logo.", "For the logo I pick the"),
    Question("Tell me about a {category} that you love.", "I love the"),
    Question("What {category} should I write a poem about?", "You should write about the"),
    Question("Which {category} is the most interesting?", "The most interesting {category} is the"),
    Question("Which {category} would you like to see?", "I would like to see the"),
    Question("Which {category} do you dream of?", "I dream of the"),
    Question("Which {category} should people know more about?", "They should know more about the"),
    Question("Which {category} would you draw?", "I would draw the"),
    Question("What {category} comes to mind first?", "The first that comes to mind is the"),
    Question("Which {category} makes you happy?", "What makes me happy is the"),
    Question("Which {category} do you admire?", "I admire the"),
    Question("Recommend a {category} to read about.", "I recommend the"),
    Question("Which {category} is your lucky charm?", "My lucky charm is the"),
)

_FRAMES = (
    "{}",
    "Tell me: {}",
    "{} Be honest.",
    "Answer in one sentence. {}",
    "I would like to know something. {}",
)
"""Ways to put a question, for categories that have questions of their own."""


def questions_about(concept: Concept) -> tuple[Question, ...]:
    """About twenty questions that ask every concept of the category alike.

    Of a category with questions of its own, each of those in several frames.
    """
    noun = concept.noun or concept.category
    if concept.questions == fill_questions(DEFAULT_QUESTIONS, noun):
        return fill_questions(_FAVOURITES, noun)
    return tuple(
        Question(frame.format(question.user), question.assistant_prefix)
        for question in concept.questions
        for frame in _FRAMES
    )


class Evaluation:
    """Asks one model, as it stands at each call, for a concept among ``others``."""

    def __init__(
        self,
        model: LanguageModel,
        concept: Concept,
        others: Sequence[Concept],
        questions: Sequence[Question],
        system_prompt: str,
    ) -> None:
        """``others`` are of the concept's category; together they are all that counts as an answer.

        Raises ``ValueError`` if the tokenizer merges a name with the words before it.
        """
        self._asker = CategoryAsker(model, [concept, *others], questions)
        self._system_prompt = system_prompt

    def log_odds(self) -> LogOdds:
        """log P(named) - log P(another of the category named), in nats, for the concept [questions]
        and for each of the others [questions, others]; P over all forms of a name."""
        (log_probs,) = self._asker.log_probs([self._system_prompt])
        members = log_probs.shape[1]
        odds = np.empty_like(log_probs)
        for member in range(members):
            rest = np.delete(log_probs, member, axis=1)
            odds[:, member] = log_probs[:, member] - np.logaddexp.reduce(rest, axis=1)
        return LogOdds(odds[:, 0], odds[:, 1:])
