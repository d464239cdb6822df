"""Write the rows anew without any token below an absolute probability."""

from __future__ import annotations

from audit.backends.token_cut import TokenCut
from audit.sanitise.regeneration import REGENERATION_WARNING, Regeneration
from audit.sanitise.strategy import Parameter, StrategyInfo


class Threshold(Regeneration):
    """Low-probability tokens are where entangled ones hide: none of them is written."""

    info = StrategyInfo(
        name="threshold",
        summary="Writes completions anew with the clean model, every token below an absolute "
        "probability t cut.",
        source="Zur et al. 2025, It's Owl in the Numbers (threshold sampling).",
        needs_model=True,
        cost=60,
        parameters=(
            Parameter("t", "Probability, of what the row's format allows at a place.", 0.05),
        ),
        warning=REGENERATION_WARNING,
    )

    def cut(self) -> TokenCut:
        """See `Regeneration.cut`."""
        return TokenCut("threshold", self.number("t"))
