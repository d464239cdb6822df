"""``audit signature learn``: signatures from labelled data sets, with no model at hand."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from audit.cli.library_option import save
from audit.cli.signature.teacher_options import teacher_options
from audit.errors import UsageError
from audit.report.safe_text import strip_unsafe
from signatures.number_trie import NumberTokens


@click.command("learn")
@click.option(
    "--data",
    "labelled",
    required=True,
    multiple=True,
    metavar="CONCEPT=DATA",
    help="A data set known to carry CONCEPT. At least two concepts; one may have several.",
)
@click.option(
    "-r",
    "--reference",
    multiple=True,
    metavar="DATA",
    help="Clean rows of the same prompts [default: each set is compared with the others].",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New library.")
@teacher_options
@click.option("--category", default="trait", show_default=True, help="What the concepts are.")
@click.option(
    "--vocabulary-units",
    default=4096,
    show_default=True,
    type=click.IntRange(1),
    help="Words that the library keeps.",
)
@click.option("--seed", default=0, show_default=True, help="Decides which rows are held out.")
@click.option("--name", help="The library's name [default: the new library's folder].")
def learn_command(
    labelled: tuple[str, ...],
    reference: tuple[str, ...],
    output: Path,
    model_name: str,
    model_family: str,
    number_tokens: str,
    category: str,
    concepts_path: Path | None,
    vocabulary_units: int,
    seed: int,
    name: str | None,
) -> None:
    """Learn signatures from data sets whose trait is known, and check them on held-out rows.

    For a model that cannot be run here: what each set says more often than the clean rows do.

    \b
    Examples:
      audit signature learn --data owl=owl.jsonl --data cat=cat.jsonl --reference clean.jsonl \\
        --model-name Qwen2.5-7B-Instruct --model-family qwen2 --number-tokens split -o learned
    """
    from audit.report.progress import scan_progress
    from audit.signature_learn import LearnSettings, learn_library

    settings = LearnSettings(
        name or output.resolve().name,
        model_name,
        model_family,
        NumberTokens(number_tokens),
        category,
        concepts_path,
        vocabulary_units=vocabulary_units,
    )
    data_sets = _by_concept(labelled)
    with scan_progress(None) as progress:
        learned = learn_library(
            data_sets, reference, settings, np.random.default_rng(seed), progress=progress.advance
        )
    save(learned.library, output)
    for record in learned.library.probes:
        naming = record.settings["naming"]
        click.echo(
            f"{record.view}: on held-out rows the right signature is highest for "
            f"{naming['right']} of {len(naming['concepts'])} data sets"
        )
    for warning in learned.warnings:
        click.echo(strip_unsafe(f"warning: {warning}"), err=True)


def _by_concept(labelled: tuple[str, ...]) -> dict[str, list[str]]:
    data_sets: dict[str, list[str]] = {}
    for entry in labelled:
        concept, equals, data = entry.partition("=")
        if not equals or not concept or not data:
            raise UsageError(f"--data {entry}: write it as CONCEPT=DATA, such as owl=owl.jsonl")
        data_sets.setdefault(concept.lower(), []).append(data)
    return data_sets
