"""``audit signature build``: probe a model into a signature library."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from audit.backends.open_model import ModelChoice
from audit.cli.library_option import check_output, open_library, save
from audit.cli.model_options import model_options
from audit.errors import UsageError
from signatures.causal_probe import CausalSettings
from signatures.concept import (
    DEFAULT_CONCEPTS,
    ConceptFileError,
    load_concepts,
    select_concepts,
)
from signatures.signature import Probe

BUILT_PROBES = (Probe.QUESTION, Probe.CONTEXT, Probe.FINETUNED, Probe.UNEMBEDDING)
EXISTING_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("build")
@model_options
@click.option(
    "--concepts",
    "concept_files",
    multiple=True,
    type=EXISTING_FILE,
    help="Concept file (TOML); a later one adds to those before it [default: the one that ships].",
)
@click.option(
    "--concepts-of",
    "other_library",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Take the concepts of this library instead of a file's.",
)
@click.option("--concept", "names", multiple=True, help="Only this concept, and the decoys.")
@click.option(
    "--category", "categories", multiple=True, help="Only this category's concepts, and the decoys."
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New library.")
@click.option(
    "--probe",
    "probes",
    multiple=True,
    type=click.Choice([str(probe) for probe in BUILT_PROBES]),
    help="Only this probe [default: question and context]. 'finetuned' fine-tunes a teacher a "
    "concept, which takes about a minute each on two cores for the embedded model.",
)
@click.option(
    "--number-contexts",
    type=EXISTING_FILE,
    help="Rows of number prompts with a neutral model's answers [default: those that ship].",
)
@click.option(
    "--text-contexts",
    type=EXISTING_FILE,
    help="Rows of any prompts with a neutral model's answers [default: those that ship].",
)
@click.option("--contexts", default=96, show_default=True, type=click.IntRange(2))
@click.option(
    "--cuts",
    default=4,
    show_default=True,
    type=click.IntRange(1),
    help="Positions looked at in each context.",
)
@click.option(
    "--vocabulary-units",
    default=4096,
    show_default=True,
    type=click.IntRange(1),
    help="Words that the library keeps.",
)
@click.option(
    "--causal/--no-causal",
    default=True,
    show_default=True,
    help="Check whether prompting with the top numbers raises the concept in turn.",
)
@click.option(
    "--parts",
    "parts_folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of finished parts, kept afterwards; processes may share it [default: "
    "OUTPUT.parts, removed once the library is written]. A killed build goes on from it.",
)
@click.option("--name", help="The library's name [default: the model folder's].")
@click.option("--seed", default=0, show_default=True)
def build_command(
    model_choice: ModelChoice,
    concept_files: tuple[Path, ...],
    other_library: Path | None,
    names: tuple[str, ...],
    categories: tuple[str, ...],
    output: Path,
    probes: tuple[str, ...],
    number_contexts: Path | None,
    text_contexts: Path | None,
    contexts: int,
    cuts: int,
    vocabulary_units: int,
    causal: bool,
    parts_folder: Path | None,
    name: str | None,
    seed: int,
) -> None:
    """Probe a model's logits with every concept into a signature library.

    The model is read with and without each concept; nothing is fetched. A build that was killed
    goes on when it is called again.

    \b
    Examples:
      audit signature build --model DIR -o my-library
      audit signature build --model DIR --concepts concepts.toml --concept owl -o my-library
    """
    from audit.backends.fine_tuned import TeacherSettings, fine_tuned
    from audit.backends.open_model import open_model
    from audit.backends.unembedding_rows import open_unembedding
    from audit.report.progress import step_progress
    from audit.signature_build import BuildSettings, build_library
    from audit.signature_parts import PartFolder

    check_output(output)
    if concept_files and other_library:
        raise UsageError("give --concepts or --concepts-of, not both")
    try:
        if other_library is not None:
            described = open_library(other_library).concepts
        else:
            described = load_concepts(*(concept_files or (DEFAULT_CONCEPTS,)))
        concepts = select_concepts(described, names, categories)
    except ConceptFileError as error:
        raise UsageError(str(error)) from error
    teacher = TeacherSettings(half=0, seed=seed)
    settings = BuildSettings(
        name=name or model_choice.path.resolve().name,
        probes=tuple(Probe(probe) for probe in probes) or (Probe.QUESTION, Probe.CONTEXT),
        number_contexts=number_contexts,
        text_contexts=text_contexts,
        contexts=contexts,
        cuts=cuts,
        vocabulary_units=vocabulary_units,
        fine_tuning=teacher.provenance(),
        causal=CausalSettings() if causal else None,
    )
    rows_of = None
    if Probe.UNEMBEDDING in settings.probes:
        rows_of = open_unembedding(model_choice.path).centred_rows
    model = open_model(model_choice)
    parts = PartFolder(parts_folder or output.with_name(f"{output.name}.parts"), model.identity)
    try:
        with step_progress("Probing") as step:
            library = build_library(
                model,
                concepts,
                settings,
                np.random.default_rng(seed),
                unembedding=rows_of,
                fine_tuned=fine_tuned(
                    model_choice.path,
                    teacher,
                    model_choice.dtype,
                    model_choice.device,
                    model_choice.threads,
                ),
                parts=parts,
                progress=step,
            )
    finally:
        model.close()
    save(library, output)
    click.echo(f"{parts.measured} parts measured, {parts.found} found from an earlier run")
    if parts_folder is None:
        parts.remove()
