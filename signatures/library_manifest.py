"""The manifest of a signature library: typed parts to JSON and back, distrusting every field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from signatures.concept import Concept, Question
from signatures.language_model import ModelIdentity
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, View

FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
CAUSAL_NAME = "causal.parquet"
SIGNATURE_NAME = "signature.sig"

_MOST_MANIFEST_BYTES = 1 << 26
_MOST_SETTINGS_DEPTH = 32


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

    @property
    def file_name(self) -> str:
        """The table's file in the library's folder: never taken from the manifest."""
        return f"{self.probe}-{self.view}.parquet"


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a library's ``manifest.json`` says. ``table_concepts`` is parallel to ``probes``.

    ``files`` has the SHA-256 of every file of the library but the manifest and a signature.
    """

    name: str
    tool_version: str
    model: ModelIdentity
    number_tokens: NumberTokens
    concepts: tuple[Concept, ...]
    probes: tuple[ProbeRecord, ...]
    table_concepts: tuple[tuple[str, ...], ...]
    files: Mapping[str, str]
    content_sha256: str


LIBRARY_FILES = frozenset(
    {MANIFEST_NAME, CAUSAL_NAME, SIGNATURE_NAME}
    | {ProbeRecord(view, probe, "").file_name for view in View for probe in Probe}
)
"""Every name that a file of a library can have."""


def manifest_text(
    *,
    name: str,
    tool_version: str,
    model: ModelIdentity,
    number_tokens: NumberTokens,
    concepts: Sequence[Concept],
    probes: Sequence[ProbeRecord],
    table_concepts: Sequence[Sequence[str]],
    files: Mapping[str, str],
) -> tuple[str, str]:
    """The manifest's JSON and its content hash.

    Raises ``ValueError`` or ``TypeError`` for settings that are no JSON and texts that are no
    Unicode.
    """
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "tool_version": tool_version,
        "model": asdict(model),
        "number_tokens": str(number_tokens),
        "concepts": [asdict(concept) for concept in concepts],
        "probes": [
            {
                "view": str(record.view),
                "probe": str(record.probe),
                "description": record.description,
                "settings": dict(record.settings),
                "concepts": list(names),
            }
            for record, names in zip(probes, table_concepts, strict=True)
        ],
        "files": dict(files),
    }
    content = _content_sha256(manifest)
    manifest["content_sha256"] = content
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text + "\n", content


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the library in ``folder``, with its own hash verified.

    Raises ``LibraryError`` in one line for anything wrong.
    """
    path = folder / MANIFEST_NAME
    document = _document(path)
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or version != FORMAT_VERSION:
        raise LibraryError(
            f"{path}: library format {_shown(version)}, this version reads format {FORMAT_VERSION}"
        )
    try:
        if document.get("content_sha256") != _content_sha256(document):
            raise LibraryError(f"{path}: the manifest was changed after the library was written")
        return _manifest(document)
    except LibraryError:
        raise
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise LibraryError(
            f"{path}: not a usable manifest: {one_line(error)}; fetch or build the library again"
        ) from error


def one_line(error: BaseException) -> str:
    """What an error says, on one short line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _document(path: Path) -> Any:
    if not path.is_file():
        raise LibraryError(
            f"{path.parent}: no signature library here (no {MANIFEST_NAME}); "
            "build one with `audit signature build`"
        )
    try:
        if path.stat().st_size > _MOST_MANIFEST_BYTES:
            raise ValueError(f"larger than {_MOST_MANIFEST_BYTES:,} bytes")
        return json.loads(
            path.read_bytes().decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
        )
    except (OSError, ValueError, RecursionError) as error:
        raise LibraryError(f"{path}: not readable as a manifest: {one_line(error)}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One meaning for every reader: some parsers keep the first of two equal keys."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


class _TableEntry(msgspec.Struct, forbid_unknown_fields=True):
    view: View
    probe: Probe
    description: str
    settings: dict[str, Any]
    concepts: tuple[str, ...]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format_version: int
    name: str
    tool_version: str
    model: ModelIdentity
    number_tokens: NumberTokens
    concepts: tuple[Concept, ...]
    probes: tuple[_TableEntry, ...]
    files: dict[str, str]
    content_sha256: str


def _manifest(raw: dict[str, Any]) -> Manifest:
    document = msgspec.convert(raw, _Document)
    _refuse_unknown(raw["model"], ModelIdentity)
    for entry in raw["concepts"]:
        _refuse_unknown(entry, Concept)
        for question in entry.get("questions", ()):
            _refuse_unknown(question, Question)
    _unique([concept.name for concept in document.concepts], "concept")
    known = {concept.name for concept in document.concepts}
    probes = []
    for table in document.probes:
        _refuse_deep(table.settings)
        probes.append(ProbeRecord(table.view, table.probe, table.description, table.settings))
        _unique(table.concepts, "concept")
        strange = [name for name in table.concepts if name not in known]
        if strange:
            raise ValueError(f"a table holds the unknown concept {_shown(strange[0])}")
        if not table.concepts:
            raise ValueError(f"the {probes[-1].file_name} table holds no concept")
    _unique([record.file_name for record in probes], "table")
    odd = (set(document.files) - {CAUSAL_NAME}) ^ {record.file_name for record in probes}
    if odd:
        raise ValueError(f"'files' and 'probes' disagree about {_shown(min(odd))}")
    return Manifest(
        document.name,
        document.tool_version,
        document.model,
        document.number_tokens,
        document.concepts,
        tuple(probes),
        tuple(table.concepts for table in document.probes),
        document.files,
        document.content_sha256,
    )


def _refuse_unknown(entry: Mapping[str, Any], kind: type) -> None:
    """msgspec ignores the unknown fields of a dataclass."""
    unknown = sorted(set(entry) - {known.name for known in fields(kind)})
    if unknown:
        raise ValueError(f"unknown field {_shown(unknown[0])}")


def _unique(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"the {what} {_shown(name)} stands in it twice")
        seen.add(name)


def _refuse_deep(settings: dict[str, Any]) -> None:
    """Whoever walks the settings later may do so recursively."""
    level: list[Any] = [settings]
    for _ in range(_MOST_SETTINGS_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"'settings' is nested deeper than {_MOST_SETTINGS_DEPTH} levels")


def _shown(value: object) -> str:
    return repr(value)[:80]


def _content_sha256(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "content_sha256"}
    text = json.dumps(
        content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()
