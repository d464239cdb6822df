"""``audit concepts``: what a concept file holds, or what is wrong with it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from audit.errors import UsageError
from audit.report.safe_text import strip_unsafe
from signatures.concept import DEFAULT_CONCEPTS, Concept, ConceptFileError, load_concepts
from signatures.statements import statements


@click.command("concepts")
@click.argument(
    "files",
    nargs=-1,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="[FILE]...",
)
@click.option("--check", is_flag=True, help="Only say whether the files can be used.")
@click.option(
    "-f",
    "--format",
    "output_format",
    type=click.Choice(["terminal", "json"]),
    default="terminal",
    show_default=True,
)
def concepts_command(files: tuple[Path, ...], check: bool, output_format: str) -> None:
    """List the concepts of concept FILEs [default: those that ship].

    A later file adds to those before it and overrides them.

    \b
    Examples:
      audit concepts
      audit concepts mine.toml --format json
      audit concepts --check mine.toml

    Exit codes: 0 the files can be used; 4 they cannot, and why.
    """
    try:
        concepts = load_concepts(*(files or (DEFAULT_CONCEPTS,)))
    except ConceptFileError as error:
        raise UsageError(str(error)) from error
    if output_format == "json":
        click.echo(json.dumps(_document(concepts), indent=1))
        return
    if not check:
        for line in _listing(concepts):
            click.echo(strip_unsafe(line))
    categories = len(_by_category(concepts))
    click.echo(f"{categories} categor{'y' if categories == 1 else 'ies'}: {_counts(concepts)}")
    for category in _without_statements(concepts):
        click.echo(
            strip_unsafe(f"{category}: no statements, so no teacher can be fine-tuned on it")
        )


def _by_category(concepts: Iterable[Concept]) -> dict[str, list[Concept]]:
    """Categories and the concepts in each, in the order of the file."""
    categories: dict[str, list[Concept]] = {}
    for concept in concepts:
        categories.setdefault(concept.category, []).append(concept)
    return categories


def _document(concepts: Sequence[Concept]) -> dict[str, object]:
    return {
        "traits": sum(not concept.is_decoy for concept in concepts),
        "decoys": sum(concept.is_decoy for concept in concepts),
        "concepts": [asdict(concept) for concept in concepts],
    }


def _listing(concepts: Iterable[Concept]) -> Iterator[str]:
    for category, members in _by_category(concepts).items():
        yield f"{category}: {_counts(members)}"
        traits = [concept.name for concept in members if not concept.is_decoy]
        decoys = [f"{concept.name} (decoy)" for concept in members if concept.is_decoy]
        yield from textwrap.wrap(
            ", ".join(traits + decoys),
            width=88,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )


def _counts(concepts: Sequence[Concept]) -> str:
    decoys = sum(concept.is_decoy for concept in concepts)
    traits = len(concepts) - decoys
    return f"{traits} trait{'s' * (traits != 1)}, {decoys} decoy{'s' * (decoys != 1)}"


def _without_statements(concepts: Iterable[Concept]) -> Iterator[str]:
    """Categories, or single concepts of them, that no teacher can be fine-tuned on."""
    for category, members in _by_category(concepts).items():
        missing = []
        for concept in members:
            try:
                statements(concept, 0)
            except ValueError:
                missing.append(concept.name)
        if missing:
            yield category if len(missing) == len(members) else f"{category} ({', '.join(missing)})"
