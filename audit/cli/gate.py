"""``audit gate``: parse, configure, call, render."""

from __future__ import annotations

import dataclasses
import datetime
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from audit.backends.open_model import ModelChoice
from audit.cli.gate_options import gate_options, gate_result
from audit.cli.output import write_output
from audit.cli.scan_options import stdout_format_option
from audit.errors import AuditError, UsageError
from audit.gate.baseline import BaselineEntry, read_baseline
from audit.gate.changes import changes_since
from audit.gate.config import GateConfig
from audit.gate.result import GateResult
from audit.report.gate_formats import GATE_FORMATS, gate_format_of


@click.command("gate")
@gate_options
@click.option(
    "--baseline",
    "baseline_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Let through what this file records [default: the baseline of the settings].",
)
@click.option(
    "--changed-since",
    metavar="REF",
    help="Scan only data sets that differ from this commit or branch, or that git does not know.",
)
@stdout_format_option
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also write a report, in the format of the file's ending "
    "(.json, .sarif, .xml, .md, .html, .txt).",
)
@click.option(
    "--github",
    is_flag=True,
    help="In GitHub Actions: print annotations, and add to the summary of the step.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print no report on standard output.")
def gate_command(
    config: GateConfig,
    today: datetime.date,
    model_choice: ModelChoice | None,
    baseline_path: Path | None,
    changed_since: str | None,
    stdout_format: str,
    outputs: tuple[Path, ...],
    github: bool,
    quiet: bool,
) -> int:
    """Scan the data sets that the settings name, and hold the pipeline where something counts.

    Exits with 0 if all pass, 1 if one is held, 2 if one was not read to its end, 3 if one has
    nothing that can be scanned, 4 if the settings mean nothing.

    \b
    Examples:
      audit gate
      audit gate --changed-since origin/main
      audit gate -o gate.sarif -o gate.xml -o gate.html
      audit gate --config data/audit.toml --baseline known.json -f json
    """
    if github and stdout_format == "json" and not quiet:
        raise UsageError(
            "--github prints on standard output too: write the JSON with  -o gate.json"
        )
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise UsageError("two reports would go to the same file")
    targets = [(path.absolute(), gate_format_of(path)) for path in outputs]
    for _, format_ in targets:
        format_.check()
    if baseline_path is not None:
        if not baseline_path.exists():
            raise UsageError(
                f"{baseline_path} does not exist: write it with  audit baseline -o FILE"
            )
        named = os.path.relpath(baseline_path.absolute(), config.root)
        config = dataclasses.replace(config, baseline=named)
    result = gate_result(
        config,
        today,
        model_choice,
        baseline=_baseline(config),
        changes=None if changed_since is None else changes_since(changed_since, config.root),
    )
    # Everything is rendered before the first file is touched.
    for path, content in [(path, format_.render(result)) for path, format_ in targets]:
        write_output(path, content)
    if not quiet and not github:
        _show(result, stdout_format)
    if github:
        _show_github(result, report=not quiet)
    return int(result.exit_code)


def _baseline(config: GateConfig) -> Sequence[BaselineEntry] | None:
    """None where there is none, or none yet: then nothing is let through."""
    if config.baseline is None:
        return None
    try:
        return read_baseline(config.root / config.baseline)
    except FileNotFoundError:
        return None


def _show(result: GateResult, stdout_format: str) -> None:
    if stdout_format == "terminal":
        from rich.console import Console

        from audit.report.gate_terminal import render

        Console().print(render(result))
        return
    sys.stdout.buffer.write(GATE_FORMATS[stdout_format].render(result))
    sys.stdout.buffer.flush()


def _show_github(result: GateResult, *, report: bool) -> None:
    from audit.report.gate_github import to_annotations, to_summary

    if report:
        # Nothing that a report quotes may be taken for a command of the workflow.
        token = secrets.token_hex(16)
        click.echo(f"::stop-commands::{token}")
        _show(result, "terminal")
        click.echo(f"::{token}::")
    click.echo(to_annotations(result), nl=False)
    summary_file = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary_file:
        try:
            with Path(summary_file).open("a", encoding="utf-8") as stream:
                stream.write(to_summary(result))
        except OSError as error:
            reason = error.strerror or error
            raise AuditError(f"{summary_file}: cannot be written: {reason}") from error
