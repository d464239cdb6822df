"""How commands find and open a signature library."""

from __future__ import annotations

from pathlib import Path

import click

import signatures.bundled
from audit.errors import UsageError
from signatures.library import (
    LibraryError,
    SignatureLibrary,
    load_library,
    refuse_foreign,
    save_library,
)

_BUNDLED = Path(str(signatures.bundled.__file__)).parent
BUNDLED_LIBRARY = _BUNDLED / "smollm2-135m-instruct"


def open_library(path: Path) -> SignatureLibrary:
    """Load and verify the library at ``path``. Raises ``UsageError`` in one line."""
    try:
        return load_library(path)
    except LibraryError as error:
        raise UsageError(str(error)) from error


def check_output(folder: Path) -> None:
    """Refuse an output folder before hours of work. Raises ``UsageError`` in one line."""
    try:
        refuse_foreign(folder)
    except LibraryError as error:
        raise UsageError(str(error)) from error


def save(library: SignatureLibrary, folder: Path) -> None:
    """Write a new library and say what it is. Raises ``UsageError`` if the folder is taken."""
    from audit.report.summary import plural

    try:
        saved = save_library(library, folder)
    except LibraryError as error:
        raise UsageError(str(error)) from error
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    click.echo(
        f"{folder}: {len(saved.traits())} concepts, {len(saved.decoys())} decoys, "
        f"{plural(len(saved.tables), 'table')}, {size_bytes:,} bytes, "
        f"content {saved.content_sha256[:12]}"
    )
