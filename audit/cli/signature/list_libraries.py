"""``audit signature list``: which libraries there are, and what each holds."""

from __future__ import annotations

from pathlib import Path

import click

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.errors import ExitCode, UsageError


@click.command("list")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-f",
    "--format",
    "stdout_format",
    type=click.Choice(["terminal", "json"]),
    default="terminal",
    show_default=True,
    help="What to print on standard output.",
)
def list_command(paths: tuple[Path, ...], stdout_format: str) -> int:
    """List the signature libraries in folders [default: the one that ships].

    \b
    Examples:
      audit signature list
      audit signature list my-libraries --format json
    """
    from signatures.library_listing import ListedLibrary, list_libraries

    found = [entry for path in paths or (BUNDLED_LIBRARY,) for entry in list_libraries(path)]
    if not found:
        raise UsageError(
            f"no signature library in {', '.join(map(str, paths))}; "
            "build one with `audit signature build`"
        )
    if stdout_format == "json":
        from audit.report.plain_json import to_plain_json

        click.echo(to_plain_json(found), nl=False)
    else:
        from rich.console import Console

        from audit.report.library_terminal import render_libraries

        Console().print(render_libraries(found))
    whole = all(isinstance(entry, ListedLibrary) for entry in found)
    return int(ExitCode.OK if whole else ExitCode.FAILED)
