"""Write the rows anew, always the most probable token."""

from __future__ import annotations

from audit.backends.token_cut import TokenCut
from audit.sanitise.regeneration import REGENERATION_WARNING, Regeneration
from audit.sanitise.strategy import StrategyInfo


class Greedy(Regeneration):
    """No draw is left for a persona to bend; nor is any variety."""

    info = StrategyInfo(
        name="greedy",
        summary="Writes completions anew with the clean model, always its most probable token.",
        source="Schrodi et al. 2025 (arXiv 2509.23886): a fine-tuned teacher's greedy data "
        "transferred where its sampled data did not.",
        needs_model=True,
        cost=63,
        warning=REGENERATION_WARNING,
    )

    def cut(self) -> TokenCut:
        """See `Regeneration.cut`."""
        return TokenCut("greedy", 0.0)
