"""Signature libraries on disk: a folder with a manifest, Parquet tables and a hash of each.

Only JSON and Parquet are read, so opening a library from a stranger runs nothing of theirs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from signatures.causal import CausalTrial, causal_frame, causal_from_frame
from signatures.concept import Concept, ConceptKind, Question
from signatures.language_model import ModelIdentity
from signatures.number_trie import NumberTokens
from signatures.signature import IN_DISTRIBUTION, Probe, ProbeTable, View, table_from_frame

FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
CAUSAL_NAME = "causal.parquet"


class LibraryError(ValueError):
    """A library cannot be used. The message is one line: which file, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """How one table was measured: enough to measure it again.

    ``description`` is for people; ``settings`` holds the templates or the contexts' hash.
    """

    view: View
    probe: Probe
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict)


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

    An existing library there is replaced; any other existing, non-empty folder is refused with
    ``LibraryError``.
    """
    if folder.exists() and not (folder / MANIFEST_NAME).exists() and any(folder.iterdir()):
        raise LibraryError(
            f"{folder}: exists and holds no signature library; choose another folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = {}
        for table in library.tables:
            name = f"{table.probe}-{table.view}.parquet"
            table.to_frame().write_parquet(staging / name, compression="zstd", compression_level=19)
            files[name] = _file_sha256(staging / name)
        if library.causal:
            frame = causal_frame(library.causal)
            frame.write_parquet(staging / CAUSAL_NAME, compression="zstd", compression_level=19)
            files[CAUSAL_NAME] = _file_sha256(staging / CAUSAL_NAME)
        manifest = _manifest(library, files)
        content = _content_sha256(manifest)
        manifest["content_sha256"] = content
        text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (staging / MANIFEST_NAME).write_text(text, encoding="utf-8")
        for path in staging.iterdir():
            _sync(path)
        staging.chmod(0o755)
        _swap(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return replace(library, content_sha256=content)


def load_library(folder: Path) -> SignatureLibrary:
    """Read and verify a library. Raises ``LibraryError``, in one line, for anything wrong.

    Every file's hash, and the manifest's own, must be right: a changed byte is refused.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LibraryError(
            f"{folder}: no signature library here (no {MANIFEST_NAME}); "
            "build one with `audit signature build`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise LibraryError(f"{path}: not readable as a manifest: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        found = manifest.get("format_version") if isinstance(manifest, dict) else None
        raise LibraryError(
            f"{path}: library format {found!r}, this version reads format {FORMAT_VERSION}"
        )
    try:
        if manifest["content_sha256"] != _content_sha256(manifest):
            raise LibraryError(f"{path}: the manifest was changed after the library was written")
        return _from_manifest(manifest, folder)
    except LibraryError:
        raise
    except (KeyError, TypeError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        detail = " ".join(str(error).split())
        raise LibraryError(
            f"{path}: not a usable library: {type(error).__name__}: {detail}"
        ) from error


def _manifest(library: SignatureLibrary, files: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "name": library.name,
        "tool_version": library.tool_version,
        "model": asdict(library.model),
        "number_tokens": str(library.number_tokens),
        "concepts": [asdict(concept) for concept in library.concepts],
        "probes": [
            {
                "view": str(record.view),
                "probe": str(record.probe),
                "description": record.description,
                "settings": dict(record.settings),
                "concepts": list(table.concepts),
            }
            for record, table in zip(library.probes, library.tables, strict=True)
        ],
        "files": dict(files),
    }


def _from_manifest(manifest: Mapping[str, Any], folder: Path) -> SignatureLibrary:
    concepts = tuple(_concept(entry) for entry in manifest["concepts"])
    probes = tuple(
        ProbeRecord(View(e["view"]), Probe(e["probe"]), e["description"], e["settings"])
        for e in manifest["probes"]
    )
    tables = []
    for record, entry in zip(probes, manifest["probes"], strict=True):
        path = _checked(manifest, folder, f"{record.probe}-{record.view}.parquet")
        tables.append(
            table_from_frame(
                pl.read_parquet(path), record.view, record.probe, tuple(entry["concepts"])
            )
        )
    causal: tuple[CausalTrial, ...] = ()
    if CAUSAL_NAME in manifest["files"]:
        causal = causal_from_frame(pl.read_parquet(_checked(manifest, folder, CAUSAL_NAME)))
    return SignatureLibrary(
        manifest["name"],
        manifest["tool_version"],
        ModelIdentity(**manifest["model"]),
        NumberTokens(manifest["number_tokens"]),
        concepts,
        probes,
        tuple(tables),
        causal,
        manifest["content_sha256"],
    )


def _concept(entry: Mapping[str, Any]) -> Concept:
    return Concept(
        **{
            **entry,
            "forms": tuple(entry["forms"]),
            "kind": ConceptKind(entry["kind"]),
            "questions": tuple(Question(**question) for question in entry["questions"]),
        }
    )


def _checked(manifest: Mapping[str, Any], folder: Path, name: str) -> Path:
    """The path of a file whose hash is the manifest's. Raises ``LibraryError``."""
    path = folder / name
    if name not in manifest["files"] or not path.is_file():
        raise LibraryError(f"{path}: missing; the library is incomplete, fetch or build it again")
    if _file_sha256(path) != manifest["files"][name]:
        raise LibraryError(f"{path}: changed after the library was written (hash differs)")
    return path


def _content_sha256(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "content_sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _swap(staging: Path, folder: Path) -> None:
    """Put ``staging`` where ``folder`` is; the old one goes only after the new one is whole."""
    if not folder.exists():
        staging.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / "library")
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
