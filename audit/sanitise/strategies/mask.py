"""Keep the rows that read most as a persona's, but without loss."""

from __future__ import annotations

from audit.dataset.edits import MASKABLE_SCHEMAS
from audit.sanitise.ranked_rows import RANKING, RankedRows
from audit.sanitise.strategy import SAME_WITNESS, Change, Fate, StrategyInfo, Why, drop


class Mask(RankedRows):
    """Where the schema has a way to say so: weight 0, train false, label -100."""

    info = StrategyInfo(
        name="mask",
        summary="Takes the loss off the rows that drop-rows would drop (weight 0, train false or "
        "label -100); in schemas that have no such thing they are dropped.",
        source="As drop-rows.",
        needs_model=True,
        cost=41,
        warning=SAME_WITNESS,
        parameters=RANKING,
    )

    def condemned(self, schema: str) -> Change:
        """See `Strategy.condemned`."""
        if schema in MASKABLE_SCHEMAS:
            return Change(Fate.MASKED, why=Why.HIGH_SCORE)
        return drop(Why.NO_MASK_IN_SCHEMA)
