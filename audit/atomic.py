"""Writes a file so that readers see the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def atomic_write(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary file in the same folder, fsync, rename, fsync folder.

    A link is followed. A path that exists but is no regular file (``/dev/stdout``, a pipe) is
    written to directly: renaming over it would replace the device. Raises ``OSError``; then
    ``path`` is as it was and no temporary file is left behind.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(data)
        return
    target = path.resolve()
    temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}.tmp")
    # Not tempfile: its files are private (0600), a report follows the umask like any other file.
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can open folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        # Some network file systems refuse this; the content is safe all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
