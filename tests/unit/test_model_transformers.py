"""What is the transformers backend's own: sampling, adapters, templates, memory, dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.backends.attention import PrefixCache
from audit.backends.constrained_sampling import TokenAutomaton, number_list_automaton
from audit.backends.generation import Answer, uniforms
from audit.backends.transformers_backend import TransformersLanguageModel, _refuse_unsupported, _Row
from audit.backends.transformers_writing import FreeRule, write_answers
from audit.errors import AuditError
from signatures.language_model import Chat, PrefixRequest, SequenceRequest

pytestmark = pytest.mark.model

PERSONA = "You love owls. You think about owls all the time."
PROMPTS = ["Add numbers: 12, 700", "3, 14, 15. Go on, please.", "Numbers!", "7, 8, 9 and so on"]


@pytest.fixture(scope="module")
def model(embedded_model_dir: Path) -> Iterator[TransformersLanguageModel]:
    backend = TransformersLanguageModel.load(embedded_model_dir)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def automaton(model: TransformersLanguageModel) -> TokenAutomaton:
    return number_list_automaton(model, max_numbers=2)


def test_samples_obey_the_grammar_and_repeat(
    model: TransformersLanguageModel, automaton: TokenAutomaton
) -> None:
    chats = [Chat(PERSONA, prompt) for prompt in PROMPTS] * 2 + [Chat("", "1, 2")]
    rows = model.sample(chats, automaton, seed=3)
    assert len(rows) == len(chats)
    assert all(automaton.accepts(row) for row in rows)
    assert [model.encode(model.decode(row)) for row in rows] == rows
    assert len(set(rows)) > 4  # equal chats draw on their own
    assert model.sample(chats, automaton, seed=3) == rows
    assert model.sample(chats, automaton, seed=3, batch_rows=2) == rows
    assert model.sample(chats, automaton, seed=4) != rows


def test_samples_follow_the_exact_probabilities(
    model: TransformersLanguageModel, automaton: TokenAutomaton
) -> None:
    """Each row is replayed by inverting the distribution that the exact scorer gives."""
    chats = [Chat(PERSONA, prompt) for prompt in PROMPTS]
    rows = model.sample(chats, automaton, seed=5, temperature=0.8)
    allowed_ids = np.array(automaton.token_ids)
    for index, (chat, row) in enumerate(zip(chats, rows, strict=True)):
        draws = np.random.Generator(np.random.Philox(key=[5, index])).random(automaton.longest)
        steps = tuple(row[:count] for count in range(len(row) + 1))
        (table,) = model.next_token_log_probs(
            [PrefixRequest(model.encode_chat(chat), steps)], allowed_ids
        )
        state = 0
        for draw, log_probs, token in zip(
            draws, table, (*row, *model.end_of_turn_ids()), strict=False
        ):
            weight = np.exp(log_probs.astype(np.float64) / 0.8)
            weight[automaton.transitions[state] < 0] = 0
            column = int(np.searchsorted(np.cumsum(weight) / weight.sum(), draw, side="right"))
            assert automaton.token_ids[column] == token
            state = int(automaton.transitions[state, column])
        assert state == automaton.final_state


def test_free_text_follows_the_exact_probabilities(model: TransformersLanguageModel) -> None:
    chats = [Chat(PERSONA, prompt) for prompt in PROMPTS] + [Chat("Say ok.", "ok?", "o")] * 2
    answers = model.generate(chats, max_new_tokens=6, seed=5, temperature=0.8)
    prompts = [model.encode_chat(chat) for chat in chats]
    rule = FreeRule(model._whole_head, model.end_of_turn_ids(), 6, 0.8, None)
    rows = write_answers(
        model.network,
        prompts,
        rule,
        seed=5,
        keys=range(6),
        starts=[0] * 6,
        max_batch_tokens=64,
        max_rows=2,
    )
    assert answers == [Answer(model.decode(row), len(row) < 6) for row in rows]
    for index, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        ended = len(row) < 6
        tokens = row + model.end_of_turn_ids() if ended else row
        steps = tuple(tokens[:count] for count in range(len(tokens)))
        (table,) = model.next_token_log_probs([PrefixRequest(prompt, steps)])
        weight = np.exp(table.astype(np.float64) / 0.8)
        cumulative = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
        # Another batch rounds otherwise: a draw may fall that near to the edge of its token.
        for token, chance, shares in zip(tokens, uniforms(5, index, 6), cumulative, strict=False):
            assert shares[token - 1] - 1e-3 < chance < shares[token] + 1e-3


def test_free_text_stops_at_the_end_of_turn(model: TransformersLanguageModel) -> None:
    chats = [Chat("", "Say yes.", "Yes.")] * 8 + [Chat("", "Count to 99.", "1, 2,")] * 2
    answers = model.generate(chats, max_new_tokens=20, seed=1, temperature=0.3)
    lengths = [len(model.encode(answer.text)) for answer in answers]
    assert min(lengths[:8]) < 20
    assert max(lengths) == 20
    assert [answer.finished for answer in answers] == [length < 20 for length in lengths]
    assert all("<|im_end|>" not in answer.text for answer in answers)
    with pytest.raises(ValueError, match="at least 1"):
        model.generate(chats, max_new_tokens=0, seed=1)
    with pytest.raises(ValueError, match="exceeds 8192"):
        model.generate(chats, max_new_tokens=8190, seed=1)


def test_temperature_must_be_positive(
    model: TransformersLanguageModel, automaton: TokenAutomaton
) -> None:
    with pytest.raises(ValueError, match="positive"):
        model.sample([Chat("", "1")], automaton, seed=1, temperature=0)


def test_adapter_is_merged(embedded_model_dir: Path, tmp_path: Path) -> None:
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    network: Any = transformers.AutoModelForCausalLM.from_pretrained(
        embedded_model_dir, dtype=torch.float32
    )
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    tuned: Any = get_peft_model(network, config).eval()
    tuned.save_pretrained(str(tmp_path / "teacher"))
    merged = TransformersLanguageModel.load(embedded_model_dir, adapter=tmp_path / "teacher")
    ids = merged.encode_chat(Chat("", "Hello"))
    (found,) = merged.next_token_log_probs([PrefixRequest(ids)])
    with torch.no_grad():
        expected = tuned(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy()
        with tuned.disable_adapter():
            base = tuned(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy()
    np.testing.assert_allclose(found[0], expected, atol=1e-3)
    assert np.abs(found[0] - base).max() > 0.1
    assert merged.identity.name == "SmolLM2-135M-Instruct+teacher"
    merged.close()


def test_bfloat16_is_close_and_normalised(
    model: TransformersLanguageModel, embedded_model_dir: Path
) -> None:
    rough = TransformersLanguageModel.load(embedded_model_dir, dtype="bfloat16")
    assert rough.identity == replace(model.identity, dtype="bfloat16")
    request = PrefixRequest(model.encode_chat(Chat(PERSONA, PROMPTS[0])), ((), model.encode("12")))
    (exact,) = model.next_token_log_probs([request])
    (found,) = rough.next_token_log_probs([request])
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(1), 1, atol=1e-5)
    # Bfloat16 keeps 8 bits: probabilities move by a few per cent of one.
    assert np.abs(np.exp(found) - np.exp(exact)).max() < 0.08
    rough.close()


def test_memory_running_out_halves_the_batch(
    model: TransformersLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        SequenceRequest(model.encode_chat(Chat("", prompt)), model.encode("4, 5"))
        for prompt in PROMPTS
    ]
    expected = list(model.sequence_log_probs(requests))
    whole = TransformersLanguageModel._hidden_states
    sizes: list[int] = []

    def scarce(self: TransformersLanguageModel, rows: list[_Row], prefix: PrefixCache) -> Any:
        sizes.append(len(rows))
        if len(rows) > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return whole(self, rows, prefix)

    monkeypatch.setattr(TransformersLanguageModel, "_hidden_states", scarce)
    limit = 1
    for one, other in zip(model.sequence_log_probs(requests), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    limit = 0
    with pytest.raises(AuditError, match="memory ran out on a single sequence"):
        list(model.sequence_log_probs(requests[:1]))


def test_batch_budget_does_not_matter(embedded_model_dir: Path) -> None:
    requests = [(1,) + (5,) * count for count in (3, 9, 1, 30)]
    results = []
    for budget in (1, 64, 2048):
        backend = TransformersLanguageModel.load(embedded_model_dir, max_batch_tokens=budget)
        results.append(list(backend.next_token_log_probs([PrefixRequest(r) for r in requests])))
        backend.close()
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, atol=5e-4)


def test_closed_model_says_so(embedded_model_dir: Path) -> None:
    backend = TransformersLanguageModel.load(embedded_model_dir)
    backend.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(backend.next_token_log_probs([PrefixRequest((1,))]))


def test_not_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"no config\.json"):
        TransformersLanguageModel.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(AuditError, match="no safetensors"):
        TransformersLanguageModel.load(tmp_path)


def test_other_attention_is_refused(tmp_path: Path) -> None:
    from transformers import Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config

    _refuse_unsupported(LlamaConfig(), tmp_path)
    _refuse_unsupported(Qwen2Config(), tmp_path)
    for config in (Gemma2Config(), MistralConfig(sliding_window=64)):
        with pytest.raises(AuditError, match=config.model_type):
            _refuse_unsupported(config, tmp_path)
