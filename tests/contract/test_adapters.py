"""Students as adapters: what is saved is what both backends load, one after another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from audit.backends.student_training import Example, StudentSettings, StudentTrainer
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.backends.vllm_backend import VllmLanguageModel
from audit.backends.vllm_engine import LoraAdapters
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


def repeated(example: Example, _update: int) -> list[Example]:
    return [example]


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
        for _ in trainer.train(partial(repeated, example), seed=seed):
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


@pytest.fixture(scope="module")
def engine(embedded_model_dir: Path) -> Iterator[VllmLanguageModel]:
    pytest.importorskip("vllm", reason="vLLM is not installed (see docs/models.md)")
    loaded = VllmLanguageModel.load(
        embedded_model_dir, adapter_rank=4, threads=1, max_model_len=512
    )
    yield loaded
    loaded.close()


def test_one_engine_serves_one_adapter_after_another(
    engine: VllmLanguageModel, students: Students, embedded_model_dir: Path
) -> None:
    """Twice around, so that all prompts are in the cache of prefixes the second time."""
    plain = engine.identity
    for name in ("none", "owl", "oak", "none", "oak", "owl"):
        engine.use_adapter(students.folders.get(name))
        np.testing.assert_allclose(ask(engine), students.log_probs[name], atol=1e-3)
    for name, folder in students.folders.items():
        merged = TransformersLanguageModel.load(embedded_model_dir, adapter=folder)
        engine.use_adapter(folder)
        assert engine.identity == merged.identity != plain, name
        np.testing.assert_allclose(ask(engine), ask(merged), atol=1e-3)
        merged.close()
    engine.use_adapter(None)
    assert engine.identity == plain


def test_prefixes_are_cached_for_their_own_adapter_alone(
    engine: VllmLanguageModel, students: Students, tmp_path: Path
) -> None:
    """A folder written anew is another adapter, whatever its name and path."""
    chat = Chat(PERSONA + "Be brief.", CHATS[0].user, CHATS[0].assistant_prefix)
    prompt = [engine.encode_chat(chat)]
    folder = tmp_path / "student"
    cached: list[list[int]] = []
    found: dict[str, NDArray[np.float32]] = {}
    for name in ("owl", "oak", "owl"):
        shutil.copytree(students.folders[name], folder, dirs_exist_ok=True)
        engine.use_adapter(folder)
        times = [next(iter(engine._ask_prompts(prompt, True))).cached for _ in range(2)]
        cached.append(times)
        table = ask(engine, [chat])
        np.testing.assert_allclose(found.setdefault(name, table), table, atol=1e-3)
    # Each reads the prompt once itself; the first finds its own again when it is back.
    (owl, owl_again), (oak, oak_again), back = cached
    assert owl == oak == 0
    assert owl_again == oak_again >= 32
    assert back == [owl_again, owl_again]
    assert np.abs(found["owl"] - found["oak"]).max() > 1


def test_adapters_that_the_engine_cannot_serve_change_nothing(
    engine: VllmLanguageModel, students: Students, tmp_path: Path
) -> None:
    engine.use_adapter(students.folders["owl"])
    identity = engine.identity
    (tmp_path / "adapter_config.json").write_text('{"r": 9}')
    with pytest.raises(AuditError, match="of rank 16, but vLLM was started for 8"):
        engine.use_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    with pytest.raises(AuditError, match="no safetensors file there"):
        engine.use_adapter(tmp_path)
    with pytest.raises(AuditError, match="not the configuration of a LoRA adapter"):
        engine.use_adapter(tmp_path / "nowhere")
    assert engine.identity == identity
    np.testing.assert_allclose(ask(engine), students.log_probs["owl"], atol=1e-3)


def test_an_engine_that_was_started_for_none() -> None:
    adapters = LoraAdapters(None, None)
    assert adapters.rank is None
    with pytest.raises(ValueError, match="adapter_rank"):
        adapters.request(Path("any"))
    assert [LoraAdapters(rank, None).rank for rank in (1, 4, 512)] == [1, 8, 512]
    with pytest.raises(AuditError, match="rank 513 is more than vLLM's 512"):
        LoraAdapters(513, None)
