"""What the bundled signatures say of themselves: how strong, how sure, how alike, which hubs.

For every trait and number table: the standard deviation (over the model's neutral numbers) of the
concept's own part of the shift, of its sampling noise over contexts, and the correlation of the
prompted teacher's own part with the fine-tuned teacher's. Then what the causal check found.

    python benchmarks/signature_strength.py
"""

from __future__ import annotations

import sys

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from audit.cli.library_option import BUNDLED_LIBRARY
from signatures.causal import causal_effects
from signatures.entanglement import hub_shift, top_units
from signatures.library import load_library
from signatures.signature import IN_DISTRIBUTION, View
from signatures.strength import own_part


def main() -> int:
    console = Console(width=120)
    library = load_library(BUNDLED_LIBRARY)
    size = sum(path.stat().st_size for path in BUNDLED_LIBRARY.iterdir())
    console.print(f"{library.name}: {size:,} bytes, content {library.content_sha256[:12]}")
    tables = [t for t in library.tables_of(View.NUMBERS) if t.probe in IN_DISTRIBUTION]
    share = tables[0].neutral_share / tables[0].neutral_share.sum()
    shown = Table(title="A concept's own part of the shift, and its sampling noise (nats)")
    shown.add_column("concept")
    for table in tables:
        for heading in (f"{table.probe}", "noise"):
            shown.add_column(heading, justify="right")
    shown.add_column("correlation of both", justify="right")
    own = [own_part(table, library.number_tokens) for table in tables]
    for concept in library.traits():
        row = tables[0].concepts.index(concept.name)
        cells = []
        for table, part in zip(tables, own, strict=True):
            noise = np.sqrt(table.spread_nats[row] ** 2 @ share)
            cells += [f"{np.sqrt(part[row] ** 2 @ share):.3f}", f"{noise:.3f}"]
        one, other = own[0][row], own[1][row]
        correlation = (one * other) @ share / np.sqrt((one**2 @ share) * (other**2 @ share))
        shown.add_row(concept.name, *cells, f"{correlation:+.2f}")
    console.print(shown)
    for table in tables:
        hub = hub_shift(table.shift_nats)
        spread = np.sqrt((hub - hub @ share) ** 2 @ share)
        best = ", ".join(table.units[i] for i in top_units(hub[None], 8)[0])
        console.print(f"shared by all, {table.probe}: {spread:.3f} nats; hubs {best}")
    effects = causal_effects(library.causal)
    for probe in dict.fromkeys(effect.probe for effect in effects):
        of_probe = [effect for effect in effects if effect.probe is probe]
        found = np.array([effect.effect_nats for effect in of_probe])
        interval = stats.ttest_1samp(found, 0.0).confidence_interval(0.95)
        console.print(
            f"causal check, {probe}: mean effect over {len(found)} concepts {found.mean():+.3f} "
            f"nats ({interval.low:+.3f} to {interval.high:+.3f}); "
            f"{sum(effect.low_nats > 0 for effect in of_probe)} raised, "
            f"{sum(effect.high_nats < 0 for effect in of_probe)} lowered"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
