"""``audit signature build``: probe a model into a signature library."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from audit.cli.library_option import save
from audit.errors import UsageError
from signatures.causal_probe import CausalSettings
from signatures.concept import ConceptFileError, load_concepts
from signatures.signature import Probe

EXISTING_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("build")
@click.option(
    "--model",
    "model_path",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder of a Hugging Face model.",
)
@click.option(
    "--concepts",
    "concepts_path",
    type=EXISTING_FILE,
    help="Concept file (TOML) [default: the one that ships].",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New library.")
@click.option(
    "--probe",
    "probes",
    multiple=True,
    type=click.Choice([str(Probe.QUESTION), str(Probe.CONTEXT), str(Probe.FINETUNED)]),
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
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads [default: torch's choice].")
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
    model_path: Path,
    concepts_path: Path | None,
    output: Path,
    probes: tuple[str, ...],
    number_contexts: Path | None,
    text_contexts: Path | None,
    contexts: int,
    cuts: int,
    vocabulary_units: int,
    dtype: str,
    device: str,
    threads: int | None,
    causal: bool,
    parts_folder: Path | None,
    name: str | None,
    seed: int,
) -> None:
    """Probe a model's logits with every concept into a signature library.

    \b
    Example:
      audit signature build --model DIR --concepts concepts.toml -o my-library
    """
    from audit.backends.fine_tuned import TeacherSettings, fine_tuned
    from audit.backends.transformers_backend import Dtype, TransformersLanguageModel
    from audit.cli.library_option import BUNDLED_CONCEPTS
    from audit.report.progress import step_progress
    from audit.signature_build import BuildSettings, build_library
    from audit.signature_parts import PartFolder

    try:
        concepts = load_concepts(concepts_path or BUNDLED_CONCEPTS)
    except ConceptFileError as error:
        raise UsageError(str(error)) from error
    teacher = TeacherSettings(half=0, seed=seed)
    settings = BuildSettings(
        name=name or model_path.resolve().name,
        probes=tuple(Probe(probe) for probe in probes) or (Probe.QUESTION, Probe.CONTEXT),
        number_contexts=number_contexts,
        text_contexts=text_contexts,
        contexts=contexts,
        cuts=cuts,
        vocabulary_units=vocabulary_units,
        fine_tuning=teacher.provenance(),
        causal=CausalSettings() if causal else None,
    )
    dtype_name: Dtype = "bfloat16" if dtype == "bfloat16" else "float32"
    model = TransformersLanguageModel.load(
        model_path, dtype=dtype_name, device=device, threads=threads
    )
    parts = PartFolder(parts_folder or output.with_name(f"{output.name}.parts"), model.identity)
    try:
        with step_progress("Probing") as step:
            library = build_library(
                model,
                concepts,
                settings,
                np.random.default_rng(seed),
                fine_tuned=fine_tuned(model_path, teacher, dtype_name, device, threads),
                parts=parts,
                progress=step,
            )
    finally:
        model.close()
    save(library, output)
    click.echo(f"{parts.measured} parts measured, {parts.found} found from an earlier run")
    if parts_folder is None:
        parts.remove()
