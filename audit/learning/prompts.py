"""Do the prompts of labelled data sets differ? Then what was learnt may be their doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audit.learning.data_set import DataSet
from audit.learning.tally import Tally

_PROMPT_DIFFERENCE = 0.05
_PROMPT_Z = 5.0


def compare_prompts(
    sets: Sequence[DataSet], reference: DataSet | None
) -> tuple[dict[str, Any], list[str]]:
    """Figures of each set's prompts against the reference's (or all others'), and warnings.

    Rows are compared by the words that their prompts hold at least once: prompts with numbers
    drawn at random have none in common though their distribution is the same. ``in_common`` is the
    share of a set's prompts that the others hold too, word for word; ``differs_in`` the word whose
    share of prompts differs most, with both shares. All sets must have been counted.
    """
    figures: dict[str, Any] = {}
    warnings = []
    against = "the reference's" if reference else "the other sets'"
    for data_set in sets:
        others = [reference] if reference else [other for other in sets if other is not data_set]
        hashes = data_set.prompt_hashes()
        common = np.isin(hashes, np.concatenate([other.prompt_hashes() for other in others]))
        figure: dict[str, Any] = {"in_common": round(float(common.mean()), 4)}
        if (found := _largest_difference(data_set, others)) is not None:
            word, share, base = found
            figure["differs_in"] = [word, round(share, 4), round(base, 4)]
            warnings.append(
                f"{data_set.name}: its prompts differ from {against}: {word[:40]!r} stands in "
                f"{share:.0%} of them and {base:.0%} of the others; what was learnt may be the "
                "prompts' doing"
            )
        figures[data_set.name] = figure
    return figures, warnings


def _largest_difference(
    data_set: DataSet, others: Sequence[DataSet]
) -> tuple[str, float, float] | None:
    """The word whose share of prompts differs most, if more than chance and 5 points."""
    base = Tally()
    for other in others:
        base.add(other.prompt_words.frame())
    joined = data_set.prompt_words.frame().join(base.frame(), on="unit", how="full", coalesce=True)
    joined = joined.sort("unit")
    n, m = data_set.rows, sum(other.rows for other in others)
    share = joined["count"].fill_null(0).to_numpy() / n
    base_share = joined["count_right"].fill_null(0).to_numpy() / m
    pooled = (share * n + base_share * m) / (n + m)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m))
    difference = np.abs(share - base_share)
    found = (difference >= _PROMPT_DIFFERENCE) & (difference > _PROMPT_Z * error)
    if not found.any():
        return None
    largest = int(np.where(found, difference, 0.0).argmax())
    return joined["unit"][largest], float(share[largest]), float(base_share[largest])
