"""``audit baseline``: parse, configure, call, write."""

from __future__ import annotations

import datetime
from pathlib import Path

import click

from audit.backends.open_model import ModelChoice
from audit.cli.gate_options import gate_options, gate_result
from audit.cli.output import write_output
from audit.errors import ExitCode, UsageError
from audit.gate.baseline import read_baseline, render_baseline
from audit.gate.config import GateConfig


@click.command("baseline")
@gate_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the baseline goes [default: the baseline of the settings].",
)
@click.option("--owner", default="", metavar="NAME", help="Who answers for these findings.")
@click.option("--reason", default="", metavar="TEXT", help="Why they are let through.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on standard output.")
def baseline_command(
    config: GateConfig,
    today: datetime.date,
    model_choice: ModelChoice | None,
    output: Path | None,
    owner: str,
    reason: str,
    quiet: bool,
) -> int:
    """Record what is flagged today, so that `audit gate` holds only what is new or has grown.

    Findings that a suppression covers are left out. Nothing is written where a data set was not
    read to its end. Commit the file: whoever reviews it sees what is let through.

    \b
    Examples:
      audit baseline --owner data-team --reason "known before the gate came, ticket 12"
      audit baseline -o known.json
    """
    from audit.gate.new_baseline import new_baseline
    from audit.report.safe_text import strip_unsafe
    from audit.report.summary import plural

    configured = None if config.baseline is None else config.root / config.baseline
    path = output or configured
    if path is None:
        raise UsageError(f'name the file: baseline = "audit-baseline.json" in {config.file}, or -o')
    path = path.absolute()
    try:
        old = read_baseline(path)  # what is no baseline is not replaced
    except FileNotFoundError:
        old = ()
    made = new_baseline(gate_result(config, today, model_choice), old, owner=owner, reason=reason)
    write_output(path, render_baseline(made.entries))
    if not quiet:
        kept = len(made.entries) - len(made.added)
        click.echo(
            f"{strip_unsafe(str(path))}: {plural(len(made.entries), 'finding')} "
            f"({len(made.added):,} new, {kept:,} known, {len(made.removed):,} gone)"
        )
        for sign, entries in (("+", made.added), ("-", made.removed)):
            for e in entries:
                click.echo(strip_unsafe(f"  {sign} {e.data}: {e.concept} flagged by {e.code}"))
        for name in made.left_out:
            click.echo(strip_unsafe(f"  not recorded, as its effect is not measured: {name}"))
        if any(not (entry.owner and entry.reason) for entry in made.entries):
            click.echo("  some have no owner or no reason: give --owner and --reason")
        if configured is None or path != configured.absolute():
            click.echo("  to use it:  audit gate --baseline, or baseline = in the settings")
    return int(ExitCode.OK)
