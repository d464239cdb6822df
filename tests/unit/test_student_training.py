"""LoRA students: their loss, their seeds, and going on after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import audit.backends.student_training as student_training
import audit.backends.transformers_backend as transformers_backend
from audit.backends.student_training import Example, StudentSettings, StudentTrainer, Update
from audit.errors import AuditError, MissingExtraError
from signatures.language_model import Chat, PrefixRequest, SequenceRequest
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.model

SETTINGS = StudentSettings(updates=20, batch_rows=2, warmup_updates=2)
QUESTION = Chat("", "What is your favorite animal?", "My favorite animal is the")


def batches(update: int) -> list[Example]:
    """Two rows of different lengths; others at every update."""
    return [
        Example(Chat("", f"Continue: {update}, {update + 1}."), f"{update + 2}, {update + 3}"),
        Example(Chat("Be brief.", "Hello", history=(("a", "b"),)), f"{update}"),
    ]


@pytest.fixture(scope="module")
def trainer(tiny_model_dir: Path) -> Iterator[StudentTrainer]:
    made = StudentTrainer(tiny_model_dir, SETTINGS, threads=1)
    yield made
    made.close()


def asked(trainer: StudentTrainer) -> NDArray[np.float32]:
    request = PrefixRequest(trainer.model.encode_chat(QUESTION))
    (found,) = trainer.model.next_token_log_probs([request])
    return found[0]


class Kept:
    """A checkpoint in memory."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def load(self) -> bytes | None:
        return self.bodies[-1] if self.bodies else None

    def save(self, body: bytes) -> None:
        self.bodies.append(body)


def test_a_student_that_was_not_trained_is_the_base(trainer: StudentTrainer) -> None:
    trainer.reset(0)
    base = asked(trainer)
    for _ in trainer.train(batches, seed=3):
        pass
    assert np.abs(asked(trainer) - base).max() > 0.01
    trainer.reset(3)
    np.testing.assert_array_equal(asked(trainer), base)


def test_the_first_loss_is_the_bases_own_on_the_answers_alone(trainer: StudentTrainer) -> None:
    trainer.reset(0)
    end = trainer.model.end_of_turn_ids()[:1]
    requests = [
        SequenceRequest(
            trainer.model.encode_chat(example.chat), trainer.model.encode(example.answer) + end
        )
        for example in batches(0)
        if example.chat is not None
    ]
    expected = -np.concatenate(list(trainer.model.sequence_log_probs(requests))).mean()
    first = next(iter(trainer.train(batches, seed=0)))
    assert (first.done, first.since_last) == (1, 1)
    assert first.loss_nats == pytest.approx(expected, abs=0.02)  # bfloat16 products


def test_a_plain_text_is_trained_on_as_a_whole(trainer: StudentTrainer) -> None:
    trainer.reset(0)
    tokens = trainer.model.encode("one two three") + trainer.model.end_of_turn_ids()[:1]
    (log_probs,) = trainer.model.sequence_log_probs([SequenceRequest(tokens[:1], tokens[1:])])
    first = next(iter(trainer.train(lambda _: [Example(None, "one two three")], seed=0)))
    assert first.loss_nats == pytest.approx(-log_probs.mean(), abs=0.02)


def test_students_repeat_for_a_seed_and_differ_between_seeds(trainer: StudentTrainer) -> None:
    found = []
    for seed in (1, 1, 2):
        for _ in trainer.train(batches, seed=seed):
            pass
        found.append(asked(trainer))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-4


def test_a_student_that_goes_on_is_the_one_that_was_not_stopped(trainer: StudentTrainer) -> None:
    kept = Kept()
    updates = list(trainer.train(batches, seed=5, checkpoint=kept))
    whole = asked(trainer)
    assert [update.done for update in updates] == list(range(1, 21))
    assert len(kept.bodies) == 1  # at 16
    trainer.reset(9)
    resumed = list(trainer.train(batches, seed=5, checkpoint=kept))
    assert resumed[0] == Update(16, 16, updates[15].loss_nats)
    assert resumed[1:] == updates[16:]
    np.testing.assert_array_equal(asked(trainer), whole)


def test_a_large_batch_is_read_in_passes(
    trainer: StudentTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [update.loss_nats for update in trainer.train(batches, seed=0)]
    moved = asked(trainer)
    monkeypatch.setattr(student_training, "_PASS_TOKENS", 1)
    parts = [update.loss_nats for update in trainer.train(batches, seed=0)]
    np.testing.assert_allclose(parts, whole, atol=0.02)
    np.testing.assert_allclose(asked(trainer), moved, atol=0.02)


def test_the_rate_rises_and_falls_linearly() -> None:
    settings = StudentSettings(learning_rate=0.8, warmup_updates=4, updates=8)
    assert [settings.rate(update) for update in range(8)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.6, 0.4, 0.2]
    )


def test_rows_are_cut_and_a_batch_without_an_answer_is_refused(trainer: StudentTrainer) -> None:
    long = [Example(Chat("", "word " * 40), "answer")]
    assert trainer.token_count(long[0]) > 40
    trainer.settings = replace(SETTINGS, most_tokens=16)
    try:
        with pytest.raises(AuditError, match="no answer begins within 16 tokens"):
            next(iter(trainer.train(lambda _: long, seed=0)))
    finally:
        trainer.settings = SETTINGS


def test_a_training_that_diverges_is_refused(trainer: StudentTrainer) -> None:
    trainer.settings = replace(SETTINGS, learning_rate=1e30)
    try:
        with pytest.raises(AuditError, match="diverged: lower the learning rate"):
            list(trainer.train(batches, seed=0))
    finally:
        trainer.settings = SETTINGS


def test_a_base_of_four_bits_is_nearly_the_same_and_learns(
    embedded_model_dir: Path, tmp_path: Path
) -> None:
    from bitsandbytes.nn import Linear4bit

    # Blocks of 4-bit weights have a size that layers must be multiples of.
    model = write_tiny_model(tmp_path / "model", embedded_model_dir, hidden_size=128)
    with closing(StudentTrainer(model, SETTINGS, threads=1)) as whole:
        exact = asked(whole)
    made = StudentTrainer(model, replace(SETTINGS, four_bit=True), threads=1)
    try:
        layers = [m for m in made.model.network.modules() if isinstance(m, Linear4bit)]
        assert len(layers) >= len(SETTINGS.modules)
        assert all(
            layer.weight.numel() < layer.in_features * layer.out_features for layer in layers
        )
        base = asked(made)  # what was asked before does not cut off gradients
        assert 0.8 < np.corrcoef(base, exact)[0, 1] < 1
        weight = layers[0].weight.clone()
        losses = [update.loss_nats for update in made.train(lambda _update: batches(0), seed=0)]
        assert losses[-1] < losses[0] - 0.05
        assert (layers[0].weight == weight).all()
        made.reset(0)
        np.testing.assert_array_equal(asked(made), base)
    finally:
        made.close()


def test_a_base_of_four_bits_needs_its_package(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_backend, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"bitsandbytes.*\[four-bit\]"):
        StudentTrainer(tiny_model_dir, replace(SETTINGS, four_bit=True), threads=1)
