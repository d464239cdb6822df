"""``audit doctor``: parse, call, render."""

from __future__ import annotations

import sys

import click

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.cli.scan_options import stdout_format_option


@click.command("doctor")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="For the import of torch, and for that of vLLM, each in a process of its own.",
)
@stdout_format_option
def doctor_command(time_limit: float, stdout_format: str) -> int:
    """Say what works on this machine, and what mends the rest.

    Looks at the versions of all packages, the processor, memory, GPU, vLLM, the bundled library,
    the embedded model, the cache, the self-check and git. Changes nothing and fetches nothing.

    \b
    Examples:
      audit doctor
      audit doctor --format json

    Exit codes: 0 all that is needed works, though optional parts may be missing; 2 something is
    broken.
    """
    from audit.doctor import diagnose

    diagnosis = diagnose(BUNDLED_LIBRARY, time_limit_seconds=time_limit)
    if stdout_format == "json":
        from audit.report.doctor_json import render_diagnosis

        sys.stdout.buffer.write(render_diagnosis(diagnosis))
        sys.stdout.buffer.flush()
    else:
        from rich.console import Console

        from audit.report.doctor_terminal import render

        Console().print(render(diagnosis))
    return int(diagnosis.exit_code())
