"""Which data sets of a gate are scanned: those that changed, and whose files are there."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from audit.dataset import list_sources, read_batches
from audit.dataset.sources import Source
from audit.errors import MissingExtraError, UsageError
from audit.gate.changes import Changes
from audit.gate.config import DataSet, GateConfig


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """What to do with a data set: scan it, unless one of the others says why not.

    ``nothing_there``: its paths name no data. ``unchanged``: nothing that it depends on changed.
    """

    data: DataSet
    nothing_there: str = ""
    unchanged: str = ""


def plan(config: GateConfig, changes: Changes | None) -> tuple[PlannedSet, ...]:
    """What to do with each data set; without ``changes`` all that are there are scanned.

    Everything that can be wrong with the settings of a data set is found here, before anything is
    scanned. The working folder must be the root of ``config``. Raises ``UsageError`` for a
    reference that is not there and for options that mean nothing, ``MissingExtraError`` for a URL
    whose driver is not installed, ``AuditError`` for one that cannot be listed.
    """
    everything = "" if changes is None else _changed_for_all(config, changes)
    return tuple(_planned(data, changes, everything) for data in config.data)


def _planned(data: DataSet, changes: Changes | None, everything: str) -> PlannedSet:
    try:
        if data.reference:
            # Lists the sources and looks at the options, and reads no row yet.
            read_batches(data.reference, schema=data.schema, tokenizer=data.tokenizer)
    except UsageError as error:
        raise UsageError(f"the reference of the data set '{data.name}': {error}") from error
    try:
        sources = list_sources(data.paths).sources
    except MissingExtraError:
        raise
    except UsageError as error:
        return PlannedSet(data, nothing_there=str(error))
    try:
        read_batches(data.paths, schema=data.schema, tokenizer=data.tokenizer)
    except UsageError as error:
        raise UsageError(f"the data set '{data.name}': {error}") from error
    if changes is None or everything or _changed(data, sources, changes):
        return PlannedSet(data)
    files = len(sources) + len(list_sources(data.reference).sources if data.reference else ())
    return PlannedSet(
        data,
        unchanged=f"none of its {files:,} {'file' if files == 1 else 'files'} changed since "
        f"{changes.since}",
    )


def _changed_for_all(config: GateConfig, changes: Changes) -> str:
    """What changed that every data set depends on, if anything did."""
    if changes.touches_file(config.root / config.file):
        return config.file
    # A baseline that was removed has changed too.
    baseline = config.root / (config.baseline or "")
    if config.baseline and (
        changes.touches_file(baseline) if baseline.exists() else changes.touches_inside(baseline)
    ):
        return config.baseline
    for folder in (config.library, config.model):
        if folder is not None and changes.touches_inside(config.root / folder):
            return folder
    return ""


def _changed(data: DataSet, sources: tuple[Source, ...], changes: Changes) -> bool:
    reference = list_sources(data.reference).sources if data.reference else ()
    for source in (*sources, *reference):
        # What a URL holds, git does not know.
        if source.path is None or changes.touches_file(source.path):
            return True
    if data.tokenizer is not None and changes.touches_inside(Path(data.tokenizer)):
        return True
    # A file that was removed is in no listing.
    return any(changes.touches_removed(_top(p)) for p in (*data.paths, *data.reference))


def _top(pattern: str) -> Path:
    """The folder or file below which everything lies that ``pattern`` may name."""
    if "://" in pattern or not glob.has_magic(pattern) or Path(pattern).exists():
        return Path(pattern)
    fixed = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)
