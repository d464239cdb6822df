"""Finds signature libraries in folders and says what each holds."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from signatures.concept import Concept
from signatures.language_model import ModelIdentity
from signatures.library import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    LibraryError,
    SignatureLibrary,
    load_library,
)
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, View


@dataclass(frozen=True, slots=True)
class TableSize:
    """Which table, and how large it is."""

    probe: Probe
    view: View
    concepts: int
    units: int


@dataclass(frozen=True, slots=True)
class ListedLibrary:
    """What a library on disk is. ``size_bytes`` is that of all files of the folder together.

    ``traits`` and ``decoys`` count concepts by category. ``signed`` says that there is a
    signature, not that it is right.
    """

    folder: Path
    name: str
    model: ModelIdentity
    number_tokens: NumberTokens
    traits: Mapping[str, int]
    decoys: Mapping[str, int]
    tables: tuple[TableSize, ...]
    causal_trials: int
    size_bytes: int
    content_sha256: str
    signed: bool


@dataclass(frozen=True, slots=True)
class BrokenLibrary:
    """A folder with the manifest of a library that does not open, and why."""

    folder: Path
    reason: str


def list_libraries(folder: Path) -> Iterator[ListedLibrary | BrokenLibrary]:
    """The library in ``folder``, or every library below it, in order of path.

    Links to folders and hidden folders are not searched. A ``manifest.json`` of another program is
    passed over, unless it lies in ``folder`` itself.
    """
    if (folder / MANIFEST_NAME).is_file():
        yield _summary(folder)
        return
    for parent, children, names in os.walk(folder):
        children[:] = sorted(child for child in children if not child.startswith("."))
        if MANIFEST_NAME in names and _looks_like_ours(Path(parent) / MANIFEST_NAME):
            children.clear()
            yield _summary(Path(parent))


def _looks_like_ours(manifest: Path) -> bool:
    """A damaged manifest of a library does too: it must be reported, not passed over."""
    try:
        text = manifest.read_bytes()
    except OSError:
        return True
    try:
        return "format_version" in json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return b"content_sha256" in text


def _summary(folder: Path) -> ListedLibrary | BrokenLibrary:
    try:
        library = load_library(folder)
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    except (LibraryError, OSError) as error:
        return BrokenLibrary(folder, str(error))
    return ListedLibrary(
        folder,
        library.name,
        library.model,
        library.number_tokens,
        _by_category(library.traits()),
        _by_category(library.decoys()),
        _sizes(library),
        len(library.causal),
        size_bytes,
        library.content_sha256,
        (folder / SIGNATURE_NAME).is_file(),
    )


def _by_category(concepts: tuple[Concept, ...]) -> Mapping[str, int]:
    return dict(Counter(concept.category for concept in concepts))


def _sizes(library: SignatureLibrary) -> tuple[TableSize, ...]:
    return tuple(
        TableSize(table.probe, table.view, len(table.concepts), len(table.units))
        for table in library.tables
    )
