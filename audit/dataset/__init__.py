"""Readers: files of any supported format and schema to rows, with every reject counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audit.dataset.faults import RejectCode
    from audit.dataset.limits import Limits
    from audit.dataset.read import read_batches
    from audit.dataset.record import Batch, BrokenSource, Reject, SourceSummary
    from audit.dataset.schema import SCHEMAS, Schema
    from audit.dataset.sources import Listing, Source, list_sources

__all__ = [
    "SCHEMAS",
    "Batch",
    "BrokenSource",
    "Limits",
    "Listing",
    "Reject",
    "RejectCode",
    "Schema",
    "Source",
    "SourceSummary",
    "list_sources",
    "read_batches",
]

_HOMES = {
    "SCHEMAS": "schema",
    "Batch": "record",
    "BrokenSource": "record",
    "Limits": "limits",
    "Listing": "sources",
    "Reject": "record",
    "RejectCode": "faults",
    "Schema": "schema",
    "Source": "sources",
    "SourceSummary": "record",
    "list_sources": "sources",
    "read_batches": "read",
}


def __getattr__(name: str) -> Any:  # the readers' libraries load on first use (PEP 562)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
