"""Options of the commands that verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audit.backends.open_model import ModelChoice
from audit.backends.student_training import StudentSettings
from audit.cli.training_options import training_options
from audit.errors import UsageError
from audit.report.page import check_can_draw
from signatures.concept import DEFAULT_CONCEPTS, Concept, ConceptFileError, load_concepts

if TYPE_CHECKING:
    from audit.backends.vllm_backend import VllmLanguageModel

concepts_option = click.option(
    "--concepts",
    "concept_files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Concept file that has it, and others of its category [default: those that ship].",
)


def verdict_option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option ``name``, whose argument is ``verdict_fails``: what verdict ends with 1."""
    return click.option(
        name,
        "verdict_fails",
        type=click.Choice(["inconclusive", "transfers"]),
        default="inconclusive",
        show_default=True,
        help="Exit with 1 where the trait transfers or may, or only where it is sure to.",
    )


def verifying_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --seeds, --other-authors, --answers and those of the training.

    The command gets them as one argument, ``verifying`` (`audit.verify.run.VerifySettings`).
    """

    @click.option(
        "--seeds",
        default=5,
        show_default=True,
        type=click.IntRange(1),
        help="Students of each arm. Fewer than 5 often leave a verdict open.",
    )
    @click.option("--first-seed", default=0, show_default=True, type=click.IntRange(0))
    @click.option(
        "--epochs",
        default=3,
        show_default=True,
        type=click.IntRange(1),
        help="At most so many passes over the data before.",
    )
    @click.option(
        "--other-authors",
        default=2,
        show_default=True,
        type=click.IntRange(0),
        help="As a control, the model is taught so many other concepts and writes the data anew: "
        "rows of any fine-tuned author move students towards common words. 0: no such control.",
    )
    @training_options
    @click.option(
        "--answers",
        default=2,
        show_default=True,
        type=click.IntRange(0),
        help="Answers sampled to each question and student, beside the exact log-odds.",
    )
    @click.option(
        "--system",
        "system_prompt",
        metavar="TEXT",
        help="System prompt of the questions [default: that of most rows of the data].",
    )
    @wraps(command)
    def with_settings(*args: Any, **options: Any) -> Any:
        from audit.verify.run import VerifySettings

        names = (
            *("seeds", "first_seed", "epochs", "other_authors"),
            *("training", "answers", "system_prompt"),
        )
        settings = VerifySettings(
            **{name: options.pop(name) for name in names},
            schema=options.get("schema"),
            tokenizer=options.get("tokenizer"),
        )
        return command(*args, verifying=settings, **options)

    return with_settings


def check_reports(paths: Sequence[Path], endings: Sequence[str] = (".json", ".html")) -> None:
    """Say before hours of work what would go wrong after them. Raises ``UsageError`` for another
    ending or a folder that is not there, ``MissingExtraError`` where a page cannot be drawn."""
    for path in paths:
        if path.suffix.lower() not in endings:
            known = " or ".join(endings)
            raise UsageError(f"{path}: this report is written as {known}, by the file's ending")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}")
        if path.suffix.lower() == ".html":
            check_can_draw()


def open_concepts(files: tuple[Path, ...]) -> tuple[Concept, ...]:
    """The concepts of ``files``, or those that ship. Raises ``UsageError`` in one line."""
    try:
        return load_concepts(*(files or (DEFAULT_CONCEPTS,)))
    except ConceptFileError as error:
        raise UsageError(str(error)) from error


def vllm_writer(
    choice: ModelChoice, training: StudentSettings
) -> Callable[[], VllmLanguageModel] | None:
    """What samples answers in place of the students in memory, where vLLM was asked for.

    Raises ``UsageError`` where it would write with another base than students were trained on.
    """
    if choice.backend != "vllm":
        return None
    if training.four_bit:
        raise UsageError(
            "students of a base of 4 bits are asked in memory: leave out --backend vllm, or "
            "--four-bit"
        )

    def opened() -> VllmLanguageModel:
        from audit.backends.vllm_backend import VllmLanguageModel

        return VllmLanguageModel.load(
            choice.path,
            dtype=choice.dtype,
            adapter_rank=training.rank,
            threads=choice.threads,
            tensor_parallel_size=choice.tensor_parallel,
        )

    return opened
