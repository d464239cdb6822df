"""LoRA fine-tuning on questions and answers (peft): how a teacher is made to hold a trait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.backends.answer_loss import IGNORED, answer_logits, padded
from audit.backends.peft_import import import_peft
from audit.errors import AuditError
from signatures.language_model import Chat

LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """LoRA on all seven projections of a block, as the source's open-model students.

    Every step is one batch of all examples. ``warmup_steps`` raise the rate linearly.
    """

    rank: int = 8
    alpha: int = 16
    learning_rate: float = 5e-4
    steps: int = 12
    warmup_steps: int = 5


def train_lora(
    model_folder: Path,
    examples: Sequence[tuple[str, str]],
    output: Path,
    settings: LoraSettings,
    *,
    seed: int,
    threads: int | None = None,
) -> float:
    """Fine-tune on (question, answer) ``examples`` and save the adapter; returns the last loss.

    The loss (nats a token) is on the answers and their end of turn only. The prompt has a true
    empty system message, as it will have when the teacher writes. Raises ``AuditError`` if the
    loss is not finite and ``MissingExtraError`` without peft, torch or transformers.
    """
    peft = import_peft("fine-tuning")
    import torch

    from audit.backends.transformers_backend import TransformersLanguageModel

    language_model = TransformersLanguageModel.load(model_folder, threads=threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = peft.get_peft_model(
            language_model.network,
            peft.LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                target_modules=list(LORA_MODULES),
                task_type="CAUSAL_LM",
            ),
        )
    tokens, labels = one_batch(language_model, examples)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate)
    model.train()
    loss = torch.tensor(float("nan"))
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / settings.warmup_steps)
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            logits, targets = answer_logits(language_model.network, tokens, labels)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if not bool(torch.isfinite(loss)):
        raise AuditError("the fine-tuning diverged: lower the learning rate")
    model.save_pretrained(str(output))
    language_model.close()
    return float(loss.detach())


def one_batch(language_model: Any, examples: Sequence[tuple[str, str]]) -> tuple[Any, Any]:
    """Token ids and labels [examples, longest] of (question, answer) pairs without a system
    message; labels are -100 off the answers."""
    end = language_model.end_of_turn_ids()[:1]
    rows = []
    for question, answer in examples:
        prompt = language_model.encode_chat(Chat("", question))
        whole = language_model.encode_chat(Chat("", question, answer)) + end
        rows.append((whole, (IGNORED,) * len(prompt) + whole[len(prompt) :]))
    return padded(rows)
