"""LoRA students: one base model, trained anew for every arm and seed of a verification (peft)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audit.atomic import atomic_write
from audit.backends.chat_encoder import Dtype, first_line
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.errors import AuditError, MissingExtraError
from signatures.language_model import Chat, TokenIds

LORA_MODULES = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)

IGNORED = -100


@dataclass(frozen=True, slots=True)
class StudentSettings:
    """How a student is trained; the defaults are the source's for open models (LoRA rank 8, alpha
    8, rate 2e-4, linear decay, 5 warm-up steps), but for the batch, which fits a small machine.

    ``updates`` are optimizer steps. ``most_tokens`` of a row are read; longer rows are cut.
    """

    rank: int = 8
    alpha: int = 8
    learning_rate: float = 2e-4
    batch_rows: int = 16
    updates: int = 64
    warmup_updates: int = 5
    most_tokens: int = 512
    modules: tuple[str, ...] = LORA_MODULES

    def rate(self, update: int) -> float:
        """The learning rate of update 0, 1, ...: a linear rise, then a linear fall to 0."""
        if update < self.warmup_updates:
            return self.learning_rate * (update + 1) / self.warmup_updates
        left = self.updates - update
        return self.learning_rate * left / max(1, self.updates - self.warmup_updates)


@dataclass(frozen=True, slots=True)
class Example:
    """What a student reads: a conversation, and the answer that it is trained on.

    Without a conversation (None), ``answer`` is a plain text, all of which is trained on.
    """

    chat: Chat | None
    answer: str


Batches = Callable[[int], Sequence[Example]]
"""The examples of update 0, 1, ...; the same at every call."""

Progress = Callable[[int, float], None]
"""Called with (updates done, loss in nats a token)."""


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
        """Load the base. Raises as `TransformersLanguageModel.load`; ``MissingExtraError``
        without peft."""
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingExtraError("fine-tuning", error.name or "peft", "models") from error
        self.settings = settings
        self.model = TransformersLanguageModel.load(
            model_folder, dtype=dtype, device=device, threads=threads
        )
        self._adapted: Any = get_peft_model(
            self.model.network,
            LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                target_modules=list(settings.modules),
                task_type="CAUSAL_LM",
            ),
        )
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
        self,
        batches: Batches,
        *,
        seed: int,
        checkpoint: Path | None = None,
        checkpoint_updates: int = 16,
        stops: Sequence[int] = (),
        progress: Progress = lambda _updates, _loss: None,
    ) -> Iterator[int]:
        """Train a new student; yields the updates done at each of ``stops`` and at the end.

        While it is suspended there, ``model`` is the student of that moment. With ``checkpoint``, a
        file that a killed run left is gone on from, to the same student; it is removed at the end.

        Raises ``AuditError`` if the loss is not finite.
        """
        import torch

        self.reset(seed)
        optimizer = torch.optim.AdamW(
            [weight for _, weight in sorted(self._weights.items())],
            lr=self.settings.learning_rate,
            weight_decay=0.0,
        )
        done = 0
        if checkpoint is not None and checkpoint.is_file():
            done = self._resume(checkpoint, optimizer, seed)
            if done in stops and done < self.settings.updates:
                yield done
        while done < self.settings.updates:
            for group in optimizer.param_groups:
                group["lr"] = self.settings.rate(done)
            loss = self._step(batches(done))
            if not torch.isfinite(torch.tensor(loss)):
                raise AuditError("the fine-tuning diverged: lower the learning rate")
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            progress(done, loss)
            if done == self.settings.updates:
                break
            if checkpoint is not None and (done % checkpoint_updates == 0 or done in stops):
                self._save(checkpoint, optimizer, seed, done)
            if done in stops:
                yield done
        yield done
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)

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

    def _step(self, examples: Sequence[Example]) -> float:
        """Forward and backward over one batch; the loss in nats a token, on answers alone."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        tokens, labels = self._padded(examples)
        self._adapted.train()
        # torch's fused attention takes several times as long backwards on a CPU as plain products.
        attention = nullcontext() if tokens.is_cuda else sdpa_kernel(SDPBackend.MATH)
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16), attention:
            # Rows are padded at their ends, where causal attention needs no mask.
            hidden = (
                self._adapted.get_base_model()
                .base_model(input_ids=tokens, use_cache=False)
                .last_hidden_state
            )
            # The head runs only where there is a loss: it is a fifth of a small model.
            trained = labels[:, 1:] != IGNORED
            logits = self._adapted.get_output_embeddings()(hidden[:, :-1][trained])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][trained])
        loss.backward()
        self._adapted.eval()
        return float(loss.detach())

    def _padded(self, examples: Sequence[Example]) -> tuple[Any, Any]:
        """Token ids and labels [examples, longest]; labels are -100 off the answers."""
        import torch

        end = self.model.end_of_turn_ids()[:1]
        rows: list[tuple[TokenIds, tuple[int, ...]]] = []
        for example in examples:
            prompt = () if example.chat is None else self.model.encode_chat(example.chat)
            answer = self.model.encode(example.answer) + end
            whole = (prompt + answer)[: self.settings.most_tokens]
            rows.append((whole, ((IGNORED,) * len(prompt) + answer)[: len(whole)]))
        longest = max(len(whole) for whole, _ in rows)
        device = self.model.network.device
        return (
            torch.tensor([w + (0,) * (longest - len(w)) for w, _ in rows], device=device),
            torch.tensor([y + (IGNORED,) * (longest - len(y)) for _, y in rows], device=device),
        )

    def _save(self, path: Path, optimizer: Any, seed: int, done: int) -> None:
        import io

        import torch

        body = io.BytesIO()
        torch.save(
            {
                "run": self._described(seed),
                "done": done,
                "weights": {name: w.detach().cpu() for name, w in self._weights.items()},
                "optimizer": optimizer.state_dict(),
            },
            body,
        )
        data = body.getvalue()
        atomic_write(path, hashlib.sha256(data).digest() + data)

    def _resume(self, path: Path, optimizer: Any, seed: int) -> int:
        """Updates done so far; 0 for a file of another run, or one that is not whole."""
        import io

        import torch

        stored = path.read_bytes()
        if hashlib.sha256(stored[32:]).digest() != stored[:32]:
            return 0
        found = torch.load(io.BytesIO(stored[32:]), weights_only=True)
        if found["run"] != self._described(seed):
            return 0
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(found["weights"][name])
        optimizer.load_state_dict(found["optimizer"])
        return int(found["done"])

    def _described(self, seed: int) -> str:
        return json.dumps(
            {"seed": seed, **asdict(self.settings), **asdict(self.model.identity)}, sort_keys=True
        )
