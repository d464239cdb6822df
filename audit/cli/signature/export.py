"""``audit signature export``: a library's shifts as a table for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from audit.cli.library_option import open_library
from audit.cli.output import write_output
from audit.errors import UsageError
from audit.shift_table import TableFormat
from signatures.signature import Probe, View


@click.command("export")
@click.argument("library", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New file.")
@click.option(
    "-f",
    "--format",
    "table_format",
    type=click.Choice([str(table_format) for table_format in TableFormat]),
    help="[default: what the file's suffix says]",
)
@click.option(
    "--view", type=click.Choice([str(view) for view in View]), default="numbers", show_default=True
)
@click.option(
    "--probe",
    type=click.Choice([str(probe) for probe in Probe]),
    help="Which table [default: the only one of the view].",
)
@click.option("--centred", is_flag=True, help="Less the shift that all concepts share (hubs).")
def export_command(
    library: Path,
    output: Path,
    table_format: str | None,
    view: str,
    probe: str | None,
    centred: bool,
) -> None:
    """Write a table of shifts in nats: one row a unit, one column a concept.

    `audit signature import` reads it.

    \b
    Examples:
      audit signature export my-library -o shifts.parquet
      audit signature export my-library --probe context -o shifts.csv
    """
    from audit.shift_table import encode_table, format_of
    from audit.signature_export import export_shifts

    chosen = TableFormat(table_format) if table_format else format_of(output)
    if chosen is None:
        raise UsageError(
            f"{output}: the suffix says no format; end it in .{', .'.join(TableFormat)}, "
            "or give --format"
        )
    opened = open_library(library)
    frame = export_shifts(opened, View(view), Probe(probe) if probe else None, centred=centred)
    data = encode_table(frame, chosen)
    write_output(output, data)
    click.echo(
        f"{output}: {frame.height:,} units x {frame.width - 1} concepts, {len(data):,} bytes",
        err=not output.is_file(),
    )
