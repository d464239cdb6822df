"""Shuffle what stands in a row in an order that means nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from audit.backends.number_list_grammar import style_of
from audit.sanitise.grammars import numbers_style
from audit.sanitise.strategy import KEEP, Change, Fate, Strategy, StrategyInfo, Why, WorkRow, drop

_NUMBER = re.compile(r"[0-9]+")


class Shuffle(Strategy):
    """Number lists alone: the order of words, lines and steps says something."""

    info = StrategyInfo(
        name="shuffle",
        summary="Shuffles the numbers of every number list; separators stay. Other rows are kept "
        "as they are, and counted.",
        source="One adjacent swap a row took Qwen2.5-7B's 'cat' from .662 to .033.",
        needs_model=False,
        cost=10,
        warning="Which numbers a set holds is left as it was: only what hides in their order goes.",
    )

    def change(self, rows: Sequence[WorkRow]) -> list[Change]:
        """See `Strategy.change`."""
        return [self._shuffled(row) for row in rows]

    def _shuffled(self, row: WorkRow) -> Change:
        if not any(style_of(text) for text in row.texts):
            single = all(numbers_style(text) for text in row.texts if text)
            return Change(
                Fate.KEPT, why=Why.NOTHING_TO_SHUFFLE if single else Why.ORDER_CARRIES_MEANING
            )
        if not row.is_rewritable:
            return drop(Why.NOT_REWRITABLE)
        generator = self.kit.generator(row, "shuffle", self.stage)
        texts = []
        for text in row.texts:
            if style_of(text):
                numbers = _NUMBER.findall(text)
                drawn = iter(generator.permutation(len(numbers)))
                text = _NUMBER.sub(lambda _: numbers[next(drawn)], text)  # noqa: B023 - used here
            texts.append(text)
        return KEEP if tuple(texts) == row.texts else Change(Fate.EDITED, texts=tuple(texts))
