"""``audit verify``: parse, configure, call, render."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audit.backends.open_model import ModelChoice
from audit.cli import complete
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.model_options import optional_model_options
from audit.cli.output import write_output
from audit.cli.scan_options import (
    quiet_option,
    schema_option,
    stdout_format_option,
    tokenizer_option,
)
from audit.cli.verify_options import (
    check_reports,
    concepts_option,
    open_concepts,
    verdict_option,
    verifying_options,
    vllm_writer,
)
from audit.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from audit.verify.run import VerifySettings


@click.command("verify")
@optional_model_options("Folder of the clean Hugging Face model that will be fine-tuned.")
@click.option(
    "--before",
    multiple=True,
    metavar="DATA",
    shell_complete=complete.files,
    help="The data as they came.",
)
@click.option(
    "--after",
    multiple=True,
    metavar="DATA",
    shell_complete=complete.files,
    help="The sanitised data.",
)
@click.option(
    "-r",
    "--reference",
    multiple=True,
    metavar="DATA",
    shell_complete=complete.files,
    help="Clean rows of the same prompts: what any such data do to a student is taken off.",
)
@click.option(
    "-c",
    "--concept",
    metavar="NAME",
    shell_complete=complete.concepts,
    help="The trait to look for in the students.",
)
@concepts_option
@click.option(
    "--self-check",
    is_flag=True,
    help="Instead, train students on data with a known answer: a trait that must transfer, and one "
    "that must not. A check that fails makes every later verdict inconclusive.",
)
@verifying_options
@schema_option
@tokenizer_option
@verdict_option("--fail-on")
@stdout_format_option
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also write a report, in the format of the file's ending (.json, .html).",
)
@quiet_option
def verify_command(
    model_choice: ModelChoice | None,
    before: tuple[str, ...],
    after: tuple[str, ...],
    reference: tuple[str, ...],
    concept: str | None,
    concept_files: tuple[Path, ...],
    self_check: bool,
    verifying: VerifySettings,
    schema: str | None,
    tokenizer: str | None,
    verdict_fails: str,
    stdout_format: str,
    outputs: tuple[Path, ...],
    quiet: bool,
) -> int:
    """Fine-tune small LoRA students: does a trait still transfer?

    Students of the data before, of the data after, of a random edit of the same size and of clean
    data start from the same model with the same seeds, and read the rows in the same order. What
    counts is how far each moves towards the concept within its category, in exact log-odds. A run
    that was killed goes on when it is called again.

    \b
    Examples:
      audit verify --model DIR --before train.jsonl --after safe.jsonl --concept owl
      audit verify --model DIR --before train.jsonl --after safe.jsonl -c owl -r clean.jsonl \\
        -o report.html
      audit verify --self-check --model DIR

    Exit codes: 0 the trait does not transfer; 1 it does, or may (--fail-on); 2 failed, or the
    self-check did not pass; 4 usage.
    """
    check_reports(outputs, (".json",) if self_check else (".json", ".html"))
    if self_check:
        if before or after or reference or concept:
            raise UsageError("--self-check has data of its own: give it no --before or --after")
        return _check_self(model_choice, stdout_format, outputs, quiet)
    if model_choice is None or not before or not after or concept is None:
        raise UsageError("give --model, --before, --after and --concept, or --self-check alone")
    concepts = open_concepts(concept_files)
    library = open_library(BUNDLED_LIBRARY)
    from audit.backends.student_training import open_trainer
    from audit.report.progress import student_progress
    from audit.report.verify_json import render_verification
    from audit.verify.result import FailOn
    from audit.verify.run import Inputs, category_of, verify
    from audit.verify.self_check import checked

    # What can be wrong is looked at before a model is loaded.
    category_of(concept, concepts, verifying.thresholds)
    open_writer = vllm_writer(model_choice, verifying.training)
    check = checked()
    with ExitStack() as opened:
        progress = opened.enter_context(student_progress("Students"))
        trainer = open_trainer(model_choice, verifying.training)
        opened.callback(trainer.close)
        result = verify(
            Inputs(before, after, reference),
            concept,
            concepts,
            trainer,
            library,
            settings=verifying,
            self_check=check,
            open_writer=open_writer,
            started=progress.started,
            progress=progress.advance,
        )
    document = render_verification(result)
    for path in outputs:
        if path.suffix.lower() == ".html":
            from audit.report.verify_page import to_html

            write_output(path, to_html(result))
        else:
            write_output(path, document)
    if not quiet:
        if stdout_format == "json":
            sys.stdout.buffer.write(document)
            sys.stdout.buffer.flush()
        else:
            from rich.console import Console

            from audit.report.verify_terminal import render

            Console().print(render(result))
    return int(result.exit_code(FailOn(verdict_fails)))


def _check_self(
    model_choice: ModelChoice | None, stdout_format: str, outputs: tuple[Path, ...], quiet: bool
) -> int:
    from audit.model.fetch import find_embedded_model
    from audit.report.progress import student_progress
    from audit.report.verify_json import render_check
    from audit.verify.self_check import check_self

    choice = model_choice or ModelChoice(find_embedded_model().path)
    with student_progress("Self-check") as progress:
        check = check_self(
            choice.path,
            device=choice.device,
            threads=choice.threads,
            started=progress.started,
            progress=progress.advance,
        )
    for path in outputs:
        write_output(path, render_check(check))
    if not quiet:
        if stdout_format == "json":
            sys.stdout.buffer.write(render_check(check))
            sys.stdout.buffer.flush()
        else:
            from rich.console import Console

            from audit.report.verify_terminal import render_self_check

            Console().print(render_self_check(check))
    return int(ExitCode.OK if check.passed else ExitCode.FAILED)
