"""The options of commands that fine-tune students."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from audit.backends.lora_training import LORA_MODULES
from audit.backends.student_training import StudentSettings
from audit.errors import UsageError

_DEFAULTS = StudentSettings()


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --updates, --batch-rows, --rank and the like.

    The command gets them as one argument, ``training``.
    """

    @click.option(
        "--updates",
        default=_DEFAULTS.updates,
        show_default=True,
        type=click.IntRange(1),
        help="Updates of each student, unless --epochs passes over the data take fewer.",
    )
    @click.option(
        "--batch-rows",
        default=_DEFAULTS.batch_rows,
        show_default=True,
        type=click.IntRange(1),
        help="Rows of one update.",
    )
    @click.option(
        "--rank", default=_DEFAULTS.rank, show_default=True, type=click.IntRange(1), help="Of LoRA."
    )
    @click.option(
        "--alpha",
        default=_DEFAULTS.alpha,
        show_default=True,
        type=click.IntRange(1),
        help="Of LoRA.",
    )
    @click.option(
        "--learning-rate",
        default=_DEFAULTS.learning_rate,
        show_default=True,
        type=click.FloatRange(0, min_open=True),
        help="Of AdamW, after a linear rise; it falls linearly to 0.",
    )
    @click.option(
        "--warmup-updates",
        default=_DEFAULTS.warmup_updates,
        show_default=True,
        type=click.IntRange(0),
        help="Updates of that rise.",
    )
    @click.option(
        "--modules",
        default=",".join(LORA_MODULES),
        show_default=True,
        help="Linear layers that LoRA adapts, by their names.",
    )
    @click.option(
        "--most-tokens",
        default=_DEFAULTS.most_tokens,
        show_default=True,
        type=click.IntRange(8),
        help="A student reads so many tokens of a row.",
    )
    @click.option(
        "--four-bit",
        is_flag=True,
        help="Keep the base model, which is not trained, in 4 bits (QLoRA): a larger one fits.",
    )
    @wraps(command)
    def with_training(
        *args: Any,
        updates: int,
        batch_rows: int,
        rank: int,
        alpha: int,
        learning_rate: float,
        warmup_updates: int,
        modules: str,
        most_tokens: int,
        four_bit: bool,
        **options: Any,
    ) -> Any:
        names = tuple(filter(None, modules.split(",")))
        if not names:
            raise UsageError("--modules names no layer: give at least one, such as q_proj")
        training = StudentSettings(
            rank=rank,
            alpha=alpha,
            learning_rate=learning_rate,
            batch_rows=batch_rows,
            updates=updates,
            warmup_updates=warmup_updates,
            most_tokens=most_tokens,
            modules=names,
            four_bit=four_bit,
        )
        return command(*args, training=training, **options)

    return with_training
