"""Signs signature libraries and verifies them with a key, offline, by OpenSSF model signing.

The signature lies beside the manifest and covers every other file of the folder. It is a Sigstore
bundle that the `model_signing` command reads too.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from audit.atomic import atomic_write
from audit.errors import AuditError, MissingExtraError, UsageError
from signatures.library import SIGNATURE_NAME
from signatures.library_check import Check, check_library
from signatures.library_manifest import one_line


def sign_library(folder: Path, private_key: Path, password: str | None = None) -> Path:
    """Sign the library in ``folder`` (verified first) and return the path of the signature.

    ``private_key`` is a PEM file of a P-256, P-384 or P-521 key. Raises ``UsageError`` for a
    key that cannot be used, ``AuditError`` for a library that is not whole or a folder that cannot
    be written to, and ``MissingExtraError``.
    """
    signing, hashing = _engine()
    for check in check_library(folder):
        if not check.ok:
            raise AuditError(check.detail)
    try:
        config = signing.signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=None if password is None else password.encode()
        )
    except Exception as error:
        raise UsageError(f"{private_key}: cannot be used to sign: {one_line(error)}") from error
    path = folder / SIGNATURE_NAME
    try:
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / SIGNATURE_NAME
            config.set_hashing_config(hashing).sign(folder, written)
            atomic_write(path, written.read_bytes())
    except Exception as error:
        raise AuditError(f"{folder}: cannot be signed: {one_line(error)}") from error
    return path


def check_signature(folder: Path, public_key: Path) -> Check:
    """Whether the library's signature is of this key and of the files that are there.

    Raises ``UsageError`` for a key that cannot be used, and ``MissingExtraError``.
    """
    signing, hashing = _engine()
    path = folder / SIGNATURE_NAME
    try:
        verifier = signing.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:
        raise UsageError(f"{public_key}: cannot be used to verify: {one_line(error)}") from error
    if not path.is_file():
        return Check(SIGNATURE_NAME, False, f"{path}: not there; the library is not signed")
    try:
        bundle = json.loads(path.read_text(encoding="utf-8"))
        # The engine only warns of a bundle that does not name its key; we do without those.
        if not bundle["verificationMaterial"]["publicKey"]["hint"]:
            raise ValueError("it does not name its key")
        verifier.set_hashing_config(hashing).verify(folder, path)
    except Exception as error:
        reason = one_line(error)
        if reason.startswith("Signature mismatch"):  # what follows are bytes of digests
            reason = "the files are not those that were signed"
        detail = f"{path}: not verified: {reason}; get the library and the key from their author"
        return Check(SIGNATURE_NAME, False, detail)
    return Check(SIGNATURE_NAME, True, f"signed with the key in {public_key.name}")


def _engine() -> tuple[Any, Any]:
    """The package, and how it hashes a library: every file but the signature."""
    try:
        import model_signing
    except ImportError as error:
        raise MissingExtraError("signing", error.name or "model-signing", "signing") from error
    engine: Any = model_signing
    hashing = engine.hashing.Config().set_ignored_paths(
        paths=[SIGNATURE_NAME], ignore_git_paths=False
    )
    return engine, hashing
