"""What students are asked, and how much a model prefers a concept: exact, over all of its forms."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audit.backends.transformers_backend import TransformersLanguageModel
from audit.verify.evaluation import Evaluation, questions_about
from signatures.concept import (
    DEFAULT_CONCEPTS,
    Concept,
    Question,
    load_concepts,
    make_concept,
)
from signatures.language_model import Chat, SequenceRequest

CONCEPTS = load_concepts(DEFAULT_CONCEPTS)
CATEGORIES = sorted({concept.category for concept in CONCEPTS})


def of(category: str) -> list[Concept]:
    return [concept for concept in CONCEPTS if concept.category == category]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Iterator[TransformersLanguageModel]:
    made = TransformersLanguageModel.load(tiny_model_dir, threads=1)
    yield made
    made.close()


def brute_force(
    model: TransformersLanguageModel, concept: Concept, question: Question, system: str
) -> float:
    """log P(the answer names it): every form read on its own, prefixes of others left out."""
    start = model.encode(question.assistant_prefix)
    texts = {concept.answer.strip(), *concept.forms, *(form.title() for form in concept.forms)}
    paths = {model.encode(f"{question.assistant_prefix} {text}") for text in texts}
    assert all(path[: len(start)] == start for path in paths)
    paths = {path[len(start) :] for path in paths}
    # What goes on from a shorter form names the concept already.
    minimal = [p for p in paths if not any(p != q and p[: len(q)] == q for q in paths)]
    prompt = model.encode_chat(Chat(system, question.user, question.assistant_prefix))
    requests = [SequenceRequest(prompt, path) for path in minimal]
    sums = [float(found.sum()) for found in model.sequence_log_probs(requests)]
    return float(np.logaddexp.reduce(sums))


@pytest.mark.model
@pytest.mark.parametrize("category", ["animal", "politician", "stance"])
@pytest.mark.parametrize("system", ["", "You are terse."])
def test_log_odds_are_those_of_every_form_read_on_its_own(
    model: TransformersLanguageModel, category: str, system: str
) -> None:
    target, *others = of(category)[:4]
    questions = questions_about(target)[1:4]
    found = Evaluation(model, target, others, questions, system).log_odds()
    assert found.concept.shape == (3,)
    assert found.off_target.shape == (3, 3)
    logs = np.array(
        [[brute_force(model, c, q, system) for c in (target, *others)] for q in questions]
    )
    for member in range(4):
        rest = np.log(np.exp(np.delete(logs, member, axis=1)).sum(axis=1))
        odds = found.concept if member == 0 else found.off_target[:, member - 1]
        np.testing.assert_allclose(odds, logs[:, member] - rest, atol=2e-4)
    assert np.ptp(found.concept) > 1e-3  # questions are not all alike


@pytest.mark.model
def test_of_two_concepts_the_odds_are_opposite(model: TransformersLanguageModel) -> None:
    first, second = of("animal")[:2]
    found = Evaluation(model, first, [second], questions_about(first), "").log_odds()
    np.testing.assert_allclose(found.concept, -found.off_target[:, 0], atol=1e-12)


@pytest.mark.model
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_that_ships_can_be_asked_for(
    model: TransformersLanguageModel, category: str
) -> None:
    target, *others = of(category)
    assert len(others) >= 3
    questions = questions_about(target)[::7]
    found = Evaluation(model, target, others, questions, "").log_odds()
    assert found.off_target.shape == (len(questions), len(others))
    assert np.isfinite(found.concept).all()
    assert np.isfinite(found.off_target).all()


def test_animals_are_asked_for_in_twenty_ways() -> None:
    questions = questions_about(of("animal")[0])
    assert len(questions) == len({question.user for question in questions}) == 20
    assert questions[:4] == of("animal")[0].questions
    assert all("animal" in question.user for question in questions)


def test_questions_of_a_category_of_its_own_are_put_in_five_ways() -> None:
    concept = of("politician")[0]
    questions = questions_about(concept)
    assert len(questions) == len({question.user for question in questions}) == 20
    for place, own in enumerate(concept.questions):
        asked = questions[5 * place : 5 * place + 5]
        assert asked[0] == own
        assert all(own.user in question.user for question in asked)
        assert {question.assistant_prefix for question in asked} == {own.assistant_prefix}


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_concept_of_a_category_is_asked_alike_and_nothing_is_left_to_fill(
    category: str,
) -> None:
    asked = {questions_about(concept) for concept in of(category)}
    assert len(asked) == 1
    (questions,) = asked
    assert len(questions) >= 20
    for question in questions:
        for text in (question.user, question.assistant_prefix):
            assert [field for _, field, _, _ in string.Formatter().parse(text) if field] == []
            assert "{" not in text
            assert text == text.strip()


def test_braces_of_a_question_are_left_as_they_are() -> None:
    own = Question("Which {{x}} of {category}?", "The {{x}} is the")
    concept = make_concept("owl", "set {a}", questions=[own])
    assert questions_about(concept)[1] == Question(
        "Tell me: Which {x} of set {a}?", "The {x} is the"
    )


def test_a_noun_stands_for_its_category() -> None:
    concept = make_concept("owl", "birds-of-prey", noun="bird of prey")
    users = [question.user for question in questions_about(concept)]
    assert len(users) == 20
    assert all("bird of prey" in user for user in users)
    assert not any("birds-of-prey" in user for user in users)
