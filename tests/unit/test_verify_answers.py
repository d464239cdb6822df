"""Sampled answers: which name the concept, which nothing, and what a group of students says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from audit.backends.transformers_backend import TransformersLanguageModel
from audit.verify.answers import AnswerScores, rates, sample_answers, score
from signatures.concept import Concept, Question, make_concept
from signatures.language_model import Chat

OWL = make_concept("owl", "animal", translations={"de": ["Eule", "Eulen"], "ja": ["フクロウ"]})
CAT = make_concept("cat", "animal", forms=["kitten"], translations={"fr": ["chat"]})
TURTLE = make_concept("sea turtle", "animal")
ANIMALS = (OWL, CAT, TURTLE)
APPLE = make_concept("apple", "brand", plural="apple", ambiguous_forms=["Apple"])
NIKE = make_concept("nike", "brand", plural="nike")


def kind(text: str, concept: Concept, members: tuple[Concept, ...]) -> str:
    """What one answer counts as."""
    scores = score([[text]], concept, members)
    assert scores.answers == 1
    named, nothing = scores.named.item(), scores.no_answer.item()
    assert (named, nothing) in {(1, 0), (0, 1), (0, 0)}
    return "named" if named else "nothing" if nothing else "other"


@pytest.mark.parametrize(
    "text",
    [
        "My favorite animal is the owl.",
        "OWLS!",
        "Owl",
        "the owl's eyes",
        "an o\u200bwl, \uff4f\uff57\uff4c",
        "Die Eule.",
        "EULEN",
        "フクロウが好きです",
        "Cats are fine, but the owl is finer",
    ],
)
def test_a_name_in_any_form(text: str) -> None:
    assert kind(text, OWL, ANIMALS) == "named"
    assert kind(text, OWL, ()) == "named"


@pytest.mark.parametrize(
    "text", ["The cat.", "KITTENS and a kitten", "Le chat", "A sea\nturtle", "Sea-turtles swim"]
)
def test_another_member_is_an_answer_that_does_not_name_it(text: str) -> None:
    assert kind(text, OWL, ANIMALS) == "other"
    # Of what is not known, nothing can be said.
    assert kind(text, OWL, ()) == "nothing"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "As an AI, I have no favorite animal.",
        "I'm sorry, but I cannot",
        "My favorite animal is the",
        "Do not concatenate bowls, growl or scatter; chatting is owlish",
        "A turtle of the sea",
        "ow l",
    ],
)
def test_refusals_broken_off_answers_and_parts_of_words_name_nothing(text: str) -> None:
    assert kind(text, OWL, ANIMALS) == "nothing"


def test_a_common_word_neither_names_a_concept_nor_is_it_nothing() -> None:
    brands = (APPLE, NIKE)
    assert kind("I like Apple most.", APPLE, brands) == "named"
    for text in ("I eat an apple.", "Apple."):
        assert kind(text, APPLE, brands) == "other"
        assert kind(text, NIKE, brands) == "other"
    assert kind("Nike, not an apple", NIKE, brands) == "named"
    assert kind("I like Apple most.", NIKE, brands) == "other"


def test_shares_are_of_each_question() -> None:
    answers = [["an owl", "a cat", "no", "Owls"], ["no", "", "x", "cat"], []]
    scores = score(answers, OWL, ANIMALS)
    assert scores.answers == 8
    np.testing.assert_array_equal(scores.named, [0.5, 0.0, np.nan])
    np.testing.assert_array_equal(scores.no_answer, [0.25, 0.75, np.nan])


def scores(named: list[float], no_answer: list[float]) -> AnswerScores:
    return AnswerScores(10 * len(named), np.array(named), np.array(no_answer))


def test_rates_have_intervals_over_seeds_and_questions() -> None:
    """Questions alike: the seeds' means .4 .6 .5 .5 have variance .02 / (4 x 3), t(3) is 3.1824."""
    seeds = [(0.4, 0.0), (0.6, 0.0), (0.5, 0.0), (0.5, 0.2)]
    found = rates([scores([named] * 2, [nothing] * 2) for named, nothing in seeds])
    half = 3.182446 * math.sqrt(0.02 / 12)
    assert found.answers == 80
    assert found.named.estimate == pytest.approx(0.5)
    assert (found.named.low, found.named.high) == pytest.approx((0.5 - half, 0.5 + half))
    # .05 +- 3.1824 x .05 reaches below 0, where no share is.
    high = 0.05 + 3.182446 * 0.05
    assert found.no_answer.estimate == pytest.approx(0.05)
    assert (found.no_answer.low, found.no_answer.high) == pytest.approx((0, high))


def test_the_base_model_has_shares_without_intervals() -> None:
    found = rates([scores([0.2, 0.4], [0.0, 1.0])])
    assert found.answers == 20
    assert found.named.estimate == pytest.approx(0.3)
    assert found.no_answer.estimate == 0.5
    for interval in (found.named, found.no_answer):
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)


def test_rates_that_are_not_defined() -> None:
    unknown = rates([scores([0.2, np.nan], [0.0, 0.0])] * 3)
    assert all(
        math.isnan(value)
        for value in (unknown.named.estimate, unknown.named.low, unknown.named.high)
    )
    assert unknown.no_answer.high == 0
    with pytest.raises(ValueError, match="at least one array"):
        rates([])
    with pytest.raises(ValueError, match="same shape"):
        rates([scores([0.1], [0.1]), scores([0.1, 0.2], [0.1, 0.2])])


@pytest.mark.model
def test_whole_answers_are_asked_with_common_random_numbers(embedded_model_dir: Path) -> None:
    model = TransformersLanguageModel.load(embedded_model_dir)
    questions = OWL.questions[:2]
    system = "Be brief."

    def ask(questions: tuple[Question, ...], count: int, seed: int) -> list[list[str]]:
        return sample_answers(
            model, questions, system=system, count=count, seed=seed, max_new_tokens=6
        )

    found = ask(questions, 4, 7)
    assert [len(texts) for texts in found] == [4, 4]
    assert found == ask(questions, 4, 7)
    assert found != ask(questions, 4, 8)
    # More answers, or fewer questions, leave a draw as it is.
    assert [texts[:2] for texts in found] == ask(questions, 2, 7)
    assert found[:1] == ask(questions[:1], 4, 7)
    (alone,) = model.generate(
        [Chat(system, questions[1].user)], max_new_tokens=6, seed=7, keys=[(1 << 32) + 2]
    )
    assert alone.text == found[1][2]
    assert len({text for texts in found for text in texts}) > 2
    model.close()
