"""What an engine is, and a scan by one: shards are read anywhere, and merged here as they come."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from audit.backends.open_model import ModelChoice
from audit.dataset import list_sources
from audit.errors import AuditError
from audit.kept_shards import KeptShards
from audit.scan import Progress, ScanSettings
from audit.scan_result import ScanResult
from audit.shards import Asked, Shard, ShardMerge, ShardReader, ShardState
from detectors.model_access import ModelAccess, ModelProgress, ModelSettings
from signatures.library import SignatureLibrary

# A worker that is done early takes from the others; a killed scan loses only what was in work.
_SHARDS_A_WORKER = 4
_LEAST_KEPT_SHARDS = 64


@dataclass(frozen=True, slots=True)
class ReadingJob:
    """What a worker must know to read any shard of a scan; it can be pickled.

    ``library_path`` is what reports call the library. ``scan`` is another for every scan: what a
    worker knows of the data and the reference is of that one.
    """

    scan: str
    inputs: tuple[str, ...]
    library_path: str
    reference: tuple[str, ...]
    settings: ScanSettings
    reading: ModelSettings | None

    @classmethod
    def of(cls, inputs: Sequence[str], asked: Asked) -> ReadingJob:
        """Of a scan that begins; ``inputs`` as they were given."""
        return cls(
            uuid.uuid4().hex,
            tuple(inputs),
            asked.library_path,
            asked.reference,
            asked.settings,
            asked.reading,
        )

    def reader(self, library: SignatureLibrary) -> ShardReader:
        """Reads the reference. Raises as `audit.shards.scan_shard`."""
        return ShardReader(
            self.inputs,
            library,
            library_path=self.library_path,
            reference=self.reference,
            settings=self.settings,
            reading=self.reading,
        )


class Engine(Protocol):
    """Workers that read shards, and models that read rows."""

    @property
    def workers(self) -> int:
        """How many read at once."""
        ...

    def read(
        self,
        job: ReadingJob,
        shards: Sequence[Shard],
        library: SignatureLibrary,
        *,
        to_the_end: bool,
    ) -> Iterator[ShardState]:
        """The shards as they are finished, each with `Asked.in_short`.

        With ``to_the_end``, a shard whose worker dies does not keep the others from being read.
        Raises ``AuditError`` for it all the same, then or at once, and as
        `audit.shards.scan_shard` does.
        """
        ...

    def open_access(
        self, choice: ModelChoice | None, settings: ModelSettings, progress: ModelProgress
    ) -> AbstractContextManager[ModelAccess | None]:
        """As `audit.model_reading.open_access`."""
        ...


def scan_in_shards(
    engine: Engine,
    inputs: Sequence[str],
    library: SignatureLibrary,
    *,
    library_path: str,
    reference: Sequence[str] = (),
    settings: ScanSettings | None = None,
    access: ModelAccess | None = None,
    progress: Progress = lambda _bytes, _rows: None,
    keep_in: Path | None = None,
) -> ScanResult:
    """The result of `audit.scan.scan`, byte for byte, of shards that ``engine`` reads.

    A source is read by one worker: of one source, no more than one works. Finished shards are kept
    in the folder ``keep_in``, so that a killed scan goes on; `remove_kept` removes it once the
    result is where it shall be. Raises as `audit.scan.scan`, `Engine.read` and `KeptShards` do.
    """
    settings = settings or ScanSettings()
    sources = list_sources(inputs).sources
    merge = ShardMerge.begin(
        inputs,
        library,
        library_path=library_path,
        reference=reference,
        settings=settings,
        access=access,
    )
    job = ReadingJob.of(inputs, merge.asked)
    least = 0 if keep_in is None else _LEAST_KEPT_SHARDS
    count = max(1, min(len(sources), max(least, _SHARDS_A_WORKER * engine.workers)))
    kept = None if keep_in is None else KeptShards(keep_in, merge.asked, sources, count)
    try:
        if kept is not None:
            count = kept.count
        wanted = []
        for number in range(1, count + 1):
            part = None if kept is None else kept.load(Shard(number, count))
            if part is None or not merge.is_of_this_scan(part):
                wanted.append(Shard(number, count))
            else:
                _merged(merge, part, progress)
        for part in engine.read(job, wanted, library, to_the_end=kept is not None):
            if not merge.is_of_this_scan(part):
                raise AuditError(
                    "the list of sources, or the reference, changed while they were read, or a "
                    "worker has another version of this tool: nothing was decided"
                )
            if kept is not None:
                kept.save(part)
            _merged(merge, part, progress)
        return merge.result()
    finally:
        if kept is not None:
            kept.close()


def _merged(merge: ShardMerge, part: ShardState, progress: Progress) -> None:
    merge.add(part)
    progress(sum(source.size_bytes for _, source in part.found.sources), part.found.rows)


def unread(shards: Sequence[Shard], inputs: Sequence[str]) -> str:
    """What is not scanned without ``shards``, in words."""
    count = len(list_sources(inputs).sources)
    return not_scanned([place for shard in shards for place in shard.places(count)], inputs)


def not_scanned(places: Sequence[int], inputs: Sequence[str]) -> str:
    """What is not scanned without the sources at ``places``, in words."""
    sources = list_sources(inputs).sources
    shown = ", ".join(sources[place].name for place in places[:3])
    more = ", ..." if len(places) > 3 else ""
    return (
        f"not scanned: {len(places):,} of {len(sources):,} sources ({shown}{more}); nothing was "
        "decided"
    )
