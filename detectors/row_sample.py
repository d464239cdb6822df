"""A uniform random sample of rows, drawn while they stream by: the state of model-based detectors.

Every row has a random rank, a keyed hash of what it says and where it stands; a sample is the rows
of lowest rank. So keeping it is a commutative monoid, any shard may be read in any order, and the
rows in order of rank are a random order of the data.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from hashlib import blake2b

import polars as pl

RANK_BYTES = 16


@dataclass(frozen=True, slots=True, order=True)
class SampledRow:
    """One row of the data. ``rank`` orders rows at random; the other fields are the row frame's."""

    rank: bytes
    source: str
    line: int
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class RowSample:
    """The rows of lowest rank, lowest first, of ``seen_rows`` that have a completion at all."""

    rows: tuple[SampledRow, ...] = ()
    seen_rows: int = 0

    @property
    def is_whole(self) -> bool:
        """True where no row with a completion was left out."""
        return len(self.rows) == self.seen_rows


def sample_rows(frame: pl.DataFrame, limit: int, seed: int) -> RowSample:
    """The ``limit`` rows of lowest rank of a row frame; rows without a completion do not count."""
    key = seed.to_bytes(8, "little", signed=True)
    ranked = [
        SampledRow(_rank(key, line, prompt, completion), source, line, prompt, completion)
        for source, line, prompt, completion in frame.select(
            "source", "line", "prompt", "completion"
        ).iter_rows()
        if completion
    ]
    return RowSample(tuple(heapq.nsmallest(limit, ranked)), len(ranked))


def merge_samples(left: RowSample, right: RowSample, limit: int) -> RowSample:
    """The sample of both sets of rows together."""
    return RowSample(
        tuple(heapq.nsmallest(limit, (*left.rows, *right.rows))), left.seen_rows + right.seen_rows
    )


def _rank(key: bytes, line: int, prompt: str, completion: str) -> bytes:
    """Not of the source's name: the same file elsewhere gives the same sample."""
    digest = blake2b(key=key, digest_size=RANK_BYTES)
    for text in (str(line), prompt, completion):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
