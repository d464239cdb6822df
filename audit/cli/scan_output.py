"""How commands show the result of a scan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from audit.report.formats import FORMATS, check_formats, format_for_path, write_outputs
from audit.scan_result import ScanResult


def scan_output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format and --output, as ``stdout_format`` and ``outputs``."""
    endings = click.option(
        "-o",
        "--output",
        "outputs",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Also write a report, in the format of the file's ending "
        "(.json, .sarif, .xml, .md, .html, .txt).",
    )
    printed = click.option(
        "-f",
        "--format",
        "stdout_format",
        type=click.Choice(list(FORMATS)),
        default="terminal",
        show_default=True,
        help="What to print on standard output.",
    )
    return printed(endings(command))


class ScanOutput:
    """Where the result of a scan goes."""

    def __init__(self, stdout_format: str, outputs: Sequence[Path], *, quiet: bool) -> None:
        """Raises ``UsageError`` for an ending that names no format, and ``MissingExtraError`` for a
        format that could not be written, before hours of work."""
        self._stdout_format = stdout_format
        self._targets = [(format_for_path(path), path) for path in outputs]
        self._quiet = quiet
        check_formats([stdout_format, *(name for name, _ in self._targets)])

    def show(self, result: ScanResult) -> None:
        """Write and print it. Raises ``AuditError`` if a file cannot be written."""
        if self._targets:
            write_outputs(result, self._targets)
        if self._quiet:
            return
        if self._stdout_format == "terminal":
            from rich.console import Console

            from audit.report.terminal import render

            Console().print(render(result))
        else:
            sys.stdout.buffer.write(FORMATS[self._stdout_format].render(result))
            sys.stdout.buffer.flush()
