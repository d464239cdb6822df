"""What a worker keeps between the shards that it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from audit.engines.engine import ReadingJob
from audit.shards import Shard, ShardReader, ShardState
from signatures.library import SignatureLibrary

_LAST: dict[ReadingJob, ShardReader] = {}
"""The one reader of this process: the reference is read once for all shards that follow."""


def read_shard_of(
    job: ReadingJob, shard: Shard, library: Callable[[], SignatureLibrary]
) -> ShardState:
    """The shard, with `Asked.in_short`. ``library`` is called for a job that is new here.

    Raises as `audit.shards.scan_shard`.
    """
    reader = _LAST.get(job)
    if reader is None:
        _LAST.clear()
        reader = _LAST[job] = job.reader(library())
    part = reader.read(shard)
    return replace(part, asked=part.asked.in_short())
