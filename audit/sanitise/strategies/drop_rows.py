"""Drop the rows that read most as a persona's."""

from __future__ import annotations

from audit.sanitise.ranked_rows import RANKING, RankedRows
from audit.sanitise.strategy import SAME_WITNESS, StrategyInfo


class DropRows(RankedRows):
    """To a stated share of the rows, or until so few of a persona's rows would stay."""

    info = StrategyInfo(
        name="drop-rows",
        summary="Drops the rows that read most as if written under a persona (that of --concept, "
        "or any), whatever their number: clean data lose as many.",
        source="Log-likelihood ratio with the candidate prompt; dropping the top half took most "
        "transfer away (eagle 1.00 to .42, lion .95 to .00).",
        needs_model=True,
        cost=40,
        warning=SAME_WITNESS,
        parameters=RANKING,
    )
