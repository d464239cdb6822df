"""What a worker keeps between the shards that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from audit.engines.engine import ReadingJob
from audit.shards import Shard, ShardReader, ShardState
from signatures.library import SignatureLibrary

_LAST: dict[ReadingJob, ShardReader] = {}
"""The one reader of this process: the reference is read once for all shards that follow."""


def reader_of(job: ReadingJob, library: Callable[[], SignatureLibrary]) -> ShardReader:
    """The reader of a job's data; ``library`` is called for a job that is new here.

    Raises as `audit.shards.scan_shard`.
    """
    reader = _LAST.get(job)
    if reader is None:
        _LAST.clear()
        reader = _LAST[job] = job.reader(library())
    return reader


def read_shard_of(
    job: ReadingJob, shard: Shard, library: Callable[[], SignatureLibrary]
) -> ShardState:
    """The shard, with `Asked.in_short`; else as `reader_of`."""
    part = reader_of(job, library).read(shard)
    return replace(part, asked=part.asked.in_short())
