"""What git says has changed since a commit, the working tree included."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from audit.errors import UsageError

_MOST_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Changes:
    """Paths relative to ``root``, the repository's root without links.

    ``changed`` differ from the last commit that the working tree shares with ``since``, or are new.
    ``tracked`` are all that git keeps and compares. What git ignores is in neither.
    """

    since: str
    root: Path
    changed: frozenset[str]
    tracked: frozenset[str]

    def touches_file(self, path: Path) -> bool:
        """Whether ``path`` changed, or may have: git does not say so of files it does not keep."""
        names = self._names(path)
        return not any(n in self.tracked for n in names) or self._any_changed(names)

    def touches_inside(self, path: Path) -> bool:
        """Whether ``path``, a file or folder, or anything below it changed.

        What lies outside of the repository, or is ignored, is not part of a change.
        """
        names = self._names(path)
        below = tuple(f"{name}/" for name in names)
        return self._any_changed(names) or any(c.startswith(below) for c in self.changed)

    def touches_removed(self, path: Path) -> bool:
        """Whether ``path``, or anything that lay below it, was removed."""
        names = self._names(path)
        return any(
            changed == name or name == "." or changed.startswith(f"{name}/")
            for name in names
            for changed in self.changed
            if not os.path.lexists(self.root / changed)
        )

    def _names(self, path: Path) -> list[str]:
        """Under which names git may know ``path``: as it is called, and without links."""
        called = Path(os.path.realpath(path.parent)) / path.name
        real = Path(os.path.realpath(path))
        found = (c for c in (called, real) if c.is_relative_to(self.root))
        return list(dict.fromkeys(c.relative_to(self.root).as_posix() for c in found))

    def _any_changed(self, names: Iterable[str]) -> bool:
        # A submodule changes as a whole, and so does a link to a folder.
        return any(
            str(part) in self.changed
            for name in names
            for part in (Path(name), *Path(name).parents)
        )


def changes_since(since: str, folder: Path) -> Changes:
    """What changed in the repository of ``folder`` since the merge base of ``since`` and HEAD:
    commits, staged and unstaged edits, deletions, and files that are not tracked yet.

    Raises ``UsageError`` in one line where git cannot tell.
    """
    if since.startswith("-"):
        raise UsageError(f"--changed-since: '{since}' is no commit")
    root = Path(_git(folder, "rev-parse", "--show-toplevel").rstrip("\n"))
    try:
        commit = _git(root, "rev-parse", "--verify", f"{since}^{{commit}}").strip()
    except UsageError as error:
        raise UsageError(
            f"--changed-since: git knows no commit '{since}' here; in a pipeline, fetch the whole "
            "history (fetch-depth: 0)"
        ) from error
    try:
        base = _git(root, "merge-base", commit, "HEAD").strip()
    except UsageError as error:
        raise UsageError(
            f"--changed-since: '{since}' and HEAD share no commit that git has here; in a "
            "pipeline, fetch the whole history (fetch-depth: 0)"
        ) from error
    differ = _git(
        root,
        *["diff", "--name-only", "-z", "--no-renames", "--no-relative"],
        *["--ignore-submodules=none", base, "--"],
    )
    new = _git(root, "ls-files", "-z", "--others", "--exclude-standard")
    # "H name": a file that git compares with its last commit, as it does not those that it was
    # told to assume unchanged ("h") or to leave out of the working tree ("S").
    listed = _git(root, "ls-files", "-v", "-z", "--recurse-submodules").split("\0")
    return Changes(
        since,
        Path(os.path.realpath(root)),
        frozenset(n for names in (differ, new) for n in names.split("\0") if n),
        frozenset(entry[2:] for entry in listed if entry.startswith("H ")),
    )


def _git(folder: Path, *arguments: str) -> str:
    """What ``git`` prints, its bytes as file names are in Python."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise UsageError("--changed-since needs git, which is not installed") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"--changed-since: git did not answer: {error}") from error
    if done.returncode != 0:
        said = " ".join(os.fsdecode(done.stderr).split())[:300] or "it failed without a word"
        raise UsageError(f"--changed-since: git {arguments[0]}: {said}")
    return os.fsdecode(done.stdout)
