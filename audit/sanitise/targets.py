"""Where outputs go, and what they must not be put in the place of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audit.dataset.sources import Source, format_by_name, list_sources
from audit.errors import UsageError


def output_paths(sources: Sequence[Source], output: Path, *, dry_run: bool) -> tuple[Path, ...]:
    """Where each source goes. Raises ``UsageError`` where something would be lost."""
    names = [Path(source.name.rstrip("/")).name for source in sources]
    if len(sources) == 1 and not output.is_dir():
        targets: tuple[Path, ...] = (output,)
    elif len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two inputs are called {twice}: sanitise them one by one")
    elif output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: several inputs need a folder")
    else:
        targets = tuple(output / name for name in names)
    if dry_run:
        return targets
    for target in targets:
        if target.exists() and not target.is_file():
            raise UsageError(f"{target} is no file that could be replaced")
    for source, target in zip(sources, targets, strict=True):
        formats = _stored_as(source.name), _stored_as(target.name)
        if formats[0] and formats[0] != formats[1]:
            raise UsageError(
                f"{target.name}: the output has the format of {Path(source.name).name}; "
                "give it the same ending"
            )
    return targets


def protect(
    sources: Sequence[Source],
    inputs: Sequence[str],
    others: Sequence[str],
    targets: Sequence[Path],
    receipts: Sequence[Path],
) -> None:
    """Raise ``UsageError`` where a file that is read, or an output, would be written over.

    ``sources`` are the files of ``inputs``, which are read, and ``others`` (files, folders, globs)
    are read too; ``targets`` and ``receipts`` are written.
    """
    folders = [Path(name).resolve() for name in inputs if Path(name).is_dir()]
    for path in (*targets, *receipts):
        if any(path.resolve().is_relative_to(folder) for folder in folders):
            raise UsageError(f"{path} lies in a folder that is read: name a place outside it")
    found = (*sources, *(list_sources(others).sources if others else ()))
    read = {source.path.resolve() for source in found if source.path is not None}
    for path in (*targets, *receipts):
        if path.resolve() in read or any(_is_same_file(path, other) for other in read):
            raise UsageError(f"{path} is an input: name another one, inputs are never changed")
        if path.is_symlink():
            raise UsageError(f"{path} is a link: name the file that it leads to")
    outputs = {target.resolve() for target in targets}
    for path in receipts:
        if path.resolve() in outputs:
            raise UsageError(f"{path} is an output: give the receipt another name")
        if path.is_dir():
            raise UsageError(f"{path} is a folder: name a file for the receipt")


def _is_same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _stored_as(name: str) -> tuple[str, str] | None:
    """Format and compression that a file name promises; None where it promises nothing."""
    kind = format_by_name(name)
    ending = Path(name).suffix.lower()
    return None if kind is None else (kind, ending if ending in (".gz", ".zst") else "")


def refuse_existing(targets: Sequence[Path]) -> None:
    """Raise ``UsageError`` for an output that is there already."""
    for target in targets:
        if target.exists():
            raise UsageError(f"{target} exists: remove it, or give --force to replace it")


def work_path(output: Path) -> Path:
    """The folder of an unfinished run, hidden beside its output."""
    target = output.resolve()
    return target.with_name(f".{target.name[:80]}.unfinished")
