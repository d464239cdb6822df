"""``audit signature show``: what a signature library says, for people, programs and browsers."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from audit.cli import complete
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.output import write_output
from audit.errors import UsageError
from signatures.library import SignatureLibrary

_PICTURE_CONCEPTS = 6
OUTPUT_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("show")
@click.argument("library", required=False, type=click.Path(path_type=Path))
@click.option(
    "-c",
    "--concept",
    "names",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.concepts,
    help="Show this concept instead of the whole library. May be given more than once.",
)
@click.option("--html", type=OUTPUT_FILE, help="Also write a page with plots of every concept.")
@click.option("--png", type=OUTPUT_FILE, help="Also write the plots as a PNG picture.")
@click.option("--svg", type=OUTPUT_FILE, help="Also write the plots as an SVG drawing.")
@click.option(
    "-f",
    "--format",
    "stdout_format",
    type=click.Choice(["terminal", "json"]),
    default="terminal",
    show_default=True,
    help="What to print on standard output.",
)
def show_command(
    library: Path | None,
    names: tuple[str, ...],
    html: Path | None,
    png: Path | None,
    svg: Path | None,
    stdout_format: str,
) -> None:
    """Show a signature LIBRARY [default: the one that ships]: hubs, strength, noise, units.

    \b
    Examples:
      audit signature show
      audit signature show my-library --concept owl --png owl.png
      audit signature show my-library --html signatures.html
    """
    from signatures.summary import summarise

    opened = open_library(library or BUNDLED_LIBRARY)
    names = tuple(dict.fromkeys(names))
    _check_names(opened, names)
    if len(names) > _PICTURE_CONCEPTS and (png or svg):
        raise UsageError(
            f"a picture holds at most {_PICTURE_CONCEPTS} concepts, not {len(names)}; "
            "name fewer, or write a page with --html"
        )
    paths = [path.resolve() for path in (html, png, svg) if path]
    if len(set(paths)) < len(paths):
        raise UsageError("two outputs would go to the same file")
    summary = summarise(opened)
    outputs: list[tuple[Path, bytes]] = []
    if png or svg:
        from audit.report.signature_plots import concept_figure, overview_figure

        figure = (
            concept_figure(opened, summary, names) if names else overview_figure(opened, summary)
        )
        outputs += [(png, figure.to_png())] if png else []
        outputs += [(svg, figure.to_svg())] if svg else []
    if html:
        from audit.report.progress import step_progress
        from audit.report.signature_page import to_page

        with step_progress("Drawing") as step:
            outputs.append((html, to_page(opened, summary, names, step)))
    for path, data in outputs:
        write_output(path, data)
    if stdout_format == "json":
        from audit.report.signature_json import to_json

        sys.stdout.buffer.write(to_json(summary, names))
        sys.stdout.buffer.flush()
        return
    from rich.console import Console

    from audit.report.signature_terminal import render_concept, render_library

    console = Console()
    for shown in [render_concept(summary, name) for name in names] or [
        render_library(summary, width=console.width)
    ]:
        console.print(shown)


def _check_names(library: SignatureLibrary, names: tuple[str, ...]) -> None:
    known = [concept.name for concept in library.concepts]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(known)}"
            raise UsageError(f"the library has no concept '{name}'; {hint}")
