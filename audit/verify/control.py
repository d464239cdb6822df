"""The control of an edit: random rows dropped, and random tokens replaced, as many and as much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from audit.backends.open_model import Writer
from audit.sanitise.registry import parse_spec
from audit.sanitise.strategy import Kit, WorkRow
from audit.verify.pool import Pool
from audit.verify.result import Edit
from signatures.library import SignatureLibrary

_ROWS_AT_ONCE = 256
_CALIBRATION_ROWS = 64
_CALIBRATION_ROUNDS = 5
_LEAST_SHARE = 0.001
"""The least that `replace` takes."""


def edit_between(before: Pool, after: Pool, model: Writer) -> Edit:
    """What was done to ``before`` to make ``after``, which is paired with it.

    Rows without a trained text, such as a preference with an empty answer, count as none.
    """
    old = {row.key: row for row in _trained_rows(before)}
    kept = added = 0
    pairs = []
    for row in _trained_rows(after):
        was = old.pop(row.key, None)
        if was is None:
            added += 1
        elif was.texts == row.texts:
            kept += 1
        else:
            pairs.append((was, row))
    return Edit(kept, len(pairs), len(old), added, _edited_share(pairs, model))


def random_edit(
    before: Pool, after: Pool, edit: Edit, model: Writer, library: SignatureLibrary, seed: int
) -> Pool:
    """``before`` with random rows dropped and edited as ``edit`` says, and what ``after`` adds.

    Edited rows have words and numbers at random places replaced by draws from ``model`` given the
    text before, so many that ``edit.edited_share`` of their tokens differ (all of them where that
    is not enough): another choice, and nothing else. Rows whose texts cannot be put back are not
    edited. Repeats for a ``seed``.
    """
    rng = np.random.default_rng(seed)
    rows = _trained_rows(before)
    order = [rows[place] for place in rng.permutation(len(rows))]
    left = {row.key: row for row in sorted(order[edit.dropped :], key=lambda row: row.key)}
    chosen = [row for row in order[edit.dropped :] if row.is_rewritable][: edit.edited]
    if chosen and edit.edited_share > 0:
        replaced = _Replacement(model, library, seed).edited(chosen, edit.edited_share)
        left |= {row.key: row for row in replaced}
    new = tuple(row for row in _trained_rows(after) if row.key >= len(before.rows))
    return Pool((*left.values(), *new), len(left) + len(new), {})


class _Replacement:
    """Draws words and numbers at random places anew."""

    def __init__(self, model: Writer, library: SignatureLibrary, seed: int) -> None:
        self._model = model
        self._kit = Kit(model=model, concepts=(), personas=(), library=library, seed=seed)

    def rows(self, rows: Sequence[WorkRow], share: float) -> list[WorkRow]:
        """The rows with ``share`` of their words and numbers drawn."""
        strategy = parse_spec(f"replace:share={share:.6f},by=random").build(self._kit, 0)
        found = []
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[first : first + _ROWS_AT_ONCE]
            for row, change in zip(part, strategy.change(part), strict=True):
                found.append(row if change.texts is None else row.with_texts(change.texts))
        return found

    def edited(self, rows: Sequence[WorkRow], wanted: float) -> list[WorkRow]:
        """The rows, which are in random order, with ``wanted`` of all their tokens changed.

        Commas and spaces are not drawn, and some draws are what stood there; nor is there half a
        word. So two shares of the words are tried until one changes less than is wanted and one
        more, and so many rows take the larger that both together change as much.
        """
        less, more = self._shares_around(rows[:_CALIBRATION_ROWS], wanted)
        part = 0.0
        if more.changes > less.changes:
            part = (wanted - less.changes) / (more.changes - less.changes)
        first = round(min(max(part, 0.0), 1.0) * len(rows))
        return [*self.rows(rows[:first], more.share), *self.rows(rows[first:], less.share)]

    def _shares_around(self, rows: Sequence[WorkRow], wanted: float) -> tuple[_Tried, _Tried]:
        """The nearest share that changes no more than is wanted, and the nearest that does.

        Twice the same where only one is found.
        """
        share = max(wanted, _LEAST_SHARE)
        tried: list[_Tried] = []
        for _ in range(_CALIBRATION_ROUNDS):
            pairs = list(zip(rows, self.rows(rows, share), strict=True))
            changes = _edited_share(pairs, self._model)
            tried.append(_Tried(share, changes))
            is_more = changes > wanted
            if any((other.changes > wanted) is not is_more for other in tried) or share == (
                _LEAST_SHARE if is_more else 1
            ):
                break
            factor = min(wanted / changes, 2) if changes else 2
            share *= factor * (0.95 if is_more else 1.05)  # a little further: to its other side
            share = min(max(share, _LEAST_SHARE), 1.0)
        less = max((t for t in tried if t.changes <= wanted), key=_changes, default=None)
        more = min((t for t in tried if t.changes > wanted), key=_changes, default=None)
        found = less or more
        assert found is not None
        return less or found, more or found


@dataclass(frozen=True, slots=True)
class _Tried:
    """``share`` of the words and numbers drawn, which ``changes`` so many of all tokens."""

    share: float
    changes: float


def _changes(tried: _Tried) -> float:
    return tried.changes


def _trained_rows(pool: Pool) -> list[WorkRow]:
    """The rows that students draw from."""
    return [row for row in pool.rows if any(row.texts)]


def _edited_share(pairs: Sequence[tuple[WorkRow, WorkRow]], model: Writer) -> float:
    """The share of tokens that differ; 0 without any."""
    distance = longest = 0
    for pair in pairs:
        old, new = (model.encode(row.completion) for row in pair)
        distance += Levenshtein.distance(old, new)
        longest += max(len(old), len(new))
    return distance / longest if longest else 0.0
