"""Signature libraries on disk: a folder with a manifest, Parquet tables and a hash of each.

Only JSON and Parquet are read, so opening a library from a stranger runs nothing of theirs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from signatures.causal import CausalTrial, causal_frame
from signatures.concept import Concept
from signatures.language_model import ModelIdentity
from signatures.library_files import file_sha256, read_causal, read_table
from signatures.library_manifest import (
    CAUSAL_NAME,
    FORMAT_VERSION,
    LIBRARY_FILES,
    MANIFEST_NAME,
    SIGNATURE_NAME,
    LibraryError,
    ProbeRecord,
    manifest_text,
    one_line,
    read_manifest,
)
from signatures.number_trie import NumberTokens
from signatures.signature import IN_DISTRIBUTION, Probe, ProbeTable, View

__all__ = [
    "CAUSAL_NAME",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "SIGNATURE_NAME",
    "LibraryError",
    "ProbeRecord",
    "SignatureLibrary",
    "load_library",
    "save_library",
]


@dataclass(frozen=True, slots=True)
class SignatureLibrary:
    """Signatures that share a model. ``content_sha256`` is empty until it is saved or loaded.

    ``number_tokens`` says how the model's tokenizer writes numbers. A table may hold only some of
    the concepts. There is one table a probe and view, and ``causal`` says what prompting with
    the entangled units did.
    """

    name: str
    tool_version: str
    model: ModelIdentity
    number_tokens: NumberTokens
    concepts: tuple[Concept, ...]
    probes: tuple[ProbeRecord, ...]
    tables: tuple[ProbeTable, ...]
    causal: tuple[CausalTrial, ...] = ()
    content_sha256: str = ""

    def traits(self) -> tuple[Concept, ...]:
        """The concepts that a scan looks for."""
        return tuple(concept for concept in self.concepts if not concept.is_decoy)

    def decoys(self) -> tuple[Concept, ...]:
        """The concepts that only calibrate."""
        return tuple(concept for concept in self.concepts if concept.is_decoy)

    def concept(self, name: str) -> Concept:
        """The concept called ``name``. Raises ``KeyError``."""
        for concept in self.concepts:
            if concept.name == name:
                return concept
        raise KeyError(name)

    def tables_of(self, view: View) -> tuple[ProbeTable, ...]:
        """The tables to score ``view`` with: those measured in real contexts, or failing them all.

        A prompted teacher and a fine-tuned one shift different units, so each has its table.
        Unembedding tables are for study alone: as a detector their geometry is at chance (Zur et
        al. 2025's own files).
        """
        tables = tuple(
            table
            for table in self.tables
            if table.view is view and table.probe is not Probe.UNEMBEDDING
        )
        return tuple(table for table in tables if table.probe in IN_DISTRIBUTION) or tables


def save_library(library: SignatureLibrary, folder: Path) -> SignatureLibrary:
    """Write ``library`` to ``folder`` (whole or not at all) and return it with its content hash.

    An existing library there is replaced, its signature with it; any other existing, non-empty
    folder is refused. Raises ``LibraryError`` in one line, also for what cannot be stored.
    """
    files_of = {record.file_name for record in library.probes}
    if len(files_of) != len(library.probes):
        raise LibraryError("a library has one table a probe and view: merge them first")
    refuse_foreign(folder)
    target = folder.resolve()
    staging = target
    try:
        with _staged(target) as staging:
            content = _write(library, staging)
            load_library(staging)  # what cannot be opened must not take the place of what can
    except (OSError, TypeError, ValueError, RecursionError) as error:
        reason = one_line(error).replace(str(staging), str(folder))
        raise LibraryError(f"{folder}: cannot be written: {reason}") from error
    return replace(library, content_sha256=content)


def load_library(folder: Path) -> SignatureLibrary:
    """Read and verify a library. Raises ``LibraryError``, in one line, for anything wrong.

    Every file's hash, and the manifest's own, must be right: a changed byte is refused. Files that
    the manifest does not name are not opened.
    """
    manifest = read_manifest(folder)
    tables = tuple(
        read_table(folder, manifest, record, concepts)
        for record, concepts in zip(manifest.probes, manifest.table_concepts, strict=True)
    )
    return SignatureLibrary(
        manifest.name,
        manifest.tool_version,
        manifest.model,
        manifest.number_tokens,
        manifest.concepts,
        manifest.probes,
        tables,
        read_causal(folder, manifest),
        manifest.content_sha256,
    )


def _write(library: SignatureLibrary, folder: Path) -> str:
    """Write every file and return the content hash."""
    files = {}
    for record, table in zip(library.probes, library.tables, strict=True):
        if (record.view, record.probe) != (table.view, table.probe):
            raise ValueError(f"the record of the {record.file_name} table is another table's")
        files[record.file_name] = _write_frame(table.to_frame(), folder / record.file_name)
    if library.causal:
        files[CAUSAL_NAME] = _write_frame(causal_frame(library.causal), folder / CAUSAL_NAME)
    text, content = manifest_text(
        name=library.name,
        tool_version=library.tool_version,
        model=library.model,
        number_tokens=library.number_tokens,
        concepts=library.concepts,
        probes=library.probes,
        table_concepts=[table.concepts for table in library.tables],
        files=files,
    )
    (folder / MANIFEST_NAME).write_bytes(text.encode())
    return content


def _write_frame(frame: pl.DataFrame, path: Path) -> str:
    frame.write_parquet(path, compression="zstd", compression_level=19)
    return file_sha256(path)


def refuse_foreign(folder: Path) -> None:
    """Raise ``LibraryError`` if a library cannot be written to ``folder``.

    Only a library and nothing else may be replaced: other programs have manifests too.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise LibraryError(f"{folder}: is no folder; choose another")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    foreign = [name for name in names if name not in LIBRARY_FILES]
    if foreign or not _is_library(folder / MANIFEST_NAME):
        raise LibraryError(
            f"{folder}: exists and holds something else than a signature library"
            f"{f' ({foreign[0]})' if foreign else ''}; choose another folder"
        )


def _is_library(manifest: Path) -> bool:
    try:
        return "format_version" in json.loads(manifest.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder to write to, which takes ``target``'s place if nothing is raised."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name[:80]}-", dir=target.parent))
    try:
        yield staging
        for path in staging.iterdir():
            _sync(path)
        _sync(staging)
        staging.chmod(0o755)
        _swap(staging, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(staging: Path, folder: Path) -> None:
    """Put ``staging`` where ``folder`` is; the old one goes only after the new one is in place."""
    if not folder.exists():
        staging.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name[:80]}-old-", dir=folder.parent))
    folder.rename(old / "library")
    try:
        staging.rename(folder)
    except OSError:
        (old / "library").rename(folder)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
