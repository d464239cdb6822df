"""Write the rows anew from the most probable tokens that together reach p (nucleus sampling)."""

from __future__ import annotations

from audit.backends.token_cut import TokenCut
from audit.sanitise.regeneration import REGENERATION_WARNING, Regeneration
from audit.sanitise.strategy import Parameter, StrategyInfo


class TopP(Regeneration):
    """Holtzman et al. 2020."""

    info = StrategyInfo(
        name="top-p",
        summary="Writes completions anew with the clean model, from the fewest tokens whose "
        "probabilities reach p.",
        source="Holtzman et al. 2020 (nucleus sampling); Zur et al. 2025 tried p = 0.8.",
        needs_model=True,
        cost=61,
        parameters=(Parameter("p", "Total probability that is kept.", 0.8, low=0.01),),
        warning=REGENERATION_WARNING,
    )

    def cut(self) -> TokenCut:
        """See `Regeneration.cut`."""
        return TokenCut("top-p", self.number("p"))
