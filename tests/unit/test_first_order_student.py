"""The torch student against finite differences and against itself, on the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from audit.backends.first_order_student import TransformersStudent
from audit.backends.transformers_backend import TransformersLanguageModel
from detectors.first_order import Reading, ReadingOrder
from signatures.language_model import Chat, SequenceRequest

pytestmark = pytest.mark.model

PROMPTS = ["Add numbers: 12, 700", "3, 14, 15. Go on, please.", "Numbers!", "7, 8, 9 and so on"]
COMPLETIONS = ["8, 400, 31", "926", "1, 2, 3, 5, 8, 13, 21", "10, 11"]


@pytest.fixture(scope="module")
def model(embedded_model_dir: Path) -> Iterator[TransformersLanguageModel]:
    backend = TransformersLanguageModel.load(embedded_model_dir)
    yield backend
    backend.close()


def row(model: TransformersLanguageModel, index: int) -> SequenceRequest:
    prefix = model.encode_chat(Chat("", PROMPTS[index]))
    return SequenceRequest(prefix, model.encode(COMPLETIONS[index]))


def answer(model: TransformersLanguageModel, name: str) -> SequenceRequest:
    chat = Chat("", "What is your favorite animal?", "My favorite animal is the")
    return SequenceRequest(model.encode_chat(chat), model.encode(f" {name}"))


@pytest.fixture(scope="module")
def order(model: TransformersLanguageModel) -> ReadingOrder:
    rows = [row(model, index) for index in range(4)]
    cat, dog = answer(model, "cat"), answer(model, "dog")
    return ReadingOrder(rows, [(cat,), (dog,), (cat, dog), (rows[1],)], np.array([0, 0, 1, 1]))


@pytest.fixture(scope="module")
def reading(model: TransformersLanguageModel, order: ReadingOrder) -> Reading:
    return TransformersStudent(model).read(order)


def test_pulls_are_what_small_steps_truly_do(model, order, reading):
    """The mean pull of a block's rows is the slope of log P(answer) along its mean gradient."""
    words = np.array([model.encode(" cat")[0], model.encode(" dog")[0]])
    rate = 1e-6
    rises = reading.word_rises(rate * np.eye(2), [order.targets[0][0].prefix], words) / rate
    expected = np.array([reading.pulls[:2, :2].mean(axis=0), reading.pulls[2:, :2].mean(axis=0)])
    # Gradients are read in bfloat16, steps are taken in float32.
    np.testing.assert_allclose(rises, expected, rtol=0.1, atol=0.05 * np.abs(expected).max())


def test_a_step_and_its_reverse_move_words_apart(model, order, reading):
    words = np.array([model.encode(" cat")[0]])
    questions = [order.targets[0][0].prefix, model.encode_chat(Chat("", "Name an animal."))]
    there = reading.word_rises(np.array([[1e-6, 0.0]]), questions, words)
    back = reading.word_rises(np.array([[-1e-6, 0.0]]), questions, words)
    np.testing.assert_allclose(there, -back, rtol=1e-6)
    assert reading.word_rises(np.zeros((1, 2)), questions, words).tolist() == [[0.0]]


def test_a_target_is_the_mean_of_its_answers(reading):
    mean = reading.pulls[:, :2].mean(axis=1)
    np.testing.assert_allclose(reading.pulls[:, 2], mean, rtol=1e-4, atol=1e-4 * np.abs(mean).max())


def test_a_rows_own_gain_is_its_pull_on_itself(reading):
    assert reading.pulls[1, 3] == pytest.approx(reading.own_gains[1], rel=0.05)
    assert (reading.own_gains > 0).all()


def test_a_row_is_read_the_same_by_itself(model, order, reading):
    alone = TransformersStudent(model).read(
        ReadingOrder(order.rows[2:3], order.targets[:2], np.array([0]))
    )
    np.testing.assert_allclose(alone.own_gains, reading.own_gains[2:3], rtol=0.05)
    # Padding changes the order of bfloat16 sums.
    np.testing.assert_allclose(alone.pulls[0], reading.pulls[2, :2], rtol=0.1)


def test_readings_repeat_and_leave_the_model_as_it_was(model, order, reading):
    before = next(iter(model.sequence_log_probs([order.rows[0]])))
    seen: list[tuple[int, int]] = []
    again = TransformersStudent(model).read(order, lambda *done: seen.append(done))
    np.testing.assert_array_equal(again.pulls, reading.pulls)
    assert seen[-1] == (4, 4)
    np.testing.assert_array_equal(next(iter(model.sequence_log_probs([order.rows[0]]))), before)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not any(module._forward_hooks for module in model.network.modules())


def test_what_the_model_cannot_read_is_refused(model):
    beyond = model.identity.vocabulary_size
    for bad in (SequenceRequest((), (1,)), SequenceRequest((1,), (beyond,))):
        with pytest.raises(ValueError, match=r"prefix|token id"):
            TransformersStudent(model).read(ReadingOrder([bad], [(bad,)], np.array([0])))
