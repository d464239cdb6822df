"""The ``audit`` command: a table of commands, each loaded when it is called."""

from __future__ import annotations

import contextlib
import errno
import sys
import traceback
from importlib import import_module
from pathlib import Path

import click

from audit.cli.lazy_group import LazyGroup
from audit.cli.streams import (
    EndedError,
    ReaderGoneError,
    ending_signals,
    flush_output,
    watch_streams,
)
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
    code: int = ExitCode.FAILED
    try:
        watch_streams()
        with ending_signals():
            code = _finished(arguments)
    except BaseException as error:
        # Python would exit with 1, which means findings here.
        code = ExitCode.FAILED
        with contextlib.suppress(BaseException):
            _tell(f"stopped while it was ending ({type(error).__name__}): nothing was decided")
    sys.exit(code)


def _finished(arguments: list[str] | None) -> int:
    """The exit code, once all is written and said."""
    usage, quiet = "", False
    try:
        code = cli.main(arguments, prog_name="audit", standalone_mode=False)
        flush_output()
        return code if isinstance(code, int) else ExitCode.OK
    except ReaderGoneError as error:
        message, code, quiet = str(error), error.exit_code, True
    except AuditError as error:
        message, code = str(error), error.exit_code
    except click.ClickException as error:
        message, code = error.format_message(), ExitCode.USAGE
        if isinstance(error, click.UsageError) and error.ctx:
            usage = error.ctx.get_usage()
    except SystemExit as error:  # completion of words ends by itself
        return error.code if isinstance(error.code, int) else ExitCode.OK
    except click.Abort:
        message, code = "stopped before it was finished: nothing was decided", ExitCode.FAILED
    except EndedError as error:
        message = f"stopped by {error} before it was finished: nothing was decided"
        code = ExitCode.FAILED
    except Exception as error:
        code = ExitCode.FAILED
        if _ran_out_of_memory(error):
            message = (
                "memory ran out: nothing was decided; free some, raise the limit of this process, "
                "give less data at once, or with a model use --dtype bfloat16 and fewer rows"
            )
        else:
            traceback.print_exc()
            message = f"a defect in audit ({type(error).__name__}): nothing was decided"
    # Out here the error's frames are gone, and what they held of memory.
    if not quiet:
        _tell(message, usage)
    return code


def _ran_out_of_memory(error: Exception) -> bool:
    """Also what torch raises, on GPUs and on CPUs, without importing it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        # A limit on memory leaves no room for a library that is loaded on demand.
        or (isinstance(error, ImportError) and "failed to map segment" in str(error))
    )


def _tell(message: str, usage: str = "") -> None:
    if usage:
        click.echo(usage, err=True)
    click.echo(f"audit: {strip_unsafe(message)}", err=True)
