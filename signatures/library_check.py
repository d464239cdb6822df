"""Everything that can be verified of a library on disk, one result a file or fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from signatures.language_model import ModelIdentity
from signatures.library import LibraryError
from signatures.library_files import read_causal, read_table
from signatures.library_manifest import (
    CAUSAL_NAME,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    one_line,
    read_manifest,
)
from signatures.library_model import match_fingerprints


@dataclass(frozen=True, slots=True)
class Check:
    """``subject`` is a file's name or what was compared; ``detail`` one line for people.

    Where it is not ``ok``, ``detail`` says which file, what is wrong and what to do; None is not
    verified.
    """

    subject: str
    ok: bool | None
    detail: str


def check_library(folder: Path) -> tuple[Check, ...]:
    """Manifest, every table with its hash and invariants, causal trials, and no other files.

    With a manifest that cannot be trusted, that is the only result.
    """
    try:
        manifest = read_manifest(folder)
    except LibraryError as error:
        return (Check(MANIFEST_NAME, False, str(error)),)
    checks = [
        Check(
            MANIFEST_NAME,
            True,
            f"library {manifest.name!r} of {len(manifest.concepts)} concepts, "
            f"content {manifest.content_sha256[:12]}",
        )
    ]
    for record, concepts in zip(manifest.probes, manifest.table_concepts, strict=True):
        try:
            table = read_table(folder, manifest, record, concepts)
            detail = f"{len(concepts)} concepts x {len(table.units):,} units"
            checks.append(Check(record.file_name, True, detail))
        except LibraryError as error:
            checks.append(Check(record.file_name, False, str(error)))
    try:
        trials = read_causal(folder, manifest)
        if CAUSAL_NAME in manifest.files:
            checks.append(Check(CAUSAL_NAME, True, f"{len(trials):,} trials"))
    except LibraryError as error:
        checks.append(Check(CAUSAL_NAME, False, str(error)))
    known = {MANIFEST_NAME, SIGNATURE_NAME, *manifest.files}
    try:
        extra = sorted(path.name for path in folder.iterdir() if path.name not in known)
    except OSError as error:
        return (*checks, Check("other files", False, f"{folder}: {one_line(error)}"))
    checks += [
        Check(name, False, f"{folder / name}: is no part of the library; remove it")
        for name in extra
    ]
    if not extra:
        checks.append(Check("other files", True, "none"))
    return tuple(checks)


def check_model(folder: Path, identity: ModelIdentity) -> tuple[Check, ...]:
    """Whether the library in ``folder`` is of the model ``identity``, fingerprint by fingerprint.

    Raises ``LibraryError`` if its manifest cannot be trusted.
    """
    checks = []
    for match in match_fingerprints(read_manifest(folder).model, identity):
        if match.agrees:
            checks.append(Check(match.what, True, f"{match.first[:12]}, as in {identity.name!r}"))
        elif not match.first:
            detail = f"{folder}: does not record its {match.what}; build a library of this model"
            checks.append(Check(match.what, False, detail))
        else:
            detail = (
                f"{folder}: measured with the {match.what} {match.first[:12]}, "
                f"{identity.name!r} has {match.second[:12]}; "
                "give its own model, or build a library of this one"
            )
            checks.append(Check(match.what, False, detail))
    return tuple(checks)
