"""The control of an edit: random rows dropped, and random tokens replaced, as many and as much."""

from __future__ import annotations

import numpy as np
from rapidfuzz.distance import Levenshtein

from audit.backends.open_model import Writer
from audit.sanitise.registry import parse_spec
from audit.sanitise.strategy import Kit, WorkRow
from audit.verify.pool import Pool
from audit.verify.result import Edit
from signatures.library import SignatureLibrary

_ROWS_AT_ONCE = 256


def edit_between(before: Pool, after: Pool, model: Writer) -> Edit:
    """What was done to ``before`` to make ``after``, which is paired with it."""
    old = {row.key: row for row in before.rows}
    kept = edited = added = distance = longest = 0
    for row in after.rows:
        was = old.pop(row.key, None)
        if was is None:
            added += 1
        elif was.texts == row.texts:
            kept += 1
        else:
            edited += 1
            texts = [model.encode(r.completion) for r in (was, row)]
            distance += Levenshtein.distance(*texts)
            longest += max(map(len, texts))
    return Edit(kept, edited, len(old), added, distance / longest if longest else 0.0)


def random_edit(
    before: Pool, after: Pool, edit: Edit, model: Writer, library: SignatureLibrary, seed: int
) -> Pool:
    """``before`` with random rows dropped and edited as ``edit`` says, and what ``after`` adds.

    Edited rows have ``edit.edited_share`` of their words and numbers, at random places, replaced by
    draws from ``model`` given the text before: another choice, and nothing else. Repeats for a
    ``seed``.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(before.rows))
    dropped, edited = np.split(order[: edit.dropped + edit.edited], [edit.dropped])
    rows = {row.key: row for place, row in enumerate(before.rows) if place not in set(dropped)}
    chosen = [before.rows[place] for place in sorted(edited)]
    if chosen and edit.edited_share > 0:
        for row in _replaced(chosen, edit.edited_share, model, library, seed):
            rows[row.key] = row
    new = tuple(row for row in after.rows if row.key >= len(before.rows))
    return Pool((*rows.values(), *new), len(rows) + len(new), {})


def _replaced(
    rows: list[WorkRow], share: float, model: Writer, library: SignatureLibrary, seed: int
) -> list[WorkRow]:
    kit = Kit(model=model, concepts=(), personas=(), library=library, seed=seed)
    strategy = parse_spec(f"replace:share={max(share, 0.001):.6f},by=random").build(kit, 0)
    found = []
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[first : first + _ROWS_AT_ONCE]
        for row, change in zip(part, strategy.change(part), strict=True):
            found.append(row if change.texts is None else row.with_texts(change.texts))
    return found
