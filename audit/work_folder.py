"""What is done is kept on disk, part by part, so that a killed run can go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path

from audit.atomic import atomic_write
from audit.errors import AuditError, UsageError

_RUN_FILE = "run.json"


class WorkFolder:
    """The parts of one run, in a hidden folder beside its output.

    Parts are keyed by what was asked for, so that a run never takes up those of another.
    """

    def __init__(self, path: Path, run: Mapping[str, object]) -> None:
        """Open or make the folder at ``path`` for ``run``, which is JSON.

        Raises ``UsageError`` if it holds an unfinished run of other data or settings, ``OSError``
        if it cannot be made.
        """
        self.path = path
        text = json.dumps(run, sort_keys=True, indent=1).encode()
        described = path / _RUN_FILE
        if is_unfinished(path) and described.read_bytes() != text:
            if any(path.glob("*.part")):
                raise UsageError(
                    f"{path} holds an unfinished run with other data, options or versions: "
                    f"{_difference(described.read_bytes(), text)}; "
                    "give the same again to finish it, or remove that folder"
                )
            self.remove()  # nothing was done in it
        if not is_unfinished(path):
            # What a killed run had begun to write of its description is nothing yet.
            if path.exists() and any(file.suffix != ".tmp" for file in path.iterdir()):
                raise UsageError(f"{path} is in the way: it is no unfinished run; remove it")
            path.mkdir(parents=True, exist_ok=True)
            atomic_write(described, text)
        self._unlock = weakref.finalize(self, os.close, _locked(described))

    def close(self) -> None:
        """Let another run have the folder; what is done stays."""
        self._unlock()

    def load(self, name: str) -> bytes | None:
        """The part ``name``, or None where it is not there, or not whole."""
        try:
            data = self._part(name).read_bytes()
        except FileNotFoundError:
            return None
        digest, body = data[:32], data[32:]
        # A file that the disk lost a part of is made again.
        return body if hashlib.sha256(body).digest() == digest else None

    def save(self, name: str, body: bytes) -> None:
        """Keep the part ``name``, whole or not at all. Raises ``AuditError``."""
        try:
            atomic_write(self._part(name), hashlib.sha256(body).digest() + body)
        except OSError as error:
            raise unwritten(self.path, error) from error

    def discard(self, name: str) -> None:
        """The part ``name`` is not needed any more."""
        self._part(name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        return self.path / f"{name}.part"

    def remove(self) -> None:
        """The run is finished, or was not meant to stay."""
        # The description goes last: a folder without it would be in the way for good.
        with contextlib.suppress(OSError):
            for part in self.path.iterdir():
                if part.is_dir():
                    shutil.rmtree(part)
                elif part.name != _RUN_FILE:
                    part.unlink()
        shutil.rmtree(self.path, ignore_errors=True)


def open_work_folder(path: Path, run: Mapping[str, object]) -> WorkFolder:
    """As `WorkFolder`, but that a folder which cannot be made is an ``AuditError``."""
    try:
        return WorkFolder(path, run)
    except OSError as error:
        raise AuditError(f"{path}: cannot be made: {error.strerror or error}") from error


def unwritten(folder: Path, error: OSError) -> AuditError:
    """What a run says where its folder cannot be written to."""
    return AuditError(
        f"{folder}: cannot be written: {error.strerror or error}; what is done is kept, and the "
        "same call goes on from there"
    )


def _locked(path: Path) -> int:
    """A descriptor that holds a lock on ``path``, until it is closed. Raises ``UsageError``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        import fcntl
    except ImportError:  # there is none on Windows
        return descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"{path.parent} belongs to another run that is going on") from error
    return descriptor


def is_unfinished(path: Path) -> bool:
    """Whether the folder at ``path`` is that of a run that can go on."""
    return (path / _RUN_FILE).is_file()


def _difference(old: bytes, new: bytes) -> str:
    """Which entries differ."""
    after = json.loads(new)
    try:
        before = json.loads(old)
    except ValueError:
        before = None
    if not isinstance(before, dict):
        return "its description is damaged"
    names = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
    return f"{', '.join(names)} {'differ' if len(names) > 1 else 'differs'}"
