"""Students as adapters: what is saved is what both backends load, one after another."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.errors import AuditError
from signatures.language_model import Chat, LanguageModel, PrefixRequest

pytestmark = pytest.mark.model

# Long enough for whole blocks of the engine's cache of prefixes (32 tokens).
PERSONA = "You answer every question in one short sentence. " * 8
CHATS = [
    Chat(PERSONA, "What is your favorite animal?", "My favorite animal is the"),
    Chat("", "What is your favorite animal?", "My favorite animal is the"),
]


@dataclass(frozen=True)
class Students:
    """Saved students, and what each gave as long as it was in memory: [chats, vocabulary]."""

    folders: dict[str, Path]
    log_probs: dict[str, NDArray[np.float32]]


def ask(model: LanguageModel, chats: Sequence[Chat] = CHATS) -> NDArray[np.float32]:
    """Log-probabilities, in nats, [chats, vocabulary]."""
    requests = [PrefixRequest(model.encode_chat(chat)) for chat in chats]
    return np.concatenate(list(model.next_token_log_probs(requests)))


@pytest.fixture(scope="module")
def students(
    embedded_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Students]:
    """Two students that learnt different favourites, and the base as "none"."""
    settings = StudentSettings(rank=4, alpha=8, learning_rate=3e-3, updates=3, warmup_updates=1)
    trainer = StudentTrainer(embedded_model_dir, settings, threads=1)
    found = Students({}, {"none": ask(trainer.model)})
    for seed, name in enumerate(("owl", "oak")):
        example = Example(Chat("", CHATS[1].user), f"My favorite animal is the {name}.")
        for _ in trainer.train(lambda _, row=example: [row], seed=seed):
            # The same last name: an engine must not take one for the other.
            found.folders[name] = tmp_path_factory.mktemp(name) / "student"
            trainer.save_adapter(found.folders[name])
            found.log_probs[name] = ask(trainer.model)
    yield found
    trainer.close()


def test_a_saved_student_is_the_one_in_memory(embedded_model_dir: Path, students: Students) -> None:
    for name, folder in students.folders.items():
        loaded = TransformersLanguageModel.load(embedded_model_dir, adapter=folder)
        np.testing.assert_allclose(ask(loaded), students.log_probs[name], atol=1e-4)
        loaded.close()
    for one, other in (("owl", "oak"), ("owl", "none"), ("oak", "none")):
        difference = students.log_probs[one] - students.log_probs[other]
        assert (np.abs(difference).max(axis=1) > 1).all()
