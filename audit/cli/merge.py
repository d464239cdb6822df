"""``audit merge``: parse, configure, call, render."""

from __future__ import annotations

from pathlib import Path

import click

from audit.backends.open_model import ModelChoice
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.model_options import optional_model_options
from audit.cli.scan_options import fail_on_option, library_option, quiet_option
from audit.cli.scan_output import ScanOutput, scan_output_options
from audit.model_reading import open_access
from detectors.finding import Severity
from detectors.model_access import ModelSettings


@click.command("merge")
@click.argument(
    "shards",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="SHARD...",
)
@click.option(
    "-r",
    "--reference",
    multiple=True,
    metavar="DATA",
    help="Where the reference lies now [default: where the shards found it].",
)
@library_option
@optional_model_options(
    "Folder of the model that reads rows, where the shards were made with --model: it reads them "
    "here."
)
@fail_on_option
@scan_output_options
@quiet_option
def merge_command(
    shards: tuple[Path, ...],
    reference: tuple[str, ...],
    library: Path | None,
    model_choice: ModelChoice | None,
    fail_on: str,
    stdout_format: str,
    outputs: tuple[Path, ...],
    quiet: bool,
) -> int:
    """Make one report of all SHARDs that `audit scan --shard` wrote.

    The report is that of a scan in one piece, byte for byte, whatever the number and order of the
    shards. The reference is read once more. A shard that is missing, or of another scan, is an
    error: nothing is decided without it.

    \b
    Examples:
      audit scan data -r clean.jsonl --shard 1/2 --state part-1.shard
      audit scan data -r clean.jsonl --shard 2/2 --state part-2.shard
      audit merge part-1.shard part-2.shard -o report.html

    Exit codes: as of `audit scan`; 2 also where a shard is missing or damaged.
    """
    output = ScanOutput(stdout_format, outputs, quiet=quiet)
    signatures = open_library(library or BUNDLED_LIBRARY)
    from audit.report.progress import scan_progress
    from audit.shards import merge_shards, read_shard

    parts = [read_shard(path) for path in shards]
    reading = parts[0].asked.reading or ModelSettings()
    with (
        scan_progress(None) as progress,
        open_access(model_choice, reading, progress.reading) as access,
    ):
        result = merge_shards(parts, signatures, reference=reference or None, access=access)
    output.show(result)
    return int(result.exit_code(Severity(fail_on)))
