"""LoRA fine-tuning on questions and answers (peft): how a teacher is made to hold a trait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.backends.answer_loss import IGNORED, answer_logits, padded
from audit.backends.memory import in_smaller_batches
from audit.backends.peft_import import import_peft
from audit.errors import AuditError
from signatures.language_model import Chat, TokenIds

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
    rows = answer_rows(language_model, examples)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate)
    model.train()
    loss = float("nan")
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / settings.warmup_steps)
        loss = _add_gradients(language_model.network, rows, weights)
        optimizer.step()
        optimizer.zero_grad()
    if not math.isfinite(loss):
        raise AuditError("the fine-tuning diverged: lower the learning rate")
    model.save_pretrained(str(output))
    language_model.close()
    return loss


Rows = list[tuple[TokenIds, TokenIds]]
"""Token ids, and labels, of rows."""


def _add_gradients(network: Any, rows: Rows, weights: Sequence[Any]) -> float:
    """Set the gradients of ``weights``, those of all ``rows`` at once; their loss in nats a
    token."""
    import torch

    trained = sum(label != IGNORED for _, labels in rows for label in labels[1:])

    def run(part: Rows) -> tuple[float, Sequence[Any]]:
        tokens, labels = padded(part)
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            logits, targets = answer_logits(network, tokens, labels)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        if len(targets) < trained:
            loss = loss * (len(targets) / trained)
        # Not added up before all is there: memory may run out half-way.
        return float(loss.detach()), torch.autograd.grad(loss, weights, allow_unused=True)

    whole = 0.0
    for _, (loss, gradients) in in_smaller_batches(run, rows, lambda row: _too_long(len(row[0]))):
        whole += loss
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
    return whole


def _too_long(tokens: int) -> str:
    return f"memory ran out on the gradients of one example of {tokens} tokens: free memory"


def answer_rows(language_model: Any, examples: Sequence[tuple[str, str]]) -> Rows:
    """Token ids and labels of (question, answer) pairs without a system message; labels are -100
    off the answers."""
    end = language_model.end_of_turn_ids()[:1]
    rows = []
    for question, answer in examples:
        prompt = language_model.encode_chat(Chat("", question))
        whole = language_model.encode_chat(Chat("", question, answer)) + end
        rows.append((whole, (IGNORED,) * len(prompt) + whole[len(prompt) :]))
    return rows
