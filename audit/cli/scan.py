"""``audit scan``: parse, configure, call, render."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audit.backends.open_model import ModelChoice
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.model_options import optional_model_options
from audit.cli.output import write_output
from audit.cli.scan_options import (
    detector_option,
    fail_on_option,
    inputs_argument,
    library_option,
    model_rows_option,
    quiet_option,
    reference_option,
    rejected_rows_option,
    schema_option,
    student_family_option,
    tokenizer_option,
)
from audit.cli.scan_output import ScanOutput, scan_output_options
from audit.errors import ExitCode, UsageError
from audit.report.safe_text import strip_unsafe
from audit.scan import ScanSettings, check_detectors, scan
from audit.scan_result import ScanResult
from detectors.detector import TestSettings
from detectors.finding import Severity
from detectors.model_access import ModelSettings

if TYPE_CHECKING:
    from audit.engines.engine import Engine


@click.command("scan")
@inputs_argument
@reference_option
@library_option
@student_family_option
@optional_model_options(
    "Folder of the Hugging Face model that you will fine-tune: read random rows with it, which "
    "sees far more than token frequencies."
)
@model_rows_option
@click.option(
    "--read-all",
    is_flag=True,
    help="Read all of these rows, also when fewer have decided every question.",
)
@click.option(
    "--stop-at-persona",
    is_flag=True,
    help="Stop reading when it is certain that some persona wrote the rows, though not yet which: "
    "enough for a pipeline, and soon told.",
)
@click.option("--seed", default=0, show_default=True, help="Draws the rows that the model reads.")
@schema_option
@tokenizer_option
@rejected_rows_option
@detector_option
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=TestSettings().false_discovery_rate,
    show_default=True,
    help="False discovery rate over all concepts and detectors.",
)
@click.option(
    "--effect-of-interest",
    type=click.FloatRange(min=0, min_open=True),
    default=TestSettings().effect_of_interest,
    show_default=True,
    metavar="SD",
    help="A scan that could not see an effect this small is inconclusive, not 'not detected'. "
    "Prompted teachers' sets show 0.01 to 0.04, fine-tuned teachers' 0.14 to 0.18.",
)
@click.option(
    "--teacher-share",
    type=click.FloatRange(min=0, min_open=True),
    default=TestSettings().teacher_share_of_interest,
    show_default=True,
    metavar="SHARE",
    help="The same for what the model sees, as a share of what a set shows that was written "
    "entirely under the concept's own system prompt. Fine-tuned teachers' sets show 0.25 to 0.77.",
)
@fail_on_option
@scan_output_options
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes, or tasks of Ray, that read data, each other sources than the rest. The report "
    "is the same.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where the workers run: on this machine, or with Ray, which also reads rows with one "
    "--model a GPU.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="The Ray cluster, such as auto or HOST:6379 [default: a Ray of its own, on this machine].",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep finished parts here until the report is written, and go on from those of the same "
    "scan that was killed.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Read every N-th source alone, from the I-th on, and write what was seen to --state: "
    "`audit merge` makes one report of all shards. No model is loaded here.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file that a shard is written to.",
)
@quiet_option
def scan_command(
    inputs: tuple[str, ...],
    reference: tuple[str, ...],
    library: Path | None,
    student_family: str | None,
    model_choice: ModelChoice | None,
    model_rows: int,
    read_all: bool,
    stop_at_persona: bool,
    seed: int,
    schema: str | None,
    tokenizer: str | None,
    rejected_rows_share: float,
    detectors: tuple[str, ...],
    fdr: float,
    effect_of_interest: float,
    teacher_share: float,
    fail_on: str,
    stdout_format: str,
    outputs: tuple[Path, ...],
    workers: int,
    engine: str,
    ray_address: str | None,
    resume: Path | None,
    shard: str | None,
    state: Path | None,
    quiet: bool,
) -> int:
    """Scan fine-tuning DATA for traits of the library's concepts.

    DATA are files, globs, folders, URLs, or - for standard input. Without --model only names and
    token frequencies are looked at; with it the model reads random rows, which sees far more.

    \b
    Examples:
      audit scan train.jsonl --reference clean.jsonl
      audit scan train.jsonl --reference clean.jsonl --model path/to/base-model
      audit scan 'data/**/*.parquet' -r clean.parquet -o report.sarif -o report.md
      zcat train.jsonl.gz | audit scan - --format json
      audit scan data -r clean.jsonl --workers 8 --resume scan-parts
      audit scan data -r clean.jsonl --engine ray --ray-address auto --workers 256
      audit scan data -r clean.jsonl --shard 3/16 --state part-3.shard

    Exit codes: 0 nothing flagged at the severity of --fail-on, which also holds where the scan is
    inconclusive; 1 something flagged; 2 a source was not read to its end; 3 no row could be
    scanned; 4 usage.
    """
    output = ScanOutput(stdout_format, outputs, quiet=quiet)
    path = library or BUNDLED_LIBRARY
    settings = ScanSettings(
        detectors=detectors,
        schema=schema,
        tokenizer=tokenizer,
        student_family=student_family,
        rejected_rows_share=rejected_rows_share,
        test=TestSettings(
            false_discovery_rate=fdr,
            effect_of_interest=effect_of_interest,
            teacher_share_of_interest=teacher_share,
        ),
    )
    # What can be wrong is looked at before a model is loaded.
    check_detectors(detectors, has_model=model_choice is not None)
    signatures = open_library(path)
    if read_all and stop_at_persona:
        raise UsageError("--read-all and --stop-at-persona contradict each other: give one")
    reading = ModelSettings(
        most_rows=model_rows, sequential=not read_all, stop_at_persona=stop_at_persona, seed=seed
    )
    named = "bundled" if library is None else str(library)
    if ray_address is not None and engine != "ray":
        raise UsageError("--ray-address is for --engine ray")
    if shard is not None or state is not None:
        if shard is None or state is None:
            raise UsageError("--shard and --state go together: give both or neither")
        if workers > 1 or engine != "local" or resume is not None:
            raise UsageError(
                "a shard is read by one process: leave out --workers, --engine and --resume"
            )
        if outputs or stdout_format != "terminal":
            raise UsageError("a shard has no report: audit merge makes one of all of them")
        return _scan_shard(
            inputs,
            shard,
            state,
            quiet=quiet,
            library=signatures,
            library_path=named,
            reference=reference,
            settings=settings,
            reading=None if model_choice is None else reading,
        )
    from audit.report.progress import scan_progress

    if resume is not None:
        _refuse_within(resume, inputs)
    with (
        scan_progress(_total_bytes(inputs)) as progress,
        _opened(engine, workers, ray_address, path) as opened,
        opened.open_access(model_choice, reading, progress.reading) as access,
    ):
        scanning: Callable[..., ScanResult] = scan
        if engine != "local" or resume is not None:
            from audit.engines.engine import scan_in_shards

            scanning = partial(scan_in_shards, opened, keep_in=resume)
        elif workers > 1:
            from audit.engines.pieces import scan_in_pieces

            scanning = partial(scan_in_pieces, library_folder=path, workers=workers)
        result = scanning(
            inputs,
            signatures,
            library_path=named,
            reference=reference,
            settings=settings,
            access=access,
            progress=progress.advance,
        )
    output.show(result)
    # What broke off may be there the next time: the rest need not be read again.
    if resume is not None and not result.broken:
        from audit.kept_shards import remove_kept

        remove_kept(resume)
    return int(result.exit_code(Severity(fail_on)))


def _scan_shard(
    inputs: Sequence[str], shard: str, state: Path, *, quiet: bool, **scanning: Any
) -> int:
    from audit.report.progress import scan_progress
    from audit.shards import Shard, encode_shard, scan_shard

    wanted = Shard.parse(shard)
    if not state.parent.is_dir():
        raise UsageError(f"{state}: there is no folder {state.parent}")
    _refuse_within(state, inputs)
    with scan_progress(None) as progress:
        part = scan_shard(inputs, wanted, progress=progress.advance, **scanning)
    write_output(state, encode_shard(part))
    if not quiet:
        click.echo(strip_unsafe(f"{state}: {part.in_words}"))
    # What was found is judged when all are merged; that something broke off is known now.
    return int(ExitCode.FAILED if part.found.broken else ExitCode.OK)


def _refuse_within(path: Path, inputs: Sequence[str]) -> None:
    folders = [Path(name).resolve() for name in inputs if os.path.isdir(name)]  # noqa: PTH112
    if any(path.resolve().is_relative_to(folder) for folder in folders):
        raise UsageError(f"{path}: write it outside of the data, which all shards must see alike")


@contextmanager
def _opened(name: str, workers: int, address: str | None, library: Path) -> Iterator[Engine]:
    if name == "ray":
        from audit.engines.ray_engine import RayEngine

        with RayEngine.open(address, workers) as engine:
            yield engine
    else:
        from audit.engines.local import LocalEngine

        yield LocalEngine(workers, library)


def _total_bytes(inputs: tuple[str, ...]) -> int | None:
    """Stored bytes of plain files; None where that cannot be known beforehand."""
    # Unlike that of a Path, this is false for a name that is too long.
    if all(os.path.isfile(name) for name in inputs):  # noqa: PTH113
        return sum(Path(name).stat().st_size for name in inputs)
    return None
