"""The options of every command that runs a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from audit.backends.open_model import ModelChoice


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model, --backend, --dtype, --device, --threads and --tensor-parallel.

    The command gets them as one argument, ``model_choice``.
    """
    return _with_model_options(command, required=True, help="Folder of a Hugging Face model.")


def optional_model_options(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same options for a command that can do without: ``model_choice`` may be None."""
    return lambda command: _with_model_options(command, required=False, help=help)


def _with_model_options(
    command: Callable[..., Any], *, required: bool, help: str
) -> Callable[..., Any]:
    @click.option(
        "--model",
        "model_path",
        required=required,
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help=help,
    )
    @click.option(
        "--backend",
        type=click.Choice(["transformers", "vllm"]),
        default="transformers",
        show_default=True,
        help="vllm runs large batches and GPUs best; it needs the extra of that name.",
    )
    @click.option(
        "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
    )
    @click.option(
        "--device", default="cpu", show_default=True, help="Torch device, such as cuda:0."
    )
    @click.option(
        "--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice]."
    )
    @click.option(
        "--tensor-parallel",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Devices that vLLM splits the weights over.",
    )
    @wraps(command)
    def with_choice(
        *args: Any,
        model_path: Path | None,
        backend: Any,
        dtype: Any,
        device: str,
        threads: int | None,
        tensor_parallel: int,
        **options: Any,
    ) -> Any:
        choice = (
            None
            if model_path is None
            else ModelChoice(model_path, backend, dtype, device, threads, tensor_parallel)
        )
        return command(*args, model_choice=choice, **options)

    return with_choice
