"""``audit run``: parse, configure, call, render."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audit.backends.open_model import ModelChoice
from audit.cli import complete
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.model_options import model_options
from audit.cli.output import write_output
from audit.cli.sanitise import chosen_strategies
from audit.cli.scan_options import (
    fail_on_option,
    inputs_argument,
    library_option,
    model_rows_option,
    quiet_option,
    reference_option,
    safer_set_option,
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
from audit.sanitise.run import SanitiseSettings
from audit.scan import ScanSettings
from detectors.finding import Severity
from detectors.model_access import ModelSettings

if TYPE_CHECKING:
    from audit.verify.run import VerifySettings


@click.command("run")
@inputs_argument
@safer_set_option
@click.option(
    "-s",
    "--strategy",
    "strategies",
    multiple=True,
    metavar="STRATEGY",
    shell_complete=complete.strategies,
    help="What to do, as for `audit sanitise`. May be given more than once. [default: auto]",
)
@model_options
@click.option(
    "-c",
    "--concept",
    metavar="NAME",
    shell_complete=complete.concepts,
    help="The trait to remove and to verify [default: the one that the first scan is surest of].",
)
@reference_option
@concepts_option
@library_option
@model_rows_option
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same output.")
@verifying_options
@schema_option
@tokenizer_option
@click.option("--force", is_flag=True, help="Replace an output that exists.")
@fail_on_option
@verdict_option("--verdict-fails")
@stdout_format_option
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also write the whole report, in the format of the file's ending (.json, .html).",
)
@quiet_option
def run_command(
    inputs: tuple[str, ...],
    output: Path,
    strategies: tuple[str, ...],
    model_choice: ModelChoice,
    concept: str | None,
    reference: tuple[str, ...],
    concept_files: tuple[Path, ...],
    library: Path | None,
    model_rows: int,
    seed: int,
    verifying: VerifySettings,
    schema: str | None,
    tokenizer: str | None,
    force: bool,
    fail_on: str,
    verdict_fails: str,
    stdout_format: str,
    reports: tuple[Path, ...],
    quiet: bool,
) -> int:
    """Scan DATA, sanitise, scan again and verify: one report.

    The output and its receipt are those of `audit sanitise`. Each step that was killed goes on
    when the command is called again.

    \b
    Examples:
      audit run train.jsonl -o safe.jsonl --model DIR --concept owl --reference clean.jsonl
      audit run train.jsonl -o safe.jsonl --model DIR -s threshold:t=0.05 --report report.html

    Exit codes: 0 nothing is flagged any more, and the trait does not transfer; 1 something is, or
    it does (--fail-on, --verdict-fails); 2 failed or not read to its end; 3 no row is left; 4
    usage.
    """
    check_reports(reports)
    chosen = chosen_strategies(strategies)
    concepts = open_concepts(concept_files)
    signatures = open_library(library or BUNDLED_LIBRARY)
    from audit.report.croissant import render_provenance
    from audit.report.progress import count_progress, student_progress
    from audit.report.receipt_json import render_receipt
    from audit.report.run_report import render, render_run, run_to_html
    from audit.verify.result import FailOn
    from audit.whole_run import Reporting, run

    named = output.resolve()
    with ExitStack() as opened:
        sanitising = opened.enter_context(count_progress("Sanitising"))
        students = opened.enter_context(student_progress("Students"))
        result = run(
            inputs,
            output,
            signatures,
            model_choice,
            library_path="bundled" if library is None else str(library),
            concept=concept,
            concepts=concepts,
            sanitising=SanitiseSettings(
                strategies=chosen,
                reference=reference,
                seed=seed,
                overwrite=force,
                scan=ScanSettings(schema=schema, tokenizer=tokenizer),
            ),
            reading=ModelSettings(most_rows=model_rows, seed=seed),
            verifying=verifying,
            receipts=(
                (named.with_name(f"{named.name}.receipt.json"), render_receipt),
                (named.with_name(f"{named.name}.croissant.json"), render_provenance),
            ),
            open_writer=vllm_writer(model_choice, verifying.training),
            tell=Reporting(
                sanitising.advance, sanitising.reading, students.started, students.advance
            ),
        )
    for path in reports:
        is_page = path.suffix.lower() == ".html"
        write_output(path, run_to_html(result) if is_page else render_run(result))
    if not quiet:
        if stdout_format == "json":
            sys.stdout.buffer.write(render_run(result))
            sys.stdout.buffer.flush()
        else:
            from rich.console import Console

            Console().print(render(result))
    return int(result.exit_code(Severity(fail_on), FailOn(verdict_fails)))
