"""``audit signature check``: is a library whole, and is it of this model?"""

from __future__ import annotations

from pathlib import Path

import click

from audit.errors import ExitCode
from signatures.library import SIGNATURE_NAME
from signatures.library_check import Check, check_library, check_model

_LABELS = {True: "ok", False: "WRONG", None: "-"}


@click.command("check")
@click.argument("library", type=click.Path(path_type=Path))
@click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Compare the fingerprints of weights, tokenizer and chat template with this folder's.",
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Verify the library's signature with this key (PEM).",
)
def check_command(library: Path, model_path: Path | None, public_key: Path | None) -> int:
    """Verify every file of a library against its hashes.

    With --model also that it is of this model, with --public-key its signature.

    \b
    Examples:
      audit signature check my-library
      audit signature check my-library --model DIR --public-key public.pem

    Exit codes: 0 nothing is wrong; 2 something is; 4 usage.
    """
    from audit.model_fingerprints import fingerprint_folder
    from audit.report.safe_text import strip_unsafe
    from audit.signature_signing import check_signature

    checks = list(check_library(library))
    if checks[0].ok and model_path is not None:
        checks += check_model(library, fingerprint_folder(model_path))
    if public_key is not None:
        checks.append(check_signature(library, public_key))
    elif (library / SIGNATURE_NAME).exists():
        checks.append(Check(SIGNATURE_NAME, None, "not verified: give --public-key"))
    for check in checks:
        # What is wrong begins with the path of the file.
        text = check.detail if check.ok is False else f"{check.subject}: {check.detail}"
        click.echo(strip_unsafe(f"{_LABELS[check.ok]:5}  {text}"))
    return int(ExitCode.FAILED if any(check.ok is False for check in checks) else ExitCode.OK)
