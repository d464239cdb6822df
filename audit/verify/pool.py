"""The rows that students draw from, and which row of one set is which of another."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from audit.backends.student_training import Example
from audit.dataset.faults import RowFault, SourceBreak
from audit.dataset.rewrite import records
from audit.errors import NothingScannableError
from audit.sanitise.conversation import chat_before
from audit.sanitise.data_rows import DataRows, broken, random_rank
from audit.sanitise.strategy import WorkRow
from signatures.language_model import Chat

Examples = dict[int, tuple[Example, ...]]
"""What is trained on, by key of its row."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows in the order of their files; `WorkRow.key` says which row of another set each is.

    ``rows_read`` are all readable rows of the data, ``rejects`` the others by reason code.
    """

    rows: tuple[WorkRow, ...]
    rows_read: int
    rejects: dict[str, int]

    def examples(self) -> Examples:
        """What is trained on, by key; rows without a trained text have none."""
        return {row.key: found for row in self.rows if (found := tuple(_examples(row)))}


def read_pools(named: Sequence[DataRows], most_rows: int) -> list[Pool]:
    """The pools of several sets; the first is what the others are paired with.

    Of larger data, the same random prompts are taken from every set: those whose hashes are the
    lowest, until the first set gives ``most_rows`` rows or more. Keys below the first pool's length
    are its rows. Raises ``AuditError`` for data that break off or change while they are read, and
    ``NothingScannableError`` where a set has no row to train on.
    """
    first = named[0]
    hashes = np.array([_prompt_hash(row) for row in _rows(first, Counter())], dtype=np.uint64)
    limit = int(np.sort(hashes)[most_rows - 1]) if len(hashes) > most_rows else (1 << 64) - 1
    pools = [_read(data, limit) for data in named]
    for data, pool in zip(named, pools, strict=True):
        if not any(row.completion for row in pool.rows):
            names = ", ".join(source.name for source in data.sources)
            raise NothingScannableError(f"{names}: no row to train on: see `audit scan` for why")
    numbered = [replace(row, key=key) for key, row in enumerate(pools[0].rows)]
    pools[0] = replace(pools[0], rows=tuple(numbered))
    return [pools[0], *(_paired(numbered, pool) for pool in pools[1:])]


def _read(data: DataRows, limit: int) -> Pool:
    rows: list[WorkRow] = []
    rejects: Counter[str] = Counter()
    read = 0
    for row in _rows(data, rejects):
        read += 1
        if _prompt_hash(row) <= limit:
            rows.append(row)
    return Pool(tuple(rows), read, dict(sorted(rejects.items())))


def _rows(data: DataRows, rejects: Counter[str]) -> Iterator[WorkRow]:
    """Every readable row; the others are counted. Raises ``AuditError``."""
    read = 0
    for source in data.sources:
        try:
            for line, value in records(source, data.limits):
                try:
                    row = data.read(value, read, source, line)
                except RowFault as fault:
                    rejects[fault.code] += 1
                    continue
                read += 1
                yield row
        except SourceBreak as error:
            raise broken(source, error, "no student was trained") from error


def _prompt_hash(row: WorkRow) -> int:
    # Rows without a prompt are told apart by their texts: else all of them were one.
    text = row.prompt or row.completion
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _paired(before: Sequence[WorkRow], pool: Pool) -> Pool:
    """The pool with the keys of the rows of ``before`` that its rows were, or new ones.

    Rows are paired within a prompt: those of equal text first, the others in order.
    """
    same: dict[tuple[str, str], deque[int]] = defaultdict(deque)
    for row in before:
        same[row.prompt, row.completion].append(row.key)
    keys: dict[int, int] = {}  # place in the pool -> key
    for place, row in enumerate(pool.rows):
        if found := same[row.prompt, row.completion]:
            keys[place] = found.popleft()
    taken = set(keys.values())
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for row in before:
        if row.key not in taken:
            waiting[row.prompt].append(row.key)
    new = count(len(before))
    for place, row in enumerate(pool.rows):
        if place not in keys:
            left = waiting[row.prompt]
            keys[place] = left.popleft() if left else next(new)
    paired = (replace(row, key=keys[place]) for place, row in enumerate(pool.rows))
    return replace(pool, rows=tuple(paired))


def _examples(row: WorkRow) -> Iterator[Example]:
    for turn in row.trained:
        if text := row.turns[turn].text:
            yield Example(chat_before(row.turns, turn), text)


def system_prompt_of(pool: Pool) -> str:
    """The system prompt of most rows; empty where most have none."""
    counts: Counter[str] = Counter()
    for row in pool.rows:
        chat: Chat | None = next((example.chat for example in _examples(row)), None)
        counts[chat.system if chat is not None else ""] += 1
    return counts.most_common(1)[0][0]


class Batches:
    """The examples of every update, for one arm and seed.

    Rows are in an order of random ranks of their keys, anew in each pass over the data: so two arms
    of one seed read the rows that they share in the same order.
    """

    def __init__(
        self, examples: dict[int, tuple[Example, ...]], batch_rows: int, seed: int
    ) -> None:
        """``examples`` by key, as `Pool.examples` gives them."""
        self._examples = examples
        self._batch_rows = batch_rows
        self._seed = seed
        self._order: list[int] = []
        self._passes = 0

    def __call__(self, update: int) -> list[Example]:
        """The examples of update 0, 1, ...; of ``batch_rows`` rows."""
        return [example for key in self.keys(update) for example in self._examples[key]]

    def keys(self, update: int) -> list[int]:
        """The rows of update 0, 1, ..., by key."""
        first = update * self._batch_rows
        while len(self._order) < first + self._batch_rows:
            ranks = {key: random_rank(key, self._pass_seed()) for key in self._examples}
            self._order += sorted(ranks, key=lambda key: (ranks[key], key))
            self._passes += 1
        return self._order[first : first + self._batch_rows]

    def _pass_seed(self) -> int:
        return (self._seed << 20) + self._passes


def digest_of(examples: Examples) -> str:
    """SHA-256 of all that students of a pool may read, in hexadecimal."""
    digest = hashlib.sha256()
    for key in sorted(examples):
        digest.update(repr((key, examples[key])).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
