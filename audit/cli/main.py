"""The ``audit`` command: a table of commands, each loaded when it is called."""

from __future__ import annotations

import io
import sys
import traceback
from importlib import import_module
from pathlib import Path

import click

from audit.cli.lazy_group import LazyGroup
from audit.errors import AuditError, ExitCode
from audit.report.safe_text import strip_unsafe
from audit.version import tool_version

_COMMANDS = {
    "scan": "audit.cli.scan:scan_command",
    "merge": "audit.cli.merge:merge_command",
    "sanitise": "audit.cli.sanitise:sanitise_command",
    "run": "audit.cli.run:run_command",
    "verify": "audit.cli.verify:verify_command",
    "gate": "audit.cli.gate:gate_command",
    "baseline": "audit.cli.baseline:baseline_command",
    "concepts": "audit.cli.concepts:concepts_command",
    "signature": "audit.cli.signature:signature_group",
    "model": "audit.cli.model:model_group",
    "doctor": "audit.cli.doctor:doctor_command",
    "completion": "audit.cli.completion:completion_command",
}


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"subliminal-audit {tool_version()}")
    for package in ("audit", "detectors", "signatures"):
        origin = import_module(package).__file__
        click.echo(f"{package}: {Path(str(origin)).parent}")
    ctx.exit(ExitCode.OK)


@click.group(
    cls=LazyGroup,
    commands_by_name=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 nothing found at the failing severity, 1 findings, 2 failed or "
    "incomplete, 3 nothing scannable, 4 usage.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, and where the packages come from.",
)
def cli() -> None:
    """Audit LLM fine-tuning data for subliminal traits.

    \b
    Examples:
      audit scan train.jsonl --reference clean.jsonl
      audit gate --changed-since origin/main
      audit COMMAND --help
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with one of ``audit.errors.ExitCode``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a report must not die of a narrow encoding
    try:
        code = cli.main(arguments, prog_name="audit", standalone_mode=False)
    except AuditError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        _fail(error.format_message(), ExitCode.USAGE, usage)
    except click.Abort:
        _fail("stopped before it was finished: nothing was decided", ExitCode.FAILED)
    except BrokenPipeError:
        # Whoever read standard output has gone; Python would complain again at shutdown.
        sys.stdout = None
        sys.exit(ExitCode.FAILED)
    except Exception as error:
        # Python would exit with 1, which means findings here.
        traceback.print_exc()
        _fail(f"a defect in audit ({type(error).__name__}): nothing was decided", ExitCode.FAILED)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _fail(message: str, code: ExitCode, usage: str = "") -> None:
    if usage:
        click.echo(usage, err=True)
    click.echo(f"audit: {strip_unsafe(message)}", err=True)
    sys.exit(code)
