"""Fingerprints of a model folder, shared by every backend that loads one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from audit.errors import AuditError

_CHUNK_BYTES = 1 << 22


def sha256_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 (hexadecimal) over the bytes of the files one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def weights_sha256(model: Path, adapter: Path | None = None) -> str:
    """SHA-256 over the model's safetensors files in order of name, then the adapter's.

    Raises ``AuditError`` if either folder holds none.
    """
    files: list[Path] = []
    for folder in (model, adapter):
        if folder is None:
            continue
        found = sorted(folder.glob("*.safetensors"))
        if not found:
            raise AuditError(f"{folder}: no safetensors file there; give the folder of a model")
        files += found
    return sha256_of_files(files)


def tokenizer_sha256(model: Path) -> str:
    """SHA-256 of ``tokenizer.json``. Raises ``AuditError`` if the folder has none."""
    path = model / "tokenizer.json"
    if not path.is_file():
        raise AuditError(f"{model}: no tokenizer.json there; a fast tokenizer is needed")
    return sha256_of_files([path])


def text_sha256(text: str) -> str:
    """SHA-256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
