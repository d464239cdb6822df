"""The options of commands that are told of a model instead of running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from signatures.number_trie import NumberTokens

EXISTING_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


def teacher_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --model-name, --model-family, --number-tokens and --concepts."""
    for option in reversed(
        (
            click.option(
                "--model-name", required=True, help="The model that the table or the data are of."
            ),
            click.option(
                "--model-family", required=True, help="Its config's model_type, such as llama."
            ),
            click.option(
                "--number-tokens",
                required=True,
                type=click.Choice([str(kind) for kind in NumberTokens]),
                help="Does its tokenizer write 0 to 999 as whole tokens, or split them?",
            ),
            click.option(
                "--concepts",
                "concepts_path",
                type=EXISTING_FILE,
                help="Concept file that describes some of the concepts.",
            ),
        )
    ):
        command = option(command)
    return command
