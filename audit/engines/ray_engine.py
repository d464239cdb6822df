"""A scan by Ray: each task reads a shard, and the states are merged here as they come.

Plain tasks, not Ray Data: what flows are a few hundred kilobytes of a shard's states, so that its
blocks bring nothing, while a shard whose worker dies must be known by its name (docs/cluster.md has
the measurement).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from audit.backends.open_model import ModelChoice
from audit.engines.engine import ReadingJob, unread
from audit.engines.ray_cluster import (
    MOST_RETRIES,
    WorkerDiedError,
    go_to,
    ray_cluster,
    worker_errors,
)
from audit.engines.ray_model import open_ray_access
from audit.engines.reading import read_shard_of
from audit.shards import Shard, ShardState
from detectors.model_access import ModelAccess, ModelProgress, ModelSettings
from signatures.library import SignatureLibrary


class RayEngine:
    """At most ``workers`` tasks at once. Build it with `open`."""

    def __init__(self, ray: Any, workers: int) -> None:
        """``ray`` is connected."""
        self.workers = workers
        self._ray = ray

    @classmethod
    @contextmanager
    def open(cls, address: str | None, workers: int) -> Iterator[RayEngine]:
        """On the cluster at ``address``, or a Ray of ``workers`` CPUs that is started for it.

        Raises as `ray_cluster`.
        """
        with ray_cluster(address, workers) as ray:
            yield cls(ray, workers)

    def read(
        self,
        job: ReadingJob,
        shards: Sequence[Shard],
        library: SignatureLibrary,
        *,
        to_the_end: bool,
    ) -> Iterator[ShardState]:
        """See `Engine.read`."""
        ray = self._ray
        task = ray.remote(
            num_cpus=1,
            max_retries=MOST_RETRIES,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )(_read)
        # In a list, so that only a worker that has no reader yet fetches it.
        library_reference = [ray.put(library)]
        waiting = list(reversed(shards))
        working: dict[Any, Shard] = {}
        lost: list[Shard] = []
        died: WorkerDiedError | None = None
        while waiting or working:
            while waiting and len(working) < self.workers:
                shard = waiting.pop()
                working[task.remote(job, shard, library_reference, str(Path.cwd()))] = shard
            (done, *_), _ = ray.wait(list(working), num_returns=1)
            shard = working.pop(done)
            try:
                with worker_errors(unread([shard], job.inputs)):
                    part = ray.get(done)
            except WorkerDiedError as error:
                if not to_the_end:
                    raise
                lost.append(shard)
                died = error
            else:
                yield part
        if died is not None:
            raise WorkerDiedError(died.kind, unread(lost, job.inputs)) from died

    def open_access(
        self, choice: ModelChoice | None, settings: ModelSettings, progress: ModelProgress
    ) -> AbstractContextManager[ModelAccess | None]:
        """One model a GPU, or a CPU worker, once rows are to be read."""
        return open_ray_access(self._ray, self.workers, choice, settings, progress)


def _read(
    job: ReadingJob, shard: Shard, library_reference: Sequence[Any], folder: str
) -> ShardState:
    """Runs in a worker."""
    import ray

    go_to(folder)
    return read_shard_of(job, shard, lambda: ray.get(library_reference[0]))
