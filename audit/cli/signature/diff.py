"""``audit signature diff``: what differs between two libraries."""

from __future__ import annotations

from pathlib import Path

import click

from audit.cli.library_option import open_library


@click.command("diff")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "-f",
    "--format",
    "stdout_format",
    type=click.Choice(["terminal", "json"]),
    default="terminal",
    show_default=True,
    help="What to print on standard output.",
)
def diff_command(first: Path, second: Path, stdout_format: str) -> None:
    """Compare two libraries: concepts, tables, shifts and models.

    \b
    Examples:
      audit signature diff old-library new-library
      audit signature diff old-library new-library --format json

    Exit codes: 0 whether they differ or not; 4 usage.
    """
    from signatures.library_diff import diff_libraries

    difference = diff_libraries(open_library(first), open_library(second))
    if stdout_format == "json":
        from audit.report.plain_json import to_plain_json

        click.echo(to_plain_json(difference), nl=False)
        return
    from rich.console import Console

    from audit.report.library_terminal import render_difference

    Console().print(render_difference(difference))
