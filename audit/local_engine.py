"""A scan in several processes of one machine: shards that are merged at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audit.dataset import list_sources
from audit.scan import Progress, ScanSettings
from audit.scan_result import ScanResult
from audit.shards import Shard, ShardState, merge_shards, scan_shard
from audit.workers import in_workers
from detectors.model_access import ModelAccess, ModelSettings
from signatures.library import SignatureLibrary, load_library


@dataclass(frozen=True, slots=True)
class _Job:
    inputs: tuple[str, ...]
    shard: Shard
    library_folder: Path
    library_path: str
    reference: tuple[str, ...]
    settings: ScanSettings
    reading: ModelSettings | None


def scan_in_processes(
    inputs: Sequence[str],
    library: SignatureLibrary,
    library_folder: Path,
    *,
    library_path: str,
    workers: int,
    reference: Sequence[str] = (),
    settings: ScanSettings | None = None,
    access: ModelAccess | None = None,
    progress: Progress = lambda _bytes, _rows: None,
) -> ScanResult:
    """The result of `audit.scan.scan`, byte for byte, by at most ``workers`` processes.

    A source is read by one process: of one source, no more than one works. ``library_folder`` is
    where ``library`` lies. Raises as `audit.scan.scan` and `in_workers`.
    """
    settings = settings or ScanSettings()
    count = max(1, min(workers, len(list_sources(inputs).sources)))
    reading = None if access is None else access.settings
    jobs = [
        _Job(
            tuple(inputs),
            Shard(number, count),
            library_folder,
            library_path,
            tuple(reference),
            settings,
            reading,
        )
        for number in range(1, count + 1)
    ]
    parts = []
    for _, part in in_workers(_scanned, jobs, count):
        progress(sum(s.size_bytes for _, s in part.found.sources), part.found.rows)
        parts.append(part)
    return merge_shards(parts, library, access=access)


def _scanned(job: _Job) -> ShardState:
    return scan_shard(
        job.inputs,
        job.shard,
        load_library(job.library_folder),
        library_path=job.library_path,
        reference=job.reference,
        settings=job.settings,
        reading=job.reading,
    )
