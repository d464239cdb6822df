"""``audit signature merge``: libraries of one model joined into one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from audit.cli.library_option import open_library, save


@click.command("merge")
@click.argument("libraries", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New library.")
@click.option(
    "--prefer",
    type=click.Choice(["first"]),
    help="Where a concept was measured twice with different results, keep the first library's.",
)
@click.option("--name", help="The library's name [default: the first's].")
def merge_command(
    libraries: tuple[Path, ...], output: Path, prefer: str | None, name: str | None
) -> None:
    """Join signature libraries of one model.

    Their model, tokenizer and chat template must be the same.

    \b
    Examples:
      audit signature merge birds trees -o both
    """
    from audit.errors import UsageError
    from audit.report.safe_text import strip_unsafe
    from audit.report.summary import plural
    from audit.version import tool_version
    from signatures.library import LibraryError
    from signatures.library_merge import merge_libraries

    if len(libraries) < 2:
        raise UsageError("give at least two libraries to merge")
    opened = [open_library(path) for path in libraries]
    try:
        # Libraries are often named after their model, all alike: messages name the folders.
        merged = merge_libraries(
            [
                replace(library, name=str(path))
                for path, library in zip(libraries, opened, strict=True)
            ],
            prefer_first=prefer == "first",
        )
    except LibraryError as error:
        raise UsageError(str(error)) from error
    for part in merged.left_out:
        click.echo(
            strip_unsafe(
                f"{part.library}: {plural(part.left_out_units, 'unit')} of the {part.probe} "
                f"{part.view} table left out, {part.kept_units:,} are in common"
            )
        )
    save(replace(merged.library, name=name or opened[0].name, tool_version=tool_version()), output)
