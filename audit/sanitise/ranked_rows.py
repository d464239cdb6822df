"""Picks whole rows by a score: what `drop-rows` and `mask` share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from audit.errors import UsageError
from audit.sanitise.row_scores import named_personas, score_texts, whole_texts
from audit.sanitise.strategy import (
    KEEP,
    Array,
    Change,
    Fate,
    Kit,
    Parameter,
    Strategy,
    Values,
    Why,
    WorkRow,
    drop,
)
from detectors.row_ranking import rank_rows

RANKING = (
    Parameter(
        "by",
        "likelihood (log-likelihood ratio), divergence (divergence tokens), or random: a control.",
        "likelihood",
        choices=("likelihood", "divergence", "random"),
    ),
    Parameter("share", "Share of the rows that go, highest scores first [0.5].", None),
    Parameter(
        "miss",
        "In place of share: the share of a persona's rows that may stay.",
        None,
        low=0.0001,
        high=0.9999,
    ),
)

_DEFAULT_SHARE = 0.5


class RankedRows(Strategy):
    """Scores every row; `settle` picks once all scores are known."""

    def __init__(self, kit: Kit, values: Values, stage: int) -> None:
        """See `Strategy`."""
        super().__init__(kit, values, stage)
        self._miss = values["miss"]
        if self._miss is not None and values["share"] is not None:
            raise UsageError(f"{self.info.name} takes share or miss, not both")
        if self._miss is not None and values["by"] != "likelihood":
            raise UsageError("miss is known for by=likelihood alone: give share")
        if values["by"] != "random" and not kit.personas:
            raise UsageError(
                f"{self.info.name} scores rows for a persona: the library holds no concept"
            )

    def change(self, rows: Sequence[WorkRow]) -> list[Change]:
        """See `Strategy.change`."""
        if self.values["by"] == "random":
            return [
                Change(Fate.KEPT, score=self.kit.generator(row, "rank", self.stage).random())
                if row.trained
                else KEEP
                for row in rows
            ]
        texts = {row.key: text for row in rows for text in whole_texts([row])}
        found = score_texts(self.kit, texts.values(), whole_texts(self.kit.sample))
        scored = [found[text.rank] for text in texts.values() if text.rank in found]
        ranks = rank_rows(
            scored,
            (lambda s: s.likelihood)
            if self.values["by"] == "likelihood"
            else (lambda s: s.divergence),
            named_personas(self.kit),
        )
        # With a target for misses, a row goes unless a persona's row would seldom score as low.
        score = ranks.score if self._miss is None else ranks.score - ranks.expected
        by_rank = {row.row.rank: float(value) for row, value in zip(scored, score, strict=True)}
        return [
            KEEP if row.key not in texts else self._scored(by_rank.get(texts[row.key].rank))
            for row in rows
        ]

    @staticmethod
    def _scored(score: float | None) -> Change:
        if score is None or not np.isfinite(score):
            return drop(Why.NOT_SCORED)  # what nobody could look at is not clean
        return Change(Fate.KEPT, score=score)

    def settle(self, scores: Array) -> NDArray[np.bool_]:
        """See `Strategy.settle`."""
        picked = np.zeros(len(scores), dtype=bool)
        known = np.flatnonzero(np.isfinite(scores))
        if self._miss is not None:
            picked[known] = scores[known] > stats.norm.ppf(float(self._miss))
            return picked
        share = self.values["share"]
        count = round((_DEFAULT_SHARE if share is None else float(share)) * len(known))
        picked[known[np.argsort(-scores[known], kind="stable")[:count]]] = True
        return picked
