"""Drop rows that hold a token which the clean model finds improbable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audit.sanitise.conversation import chat_before
from audit.sanitise.grammars import Grammars
from audit.sanitise.strategy import (
    KEEP,
    Array,
    Change,
    Fate,
    Kit,
    Parameter,
    Strategy,
    StrategyInfo,
    Values,
    Why,
    WorkRow,
    drop,
)
from audit.sanitise.token_probabilities import token_probabilities
from signatures.language_model import Chat


class DropLowProbability(Strategy):
    """What `threshold` would not have written; nothing is written anew."""

    info = StrategyInfo(
        name="drop-low-probability",
        summary="Drops rows that hold a token below an absolute probability t under the clean "
        "model.",
        source="Zur et al. 2025 filtered with an API's log-probabilities.",
        needs_model=True,
        cost=50,
        parameters=(
            Parameter("t", "Probability, of what the row's format allows at a place.", 0.05),
        ),
        warning="Of text sampled at temperature 1 hardly a long row holds no improbable token: "
        "most rows go.",
    )

    def __init__(self, kit: Kit, values: Values, stage: int) -> None:
        """See `Strategy`."""
        super().__init__(kit, values, stage)
        self._grammars = Grammars(kit.writer)

    def change(self, rows: Sequence[WorkRow]) -> list[Change]:
        """See `Strategy.change`; the score is minus the probability of the least probable token.

        The most probable token of a place is never improbable: `threshold` writes it, too.
        """
        asked: list[tuple[int, Chat, str]] = [
            (number, chat_before(row.turns, place) or Chat("", ""), row.turns[place].text)
            for number, row in enumerate(rows)
            for place in row.trained
        ]
        found = token_probabilities(
            self.kit.writer,
            self._grammars,
            [(chat, text) for _, chat, text in asked],
            self.number("t"),
        )
        least = np.full(len(rows), np.inf)
        for (number, _, _), probabilities in zip(asked, found, strict=True):
            if probabilities is None:
                least[number] = np.nan
            else:
                least[number] = np.minimum(least[number], probabilities.min(initial=np.inf))
        return [
            KEEP
            if not row.completion
            else drop(Why.TOO_LONG_FOR_MODEL)
            if np.isnan(lowest)
            else Change(Fate.KEPT, score=-float(lowest))
            for row, lowest in zip(rows, least, strict=True)
        ]

    def settle(self, scores: Array) -> NDArray[np.bool_]:
        """See `Strategy.settle`."""
        return np.asarray(scores > -self.number("t"))

    def condemned(self, schema: str) -> Change:
        """See `Strategy.condemned`."""
        return drop(Why.BELOW_THRESHOLD)
