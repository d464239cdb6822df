"""``audit signature sign``: sign a library with a private key."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("sign")
@click.argument("library", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--key",
    "private_key",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Private key (PEM; elliptic curve P-256, P-384 or P-521).",
)
@click.option("--password", envvar="AUDIT_KEY_PASSWORD", help="The key's, if it is encrypted.")
def sign_command(library: Path, private_key: Path, password: str | None) -> None:
    """Sign a library: writes signature.sig beside its manifest. Nothing goes over the network.

    \b
    Examples:
      audit signature sign my-library --key private.pem
    """
    from audit.signature_signing import sign_library

    path = sign_library(library, private_key, password)
    click.echo(f"{path}: written; verify with  audit signature check --public-key KEY")
