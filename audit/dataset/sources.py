"""What the user named - files, folders, globs, URLs, standard input - to a list of sources."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from audit.errors import AuditError, MissingExtraError, UsageError, one_line

STDIN_NAME = "<stdin>"

FORMAT_OF_ENDING = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
}
_COMPRESSION_ENDINGS = (".gz", ".zst")
# Trainers read these too: such a file must not pass for one that holds no data.
_OTHER_PACKINGS = frozenset({".bz2", ".xz", ".lzma", ".lz4", ".zip", ".br", ".tar", ".7z"})
# Written beside the data by `datasets.save_to_disk` and the Hub: descriptions, not rows.
_DESCRIPTIONS = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
)


@dataclass(frozen=True, slots=True)
class Source:
    """One file or stream. ``open`` gives its stored bytes and may raise ``OSError``.

    ``path`` is set for regular local files only, which columnar readers can read in place.
    ``is_folder``: not a file but a folder that cannot be listed, which ``open`` tells.
    """

    name: str
    open: Callable[[], BinaryIO]
    path: Path | None = None
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The sources to read, in order, and the files in named folders that are no data files."""

    sources: tuple[Source, ...]
    ignored: tuple[str, ...]


def format_by_name(name: str) -> str | None:
    """The format that the ending promises (compression aside), or ``None``."""
    stem = name.lower()
    for ending in _COMPRESSION_ENDINGS:
        stem = stem.removesuffix(ending)
    return FORMAT_OF_ENDING.get(os.path.splitext(stem)[1])  # noqa: PTH122 - names may be URLs


def _is_packed_data(name: str) -> bool:
    """Whether the ending is that of data packed in a way that is not read."""
    stem, ending = os.path.splitext(name.lower())  # noqa: PTH122 - names may be URLs
    return ending in _OTHER_PACKINGS and format_by_name(stem) is not None


def list_sources(inputs: Sequence[str]) -> Listing:
    """Expand ``inputs``; a file that several of them name is read once.

    Folders are searched for known endings at any depth, in sorted order, hidden files aside. A
    glob keeps the known endings too, unless nothing that it matches has one.

    Raises ``UsageError`` for an input that does not exist or matches nothing,
    ``MissingExtraError`` for a URL whose driver is not installed, ``AuditError`` for one that
    cannot be listed.
    """
    if not inputs:
        raise UsageError("no input: name a file, a folder, a glob, a URL, or - for standard input")
    sources: dict[str, Source] = {}
    ignored: dict[str, None] = {}
    for name in inputs:
        found, other = _expand(name)
        for source in found:
            sources.setdefault(str(_key(source)), source)
        ignored.update(dict.fromkeys(other))
    names = {source.name for source in sources.values()}
    return Listing(tuple(sources.values()), tuple(n for n in ignored if n not in names))


def _key(source: Source) -> str:
    # Each folder counts once, whatever links lead to it; two links to one file are two files,
    # for a trainer reads both.
    if source.path is None:
        return source.name
    return os.path.join(os.path.realpath(source.path.parent), source.path.name)  # noqa: PTH118


def _expand(name: str) -> tuple[list[Source], list[str]]:
    if name == "-":
        return [Source(STDIN_NAME, lambda: sys.stdin.buffer)], []
    if "://" in name:
        return _expand_url(name)
    path = Path(name)
    # Unlike those of a Path, these are false for a name that is too long.
    if os.path.isdir(name):  # noqa: PTH112
        return _known(name, _walk(name))
    if os.path.exists(name):  # noqa: PTH110
        return [Source(name, lambda: path.open("rb"), path if path.is_file() else None)], []
    if not glob.has_magic(name):
        raise UsageError(f"{name} does not exist" if name else "an input has an empty name")
    return _expand_glob(name)


def _expand_glob(pattern: str) -> tuple[list[Source], list[str]]:
    found: list[Source] = []
    ignored: list[str] = []
    files: list[Source] = []
    if "**" in Path(pattern).parts:
        files += _walk_matching(pattern)
    else:
        for match in sorted(glob.glob(pattern)):  # noqa: PTH207 - the pattern may be absolute
            if Path(match).is_dir():
                inner, other = _known(match, _walk(match), must_find=False)
                found += inner
                ignored += other
            else:
                files.append(_met(match))
    found += [source for source in files if source.is_folder]
    files = [source for source in files if not source.is_folder]
    named = [source for source in files if _is_data(source.name)]
    found += named or files
    if named:
        ignored += [source.name for source in files if not _is_data(source.name)]
    if not found:
        raise UsageError(f"{pattern} matches no file")
    return found, ignored


def _walk_matching(pattern: str) -> Iterator[Source]:
    """Files that match a pattern with ``**``. ``glob`` itself would follow cycles of links."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    top = Path(*parts[:fixed])
    for source in _walk(str(top)):
        if source.is_folder:
            yield source
        elif _matches(Path(source.name).relative_to(top).parts, parts[fixed:]):
            yield replace(source, name=str(Path(source.name)))


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return (
        bool(names)
        and fnmatch.fnmatchcase(names[0], pattern[0])
        and _matches(names[1:], pattern[1:])
    )


def _known(
    name: str, files: Iterable[Source], *, must_find: bool = True
) -> tuple[list[Source], list[str]]:
    found: list[Source] = []
    ignored: list[str] = []
    for source in files:
        if source.is_folder or _is_data(source.name):
            found.append(source)
        else:
            ignored.append(source.name)
    if must_find and not found:
        endings = " ".join(FORMAT_OF_ENDING)
        raise UsageError(f"{name} holds no data file (endings: {endings}, also .gz and .zst)")
    return found, ignored


def _is_data(name: str) -> bool:
    base = name.rstrip("/").rpartition("/")[2]
    return (
        not base.startswith(".")
        and base not in _DESCRIPTIONS
        and (format_by_name(base) is not None or _is_packed_data(base))
    )


def _walk(folder: str) -> Iterator[Source]:
    """Files below ``folder``, sorted, each folder once even where links make a cycle.

    A folder that cannot be listed comes last, as a source that cannot be opened.
    """
    seen = {os.path.realpath(folder)}
    errors: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        kept = []
        for child in sorted(folders):
            real = os.path.realpath(Path(parent, child))
            if not child.startswith(".") and real not in seen:
                seen.add(real)
                kept.append(child)
        folders[:] = kept
        for file in sorted(files):
            yield _met(os.path.join(parent, file))  # noqa: PTH118 - keeps a leading "./"
    for error in errors:
        name = os.fsdecode(error.filename or folder)
        yield Source(name, _refusal(f"folder cannot be listed: {error.strerror}"), is_folder=True)


def _met(name: str) -> Source:
    """A file that nobody named: of pipes and devices, which may never end, none is opened."""
    path = Path(name)
    try:
        is_special = not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode))
    except OSError:
        is_special = False  # opening it tells what is wrong
    if is_special:
        return Source(name, _refusal("neither a file nor a folder: name it to read it"))
    return Source(name, lambda: path.open("rb"), path if path.is_file() else None)


def _refusal(message: str) -> Callable[[], BinaryIO]:
    def refuse() -> BinaryIO:
        raise OSError(message)

    return refuse


def _expand_url(url: str) -> tuple[list[Source], list[str]]:
    import fsspec  # slow to import, and most scans are of local files

    protocol = url.partition("://")[0]
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or protocol
        raise MissingExtraError(f"reading {protocol}:// inputs", package, "hub") from error
    except ValueError as error:
        raise UsageError(f"{url} cannot be opened: {error}") from error
    try:
        found, ignored = _list_remote(files, path, url)
    except (UsageError, MissingExtraError):
        raise
    except FileNotFoundError:
        raise UsageError(f"{url} does not exist") from None
    except Exception as error:  # drivers raise types of their own
        raise AuditError(f"{url} cannot be listed: {one_line(error)}") from error
    return found, ignored


def _list_remote(files: Any, path: str, url: str) -> tuple[list[Source], list[str]]:
    def remote(name: str) -> Source:
        return Source(str(files.unstrip_protocol(name)), lambda: files.open(name, "rb"))

    if files.isfile(path):
        return [remote(path)], []
    if files.isdir(path):
        return _known(url, [remote(name) for name in sorted(files.find(path))])
    if glob.has_magic(path):
        matches = [remote(name) for name in sorted(files.glob(path)) if not files.isdir(name)]
        named = [source for source in matches if _is_data(source.name)]
        if not matches:
            raise UsageError(f"{url} matches no file")
        if named:
            return named, [s.name for s in matches if not _is_data(s.name)]
        return matches, []
    raise UsageError(f"{url} does not exist")
