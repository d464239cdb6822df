"""Open a model folder with the backend of the user's choice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from audit.backends.generation import Generator
from audit.errors import UsageError
from signatures.language_model import LanguageModel, TokenIds

BackendName = Literal["transformers", "vllm"]


class Writer(LanguageModel, Generator, Protocol):
    """A language model that also writes: what both backends are."""

    def decode(self, token_ids: TokenIds) -> str:
        """The text of the ids, special tokens included."""
        ...


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model to run, and how.

    ``device`` is for transformers alone (vLLM runs where it was built for), and
    ``tensor_parallel`` (devices to split the weights over) for vLLM alone.
    """

    path: Path
    backend: BackendName = "transformers"
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    threads: int | None = None
    tensor_parallel: int = 1
    adapter: Path | None = None


def open_model(choice: ModelChoice) -> Writer:
    """Load the model; call its ``close`` when done.

    Raises ``UsageError`` for an option that the backend does not have, ``MissingExtraError`` if
    the backend is not installed, and ``AuditError`` if it cannot run the model.
    """
    if choice.backend == "vllm":
        if choice.device != "cpu":
            raise UsageError("--device is for the transformers backend: vLLM finds its own devices")
        from audit.backends.vllm_backend import VllmLanguageModel

        return VllmLanguageModel.load(
            choice.path,
            dtype=choice.dtype,
            threads=choice.threads,
            tensor_parallel_size=choice.tensor_parallel,
            adapter=choice.adapter,
        )
    if choice.tensor_parallel != 1:
        raise UsageError("--tensor-parallel is for the vllm backend")
    from audit.backends.transformers_backend import TransformersLanguageModel

    return TransformersLanguageModel.load(
        choice.path,
        dtype=choice.dtype,
        device=choice.device,
        threads=choice.threads,
        adapter=choice.adapter,
    )
