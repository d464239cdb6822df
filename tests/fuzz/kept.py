"""The inputs that are kept: they reach the most code, or once broke a promise."""

from __future__ import annotations

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


def corpus_files(name: str) -> list[Path]:
    """Those of the harness ``name``, in order of their names."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())
