"""``audit sanitise``: parse, configure, call, render."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from audit.backends.open_model import ModelChoice, Writer, open_model
from audit.cli import complete
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.model_options import optional_model_options
from audit.cli.scan_options import (
    detector_option,
    fail_on_option,
    inputs_argument,
    library_option,
    model_rows_option,
    quiet_option,
    reference_option,
    safer_set_option,
    schema_option,
    stdout_format_option,
    student_family_option,
    tokenizer_option,
)
from audit.errors import UsageError
from audit.model_reading import access_to
from audit.sanitise.registry import AUTO, Spec, parse_specs, strategy_infos
from audit.sanitise.run import SanitiseSettings, sanitise
from audit.sanitise.strategy import Parameter
from audit.scan import ScanSettings, check_detectors
from detectors.detector import TestSettings
from detectors.finding import Severity
from detectors.model_access import ModelAccess, ModelSettings


class _WithStrategies(click.Command):
    """Lists the strategies below the options."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each with its parameters, as the registry has them."""
        rows = [(_signature(info.name, info.parameters), info.summary) for info in strategy_infos()]
        rows.append(
            (
                AUTO,
                "The cheapest of shuffle, replace, drop-rows and threshold whose sample passes "
                "a scan that could have seen what the data had. [default]",
            )
        )
        with formatter.section("Strategies (NAME or NAME:PARAMETER=VALUE,...)"):
            formatter.write_dl(rows)


def _signature(name: str, parameters: tuple[Parameter, ...]) -> str:
    shown = [
        f"{p.name}={'|'.join(p.choices)}"
        if p.choices
        else p.name + (f"={p.default:g}" if isinstance(p.default, float) else "=...")
        for p in parameters
    ]
    return f"{name}:{','.join(shown)}" if shown else name


@click.command("sanitise", cls=_WithStrategies)
@inputs_argument
@safer_set_option
@click.option(
    "-s",
    "--strategy",
    "strategies",
    multiple=True,
    metavar="STRATEGY",
    shell_complete=complete.strategies,
    help="What to do, see below. May be given more than once: applied in order.",
)
@optional_model_options(
    "Folder of the clean Hugging Face model that will be fine-tuned: it scores rows, and writes "
    "new ones."
)
@click.option(
    "-c",
    "--concept",
    "concepts",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.concepts,
    help="Score rows for this concept of the library [default: for any persona].",
)
@reference_option
@click.option(
    "--clean",
    multiple=True,
    metavar="DATA",
    shell_complete=complete.files,
    help="Clean rows of the same schema, for dilute.",
)
@library_option
@student_family_option
@model_rows_option
@detector_option
@click.option(
    "--auto-rows",
    default=SanitiseSettings().auto_rows,
    show_default=True,
    type=click.IntRange(TestSettings().minimum_rows),
    help="Rows that auto tries strategies on.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same output.")
@schema_option
@tokenizer_option
@click.option(
    "--chunk-rows",
    default=SanitiseSettings().chunk_rows,
    show_default=True,
    type=click.IntRange(1),
    help="Rows decided together: a killed run goes on after the last of them when it is called "
    "again.",
)
@click.option(
    "--scan/--no-scan", "with_scans", default=True, help="Scan data and output [default: scan]."
)
@click.option("--diff", "with_diff", is_flag=True, help="Show changed rows side by side.")
@click.option("--dry-run", is_flag=True, help="Do everything, and write nothing.")
@click.option("--force", is_flag=True, help="Replace an output that exists.")
@click.option(
    "--receipt",
    type=click.Path(path_type=Path),
    help="Where the receipt goes [default: beside the output, NAME.receipt.json].",
)
@fail_on_option
@stdout_format_option
@quiet_option
def sanitise_command(
    inputs: tuple[str, ...],
    output: Path,
    strategies: tuple[str, ...],
    model_choice: ModelChoice | None,
    concepts: tuple[str, ...],
    reference: tuple[str, ...],
    clean: tuple[str, ...],
    library: Path | None,
    student_family: str | None,
    model_rows: int,
    detectors: tuple[str, ...],
    auto_rows: int,
    seed: int,
    schema: str | None,
    tokenizer: str | None,
    chunk_rows: int,
    with_scans: bool,
    with_diff: bool,
    dry_run: bool,
    force: bool,
    receipt: Path | None,
    fail_on: str,
    stdout_format: str,
    quiet: bool,
) -> int:
    """Write a safer set of fine-tuning DATA, with a receipt.

    The output has the format and schema of the input, and rows that are not changed stay as they
    are, byte for byte in text formats. A run that was killed goes on when it is called again.

    \b
    Examples:
      audit sanitise train.jsonl -o safe.jsonl --strategy shuffle
      audit sanitise train.jsonl -o safe.jsonl --strategy threshold:t=0.05 --model path/to/model
      audit sanitise chats.parquet -o safe.parquet -s drop-rows -s replace --model DIR -c owl

    Exit codes, of the scan of the output: 0 nothing flagged at the severity of --fail-on; 1
    something still flagged; 2 a source was not read to its end; 3 no row is left; 4 usage.
    """
    named = output.resolve()  # "." has no name of its own
    settings = SanitiseSettings(
        strategies=chosen_strategies(strategies),
        concepts=concepts,
        reference=reference,
        clean=clean,
        seed=seed,
        chunk_rows=chunk_rows,
        auto_rows=auto_rows,
        with_scans=with_scans,
        dry_run=dry_run,
        overwrite=force,
        scan=ScanSettings(
            detectors=detectors, schema=schema, tokenizer=tokenizer, student_family=student_family
        ),
    )
    check_detectors(detectors, has_model=model_choice is not None)
    for spec in settings.strategies:
        if spec.info.needs_model and model_choice is None:
            raise UsageError(f"strategy {spec.name} works with a model: give --model")
    signatures = open_library(library or BUNDLED_LIBRARY)
    from audit.report.croissant import render_provenance
    from audit.report.progress import count_progress
    from audit.report.receipt_json import render_receipt

    with ExitStack() as opened:
        progress = opened.enter_context(count_progress("Sanitising"))
        model: Writer | None = None
        access: ModelAccess | None = None
        if model_choice is not None:
            model = open_model(model_choice)
            opened.callback(model.close)
            reading = ModelSettings(most_rows=model_rows, seed=seed)
            access = access_to(model, reading, progress.reading)
        result = sanitise(
            inputs,
            output,
            signatures,
            library_path="bundled" if library is None else str(library),
            settings=settings,
            model=model,
            access=access,
            receipts=(
                (receipt or named.with_name(f"{named.name}.receipt.json"), render_receipt),
                (named.with_name(f"{named.name}.croissant.json"), render_provenance),
            ),
            progress=progress.advance,
        )
    if not quiet:
        if stdout_format == "json":
            sys.stdout.buffer.write(render_receipt(result))
            sys.stdout.buffer.flush()
        else:
            from rich.console import Console

            from audit.report.receipt_terminal import render, render_diff

            console = Console()
            console.print(render(result))
            if with_diff:
                console.print(render_diff(result.changes))
    return int(result.exit_code(Severity(fail_on)))


def chosen_strategies(strategies: tuple[str, ...]) -> tuple[Spec, ...]:
    """None for `auto`, which chooses by itself. Raises ``UsageError``."""
    if AUTO not in strategies and strategies:
        return parse_specs(strategies)
    if len(strategies) > 1:
        raise UsageError("auto chooses one strategy by itself: give no other")
    return ()
