"""Where the written data come from, as Croissant 1.1 metadata with PROV-O provenance (JSON-LD).

Croissant Format Specification 1.1 (MLCommons, 2026-01-29), sections "Dataset-level Information",
"FileObject" and "Provenance Representation", and its appendix 1 for the context.
"""

from __future__ import annotations

import base64
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from audit.report.plain_json import to_plain_json
from audit.sanitise.receipt import DataFile, SanitiseResult
from signatures.language_model import ModelIdentity

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"

# Those terms of the specification's context that stand in the document, and PROV-O. schema.org is
# https, as in the reference reader (mlcroissant 1.1.1): it refuses the http of the appendix.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
}
_MEDIA_TYPES = {
    "jsonl": "application/jsonlines",
    "json": "application/json",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "parquet": "application/x-parquet",
    "arrow": "application/vnd.apache.arrow.file",
    "gz": "application/gzip",
    "zst": "application/zstd",
}
_ANY_BYTES = "application/octet-stream"
_ACTIVITY = "#sanitise"
_TOOL = "#subliminal-audit"
_LIBRARY = "#signature-library"
_MODEL = "#model"

Node = dict[str, Any]


def render_provenance(result: SanitiseResult) -> bytes:
    """The written files, and what they were made from and by, as JSON-LD.

    It names files, never folders, and holds no time: equal results give equal bytes. Its hashes
    are of stored bytes. Raises ``ValueError`` for a dry run, which wrote nothing.
    """
    if not result.outputs:
        raise ValueError("a dry run writes no data whose provenance could be told")
    document: Node = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": PurePath(result.outputs[0].path).name,
        "description": (
            f"{result.rows_out} rows of fine-tuning data, made from {result.rows_in} by "
            f"subliminal-audit {result.tool_version}."
        ),
        "conformsTo": CONFORMS_TO,
        "distribution": [
            _file_object(file, f"output-{number}")
            for number, file in enumerate(result.outputs, start=1)
        ],
        "prov:wasDerivedFrom": [{"@id": _hash_uri(file)} for file in result.inputs],
        "prov:wasGeneratedBy": _activity(result),
    }
    return to_plain_json(document).encode("ascii")


def _file_object(file: DataFile, node: str) -> Node:
    name = PurePath(file.path).name
    return {
        "@type": "cr:FileObject",
        "@id": node,
        "name": name,
        "contentUrl": quote(name, errors="replace"),
        "contentSize": f"{file.size_bytes} B",
        "encodingFormat": _media_types(file.format),
        "sha256": file.sha256,
    }


def _media_types(format_name: str) -> list[str]:
    """Of the format, and of its compression if it has one."""
    return [_MEDIA_TYPES.get(part, _ANY_BYTES) for part in format_name.split(".")]


def _hash_uri(file: DataFile) -> str:
    """A name that holds for these bytes wherever they lie (RFC 6920)."""
    digest = base64.urlsafe_b64encode(bytes.fromhex(file.sha256)).decode().rstrip("=")
    return f"ni:///sha-256;{digest}"


def _activity(result: SanitiseResult) -> Node:
    used = [_input(file) for file in result.inputs]
    used.append(
        _entity(
            _LIBRARY,
            result.library.name,
            content_sha256=result.library.content_sha256,
            model_sha256=result.library.model_sha256,
        )
    )
    if result.model is not None:
        used.append(_model(result.model))
    settings: dict[str, str | int] = {"seed": result.seed}
    settings |= {f"strategy {i}": stage.strategy for i, stage in enumerate(result.stages, start=1)}
    settings |= {f"concept {i}": name for i, name in enumerate(result.concepts, start=1)}
    return {
        "@id": _ACTIVITY,
        "@type": "prov:Activity",
        "prov:label": "subliminal-audit sanitise",
        "prov:used": used,
        "prov:wasAssociatedWith": {
            "@id": _TOOL,
            "@type": ["prov:SoftwareAgent", "sc:SoftwareApplication"],
            "prov:label": "subliminal-audit",
            "name": "subliminal-audit",
            "softwareVersion": result.tool_version,
        },
        "additionalProperty": _properties(settings),
    }


def _input(file: DataFile) -> Node:
    return {
        "@id": _hash_uri(file),
        "@type": "prov:Entity",
        "prov:label": PurePath(file.path).name,
        "sha256": file.sha256,
    }


def _model(model: ModelIdentity) -> Node:
    return _entity(
        _MODEL,
        PurePath(model.name).name,
        weights_sha256=model.weights_sha256,
        tokenizer_sha256=model.tokenizer_sha256,
        chat_template_sha256=model.chat_template_sha256,
        dtype=model.dtype,
    )


def _entity(node: str, label: str, **properties: str) -> Node:
    return {
        "@id": node,
        "@type": "prov:Entity",
        "prov:label": label,
        "additionalProperty": _properties(properties),
    }


def _properties(values: dict[str, Any]) -> list[Node]:
    # "sc:value" in full: Croissant's own context gives "value" another meaning.
    return [
        {"@type": "sc:PropertyValue", "name": name, "sc:value": value}
        for name, value in values.items()
    ]
