"""``audit signature contexts``: a user's prompts with the neutral model's answers."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from audit.backends.open_model import ModelChoice
from audit.cli.model_options import model_options
from audit.cli.output import write_output


@click.command("contexts")
@click.argument("prompts", nargs=-1, required=True)
@model_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON lines of prompt and completion.",
)
@click.option("--contexts", default=96, show_default=True, type=click.IntRange(2))
@click.option("--max-new-tokens", default=96, show_default=True, type=click.IntRange(1))
@click.option("--number-lists", is_flag=True, help="Answers are lists of numbers.")
@click.option("--seed", default=0, show_default=True)
def contexts_command(
    prompts: tuple[str, ...],
    model_choice: ModelChoice,
    output: Path,
    contexts: int,
    max_new_tokens: int,
    number_lists: bool,
    seed: int,
) -> None:
    """Draw prompts from PROMPTS (any data that `audit scan` reads) and let the model answer them.

    The answers are the contexts that `audit signature build` looks into, so that signatures fit
    your own kind of data: chat, code, preference pairs. Answers in the data are not used.

    \b
    Examples:
      audit signature contexts chats.jsonl --model DIR -o contexts.jsonl
      audit signature build --model DIR --text-contexts contexts.jsonl -o my-library
    """
    from audit.backends.open_model import open_model
    from audit.signature_contexts import ContextSettings, answer_prompts, draw_prompts

    settings = ContextSettings(contexts, max_new_tokens, number_lists)
    drawn = draw_prompts(prompts, contexts, np.random.default_rng(seed))
    model = open_model(model_choice)
    try:
        rows = answer_prompts(model, drawn, settings, seed)
    finally:
        model.close()
    lines = [json.dumps({"prompt": p, "completion": a}, ensure_ascii=False) for p, a in rows]
    write_output(output, ("\n".join(lines) + "\n").encode())
    click.echo(f"{output}: {len(rows)} contexts")
