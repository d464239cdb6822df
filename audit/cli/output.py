"""How commands write a file that the user named."""

from __future__ import annotations

from pathlib import Path

from audit.errors import AuditError


def write_output(path: Path, data: bytes) -> None:
    """Write ``data`` whole or not at all. Raises ``AuditError`` in one line."""
    from audit.atomic import atomic_write

    try:
        atomic_write(path, data)
    except OSError as error:
        raise AuditError(f"{path}: cannot be written: {error.strerror or error}") from error
