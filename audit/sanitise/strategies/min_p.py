"""Write the rows anew without tokens far less probable than the most probable one."""

from __future__ import annotations

from audit.backends.token_cut import TokenCut
from audit.sanitise.regeneration import REGENERATION_WARNING, Regeneration
from audit.sanitise.strategy import Parameter, StrategyInfo


class MinP(Regeneration):
    """Nguyen et al. 2024."""

    info = StrategyInfo(
        name="min-p",
        summary="Writes completions anew with the clean model, every token below p times the most "
        "probable one's probability cut.",
        source="Nguyen et al. 2024 (min-p sampling).",
        needs_model=True,
        cost=62,
        parameters=(Parameter("p", "Share of the most probable token's probability.", 0.1),),
        warning=REGENERATION_WARNING,
    )

    def cut(self) -> TokenCut:
        """See `Regeneration.cut`."""
        return TokenCut("min-p", self.number("p"))
