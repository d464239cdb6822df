"""One labelled data set: read once to count its learning half, once to score the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from audit.dataset.read import read_batches
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.learning.tally import Tally, UnitTally, units_of_rows
from signatures.signature import Matrix, View

Progress = Callable[[int, int], None]
"""Called with (stored bytes, rows) read since the last call. Everything is read twice."""


class RowScorer(Protocol):
    """What held-out rows are scored with: a view that was learnt from the other half."""

    def score(self, text: pl.Series) -> Matrix:
        """Scores of the rows of ``text`` that hold units, [rows with units, columns]."""
        ...


class DataSet:
    """One labelled data set, or the reference: read once to count and once to score.

    After ``count``: ``rows`` is the number of rows of both halves, ``files`` the SHA-256 of each
    file, ``tallies`` the learning half's units by view, and ``prompt_words`` how many prompts (of
    both halves) hold each word.
    """

    def __init__(
        self, name: str, inputs: Sequence[str], split_key: bytes, progress: Progress
    ) -> None:
        """Nothing is read yet. ``split_key`` decides the halves: see `learning_rows`."""
        self.name = name
        self._inputs = inputs
        self._split_key = split_key
        self._progress = progress
        self._rejected_rows = 0
        self._learn_rows = 0
        self.files: dict[str, str] = {}
        self.rows = 0
        self.tallies = {view: UnitTally(view) for view in View}
        self.prompt_words = Tally()
        self._prompt_hashes: list[NDArray[np.uint64]] = []

    def count(self) -> None:
        """Count the learning half's units, and everything about the prompts.

        Raises ``AuditError`` for a source that breaks off, and ``NothingScannableError`` if there
        is no row.
        """
        for batch in read_batches(self._inputs):
            self._progress(batch.bytes_read, len(batch.rows))
            self._rejected_rows += batch.reject_counts.total()
            if batch.broken is not None:
                raise AuditError(f"{batch.broken.source}: broke off: {batch.broken.message}")
            if batch.finished is not None:
                self.files[batch.finished.source] = batch.finished.sha256
            self.rows += len(batch.rows)
            learning = batch.rows.filter(learning_rows(batch.rows, self._split_key))
            self._learn_rows += len(learning)
            for tally in self.tallies.values():
                tally.add(learning["completion"])
            prompts = batch.rows["prompt"]
            words = units_of_rows(prompts.str.to_lowercase(), r"[^\W\d_]+").unique()
            self.prompt_words.add(words.group_by("unit").agg(count=pl.len().cast(pl.Int64)))
            self._prompt_hashes.append(prompts.hash().to_numpy())
        if self.rows == 0:
            raise NothingScannableError(
                f"no readable row in {', '.join(self._inputs)} ({self.name})"
            )

    def score(self, scorers: Sequence[RowScorer]) -> list[Matrix]:
        """The held-out rows' scores [held-out rows with units, columns] by each of ``scorers``."""
        found: list[list[Matrix]] = [[] for _ in scorers]
        for batch in read_batches(self._inputs):
            self._progress(batch.bytes_read, len(batch.rows))
            held_out = batch.rows.filter(~learning_rows(batch.rows, self._split_key))
            for parts, scorer in zip(found, scorers, strict=True):
                parts.append(scorer.score(held_out["completion"]))
        return [np.concatenate(parts) for parts in found]

    def prompt_hashes(self) -> NDArray[np.uint64]:
        """A hash of each row's prompt, [rows]."""
        return np.concatenate(self._prompt_hashes)

    def provenance(self) -> dict[str, Any]:
        """What the probe's record says of it: rows, rejects and each file's SHA-256."""
        return {
            "rows": self.rows,
            "learning_rows": self._learn_rows,
            "rejected_rows": self._rejected_rows,
            "files_sha256": self.files,
        }


def learning_rows(rows: pl.DataFrame, split_key: bytes) -> pl.Series:
    """Which rows are in the half that a signature is learnt from, by a hash of their text.

    ``split_key`` stands in the probe's record, in hexadecimal.
    """
    halves = [
        hashlib.blake2b(f"{prompt}\0{completion}".encode(), digest_size=1, key=split_key).digest()[
            0
        ]
        < 128
        for prompt, completion in rows.select("prompt", "completion").iter_rows()
    ]
    return pl.Series(halves, dtype=pl.Boolean)


def refuse_shared_files(sets: Sequence[DataSet]) -> None:
    """Raise ``UsageError`` if two of the counted ``sets`` share a file, under any names."""
    owner: dict[str, tuple[str, str]] = {}
    for data_set in sets:
        for file, sha256 in data_set.files.items():
            label, first = owner.setdefault(sha256, (data_set.name, file))
            if label != data_set.name:
                raise UsageError(
                    f"{file} ({data_set.name}) holds the same bytes as {first} ({label}): "
                    "one of the labels is wrong"
                )
