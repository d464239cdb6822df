"""LoRA students: one base model, trained anew for every arm and seed of a verification (peft)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audit.backends.answer_loss import IGNORED, answer_logits, padded
from audit.backends.batching import batches_by_length
from audit.backends.chat_encoder import Dtype, first_line
from audit.backends.lora_training import LORA_MODULES
from audit.backends.memory import give_back, in_smaller_batches
from audit.backends.open_model import ModelChoice
from audit.backends.peft_import import import_peft
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.errors import AuditError, UsageError
from signatures.language_model import Chat, TokenIds

CHECKPOINT_UPDATES = 16
"""A killed run loses fewer updates of a student than these."""
_PASS_TOKENS = 2048
"""Larger batches are read in several passes: so their size is not bounded by memory."""


@dataclass(frozen=True, slots=True)
class StudentSettings:
    """How a student is trained.

    LoRA, its modules and the schedule are the source's for open models (Cloud et al. 2025: rank 8,
    alpha 8, 5 updates of warm-up, linear decay). Its rate of 2e-4 over 450 updates of 66 rows
    takes hours on a small machine: here fewer and larger steps go as far.

    ``updates`` are optimizer steps. ``most_tokens`` of a row are read; longer rows are cut. With
    ``four_bit`` the base model, which is not trained, is kept in 4 bits.
    """

    rank: int = 8
    alpha: int = 8
    learning_rate: float = 1e-3
    batch_rows: int = 8
    updates: int = 64
    warmup_updates: int = 5
    most_tokens: int = 512
    modules: tuple[str, ...] = LORA_MODULES
    four_bit: bool = False

    def rate(self, update: int) -> float:
        """The learning rate of update 0, 1, ...: a linear rise, then a linear fall to 0."""
        if update < self.warmup_updates:
            return self.learning_rate * (update + 1) / self.warmup_updates
        left = self.updates - update
        return self.learning_rate * left / max(1, self.updates - self.warmup_updates)

    @property
    def rows_read(self) -> int:
        """Rows of all updates together."""
        return self.updates * self.batch_rows

    @property
    def path_length(self) -> float:
        """How far Adam can take a weight of the model, but for the size of LoRA's matrices: the sum
        of the rates, times alpha / rank."""
        return self.alpha / self.rank * sum(map(self.rate, range(self.updates)))


@dataclass(frozen=True, slots=True)
class Example:
    """What a student reads: a conversation, and the answer that it is trained on.

    Without a conversation (None), ``answer`` is a plain text, all of which is trained on.
    """

    chat: Chat | None
    answer: str


Batches = Callable[[int], Sequence[Example]]
"""The examples of update 0, 1, ...; the same at every call."""


class Checkpoint(Protocol):
    """Keeps the state of one unfinished student."""

    def load(self) -> bytes | None:
        """What was kept last, or None."""
        ...

    def save(self, body: bytes) -> None:
        """Keep it, in place of the last."""
        ...


@dataclass(frozen=True, slots=True)
class Update:
    """``done`` updates of a student, ``since_last`` of them new; the loss is in nats a token."""

    done: int
    since_last: int
    loss_nats: float


class StudentTrainer:
    """A base model in memory, and the LoRA weights of the student at hand beside it.

    ``model`` is the student as it stands: before any training, the base model itself. Not safe for
    use from two threads.
    """

    def __init__(
        self,
        model_folder: Path,
        settings: StudentSettings,
        *,
        dtype: Dtype = "float32",
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        """Load the base.

        Raises as `TransformersLanguageModel.load`, ``MissingExtraError`` without peft, and
        ``UsageError`` for modules that the model does not have.
        """
        peft = import_peft("fine-tuning")
        self.settings = settings
        self.model = TransformersLanguageModel.load(
            model_folder,
            dtype=dtype,
            device=device,
            threads=threads,
            four_bit=settings.four_bit,
        )
        lora = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=list(settings.modules),
            task_type="CAUSAL_LM",
        )
        try:
            self._adapted: Any = peft.get_peft_model(self.model.network, lora)
        except ValueError as error:
            self.model.close()
            raise UsageError(
                f"LoRA cannot adapt {', '.join(settings.modules)}: {first_line(error)}"
            ) from error
        self._weights = {
            name: parameter
            for name, parameter in self._adapted.named_parameters()
            if parameter.requires_grad
        }
        self.reset(0)

    def reset(self, seed: int) -> None:
        """A student that is the base still: B is 0, and A is drawn by ``seed``, as LoRA does."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in sorted(self._weights.items()):
                if "lora_B" in name:
                    weight.zero_()
                else:  # Kaiming uniform with a = sqrt(5): within 1 / sqrt(inputs)
                    bound = weight.shape[1] ** -0.5
                    drawn = torch.rand(weight.shape, generator=generator)
                    weight.copy_((2 * drawn - 1) * bound)

    def train(
        self, batches: Batches, *, seed: int, checkpoint: Checkpoint | None = None
    ) -> Iterator[Update]:
        """Train a new student; yields after every update, when ``model`` is the student so far.

        With ``checkpoint``, training goes on from what a killed run left there, to the same student
        (what was done before is one update then). Raises ``AuditError`` if the loss is not finite.
        """
        import torch

        self.reset(seed)
        optimizer = torch.optim.AdamW(
            [weight for _, weight in sorted(self._weights.items())],
            lr=self.settings.learning_rate,
            weight_decay=0.0,
        )
        optimizer.zero_grad()  # another student may have been given up half-way
        done = 0
        if checkpoint is not None and (stored := checkpoint.load()) is not None:
            update = self._resume(stored, optimizer)
            done = update.done
            yield update
        while done < self.settings.updates:
            for group in optimizer.param_groups:
                group["lr"] = self.settings.rate(done)
            loss = self._step(batches(done))
            if not math.isfinite(loss):
                raise AuditError("the fine-tuning diverged: lower the learning rate")
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if checkpoint is not None and done % CHECKPOINT_UPDATES == 0:
                checkpoint.save(self._state(optimizer, done, loss))
            if done == self.settings.updates:
                optimizer.zero_grad()
                give_back()
            yield Update(done, 1, loss)

    def save_adapter(self, folder: Path) -> None:
        """Write the student as it stands as a PEFT adapter, which both backends load.

        ``folder`` is made where it is missing; an adapter that lies there is replaced. Raises
        ``AuditError`` if it cannot be written.
        """
        from safetensors import SafetensorError

        try:
            # "auto" may ask a hub whether the vocabulary has grown; a student's never has.
            self._adapted.save_pretrained(str(folder), save_embedding_layers=False)
        except (OSError, ValueError, SafetensorError) as error:
            raise AuditError(
                f"{folder}: the adapter cannot be written: {first_line(error)}"
            ) from error

    def close(self) -> None:
        """Give back the memory."""
        self.model.close()
        self._adapted, self._weights = None, {}
        give_back()

    def _step(self, examples: Sequence[Example]) -> float:
        """Gradients of one batch; its loss in nats a token, on answers alone."""
        import torch

        rows = [self._encoded(example) for example in examples]
        trained_tokens = sum(_count_trained(labels) for _, labels in rows)
        if not trained_tokens:
            raise AuditError(
                f"no answer begins within {self.settings.most_tokens} tokens: raise the limit"
            )
        weights = list(self._weights.values())

        def run(part: list[int]) -> tuple[float, Sequence[Any]]:
            loss = self._loss([rows[place] for place in part]) / trained_tokens
            # Not added up before all is there: memory may run out half-way.
            return float(loss.detach()), torch.autograd.grad(loss, weights, allow_unused=True)

        whole = 0.0
        for batch in batches_by_length([len(tokens) for tokens, _ in rows], _PASS_TOKENS):
            for _, (loss, gradients) in in_smaller_batches(
                run, batch, lambda place: _too_long(len(rows[place][0]))
            ):
                whole += loss
                for weight, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        weight.grad = gradient if weight.grad is None else weight.grad + gradient
        return whole

    def _loss(self, rows: Sequence[tuple[TokenIds, TokenIds]]) -> Any:
        """Nats of all answers of ``rows`` of token ids and labels, read in one pass."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        device = self.model.network.device
        tokens, labels = padded(rows, device)
        # On a CPU torch's fused attention takes several times as long backwards as products.
        plain = nullcontext() if device.type == "cuda" else sdpa_kernel(SDPBackend.MATH)
        with torch.autocast(device.type, dtype=torch.bfloat16), plain:
            logits, targets = answer_logits(self.model.network, tokens, labels)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    def _encoded(self, example: Example) -> tuple[TokenIds, TokenIds]:
        """Token ids of the whole, and its labels: -100 off the answer."""
        prompt, answer = self._parts(example)
        whole = (prompt + answer)[: self.settings.most_tokens]
        return whole, ((IGNORED,) * len(prompt) + answer)[: len(whole)]

    def token_count(self, example: Example) -> int:
        """How many tokens a student would read, were there no limit."""
        return sum(map(len, self._parts(example)))

    def _parts(self, example: Example) -> tuple[TokenIds, TokenIds]:
        """Token ids of the prompt, and of the answer with its end of turn."""
        prompt = () if example.chat is None else self.model.encode_chat(example.chat)
        return prompt, self.model.encode(example.answer) + self.model.end_of_turn_ids()[:1]

    def _state(self, optimizer: Any, done: int, loss_nats: float) -> bytes:
        import torch

        body = io.BytesIO()
        torch.save(
            {
                "done": done,
                "loss_nats": loss_nats,
                "weights": {name: w.detach().cpu() for name, w in self._weights.items()},
                "optimizer": optimizer.state_dict(),
            },
            body,
        )
        return body.getvalue()

    def _resume(self, stored: bytes, optimizer: Any) -> Update:
        import torch

        found = torch.load(io.BytesIO(stored), weights_only=True)
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(found["weights"][name])
        optimizer.load_state_dict(found["optimizer"])
        return Update(found["done"], found["done"], found["loss_nats"])


def open_trainer(choice: ModelChoice, settings: StudentSettings) -> StudentTrainer:
    """A trainer of students of the chosen model, whatever its backend. Raises as
    `StudentTrainer`."""
    return StudentTrainer(
        choice.path,
        settings,
        dtype=choice.dtype,
        device=choice.device,
        threads=choice.threads,
    )


def _too_long(tokens: int) -> str:
    return (
        f"memory ran out on the gradients of a single row of {tokens} tokens: train on fewer "
        "tokens a row, keep the model in 4 bits, or free memory"
    )


def _count_trained(labels: Sequence[int]) -> int:
    """Labels that a loss is taken of: the first token has nothing before it."""
    return sum(label != IGNORED for label in labels[1:])
