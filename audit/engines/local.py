"""A scan in several processes of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from audit.backends.open_model import ModelChoice
from audit.engines.engine import ReadingJob, unread
from audit.engines.reading import read_shard_of
from audit.model_reading import open_access
from audit.shards import Shard, ShardState
from audit.workers import in_workers
from detectors.model_access import ModelAccess, ModelProgress, ModelSettings
from signatures.library import SignatureLibrary, load_library


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """At most ``workers`` processes; ``library_folder`` is where they find the library."""

    workers: int
    library_folder: Path

    def read(
        self,
        job: ReadingJob,
        shards: Sequence[Shard],
        library: SignatureLibrary,
        *,
        to_the_end: bool,
    ) -> Iterator[ShardState]:
        """See `Engine.read`."""
        jobs = [(job, shard, self.library_folder) for shard in shards]
        if not jobs:
            return

        def unfinished(left: Sequence[tuple[ReadingJob, Shard, Path]]) -> str:
            return unread([shard for _, shard, _ in left], job.inputs)

        count = min(self.workers, len(jobs))
        for _, part in in_workers(_read, jobs, count, unfinished=unfinished, option="--workers"):
            yield part

    def open_access(
        self, choice: ModelChoice | None, settings: ModelSettings, progress: ModelProgress
    ) -> AbstractContextManager[ModelAccess | None]:
        """The model of this process."""
        return open_access(choice, settings, progress)


def _read(job: tuple[ReadingJob, Shard, Path]) -> ShardState:
    asked, shard, folder = job
    return read_shard_of(asked, shard, lambda: load_library(folder))
