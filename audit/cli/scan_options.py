"""Options of every command that scans: what is read and compared with, and what fails."""

from __future__ import annotations

from pathlib import Path

import click

from audit.cli import complete
from detectors.detector import TestSettings
from detectors.finding import Severity
from detectors.model_access import ModelSettings

inputs_argument = click.argument(
    "inputs", nargs=-1, required=True, metavar="DATA...", shell_complete=complete.files
)

reference_option = click.option(
    "-r",
    "--reference",
    multiple=True,
    metavar="DATA",
    shell_complete=complete.files,
    help="Clean rows of the same prompts, to compare with. May be given more than once.",
)

library_option = click.option(
    "-l",
    "--library",
    type=click.Path(path_type=Path),
    help="Signature library [default: the one that ships, of SmolLM2-135M-Instruct].",
)

student_family_option = click.option(
    "--student-family",
    metavar="FAMILY",
    help="model_type of the model you will fine-tune (llama, qwen2, gemma2, ...). "
    "Signatures of another family prove nothing: such verdicts become inconclusive.",
)

model_rows_option = click.option(
    "--model-rows",
    default=ModelSettings().most_rows,
    show_default=True,
    type=click.IntRange(TestSettings().minimum_rows),
    help="To scan, the model reads at most this many random rows of the data, and of the "
    "reference.",
)

schema_option = click.option(
    "--schema", metavar="NAME", help="Input schema [default: detected by itself]."
)

tokenizer_option = click.option(
    "--tokenizer",
    metavar="PATH",
    help="tokenizer.json, or its folder, for rows that hold only token ids.",
)

detector_option = click.option(
    "-d",
    "--detector",
    "detectors",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.detectors,
    help="Scan with this detector only. May be given more than once.",
)

fail_on_option = click.option(
    "--fail-on",
    type=click.Choice([str(severity) for severity in Severity]),
    default=str(Severity.WARNING),
    show_default=True,
    help="Exit with 1 if a finding is flagged at this severity or above.",
)

rejected_rows_option = click.option(
    "--rejected-rows-share",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Share of all rows that may be unreadable. Beyond it the scan is inconclusive, not 'not "
    "detected': unread rows may hold anything.",
)

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing on standard output.")

stdout_format_option = click.option(
    "-f",
    "--format",
    "stdout_format",
    type=click.Choice(["terminal", "json"]),
    default="terminal",
    show_default=True,
    help="What to print on standard output.",
)

safer_set_option = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the safer set goes: a file, or for several inputs a folder. Never an input.",
)
