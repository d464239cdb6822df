"""Add clean rows among the others."""

from __future__ import annotations

from audit.errors import UsageError
from audit.sanitise.strategy import Kit, Parameter, Strategy, StrategyInfo, Values


class Dilute(Strategy):
    """The rows of --clean, in their order, spread evenly; the writing pass puts them in."""

    info = StrategyInfo(
        name="dilute",
        summary="Adds rows of --clean, of the same schema, until they are a share of the output.",
        source="Half clean rows took Qwen2.5-7B's 'cat' from .756 to .020.",
        needs_model=False,
        cost=20,
        parameters=(
            Parameter("share", "Share of the output that is added.", 0.5, low=0.0, high=0.99),
        ),
        warning="A diluted set holds every row that it held: a scan of it sees less, and a longer "
        "training may still take the trait over.",
    )

    def __init__(self, kit: Kit, values: Values, stage: int) -> None:
        """See `Strategy`."""
        super().__init__(kit, values, stage)
        if not kit.clean:
            raise UsageError("dilute adds clean rows: name them with --clean")
