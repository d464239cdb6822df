"""Whether a source is still what it was: what its file system says, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit.dataset import Source

# What drivers of fsspec call that which changes when an object is written again.
_VERSIONS = ("ETag", "etag", "checksum", "md5Hash", "content_md5", "version_id", "VersionId")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "last_commit")


def source_stamp(source: Source) -> str | None:
    """A text that differs once the source has been written to; None where nothing tells.

    Of an object elsewhere: its size and the version or the time that its server names.
    """
    if source.path is not None:
        return file_stamp(source.path)
    if "://" not in source.name:
        return None
    import fsspec  # slow to import, and most scans are of local files

    try:
        files, path = fsspec.core.url_to_fs(source.name)
        told: dict[str, Any] = files.info(path)
    except Exception:  # drivers raise types of their own
        return None
    changes = [f"{key}={told[key]}" for key in (*_VERSIONS, *_TIMES) if told.get(key)]
    return " ".join([f"size={told.get('size')}", *changes]) if changes else None


def file_stamp(path: Path) -> str | None:
    """The same of a local file: its size and when its content (mtime) and its entry (ctime, which
    no program can set back) last changed, to the nanosecond."""
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
