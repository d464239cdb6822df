"""What the bundled signatures say of themselves: how strong, how alike, which hubs.

For every trait and number table: the effect that a set written throughout under it is expected to
show (in sd of one row's score; the example reference gives it), the rows a side that seeing it
takes (power .8, the strictest step of FDR .05 over all traits, no over-dispersion), and the
correlation of the prompted teacher's centred shift with the fine-tuned teacher's.

    python benchmarks/signature_strength.py
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from scipy import stats

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.dataset import read_batches
from detectors.detector import TestSettings
from detectors.frequency import ANY_PERSONA, FrequencyDetector
from signatures.entanglement import hub_shift, top_units
from signatures.library import SignatureLibrary, load_library
from signatures.signature import IN_DISTRIBUTION, View

REFERENCE = Path(__file__).parent.parent / "examples" / "reference.jsonl.gz"


def main() -> int:
    console = Console(width=120)
    library = load_library(BUNDLED_LIBRARY)
    size = sum(path.stat().st_size for path in BUNDLED_LIBRARY.iterdir())
    console.print(f"{library.name}: {size:,} bytes, content {library.content_sha256[:12]}")
    tables = [t for t in library.tables_of(View.NUMBERS) if t.probe in IN_DISTRIBUTION]
    expected = {table.probe: expected_effects(library, table) for table in tables}
    share = tables[0].neutral_share / tables[0].neutral_share.sum()
    centred = [
        (c := table.centred_nats()) - (c @ share)[:, None] for table in tables
    ]  # [tables][K, U]
    shown = Table(title="Expected effect of a set written throughout under each trait (sd a row)")
    shown.add_column("concept")
    for table in tables:
        shown.add_column(f"{table.probe}", justify="right")
        shown.add_column("rows a side", justify="right")
    shown.add_column("correlation of both", justify="right")
    names = [concept.name for concept in library.traits()]
    for name in [*names, ANY_PERSONA]:
        cells = []
        for table in tables:
            effect = expected[table.probe].get(name, float("nan"))
            cells += [f"{effect:.3f}", f"{rows_needed(effect, len(names) + 1)}"]
        correlation = ""
        if name != ANY_PERSONA and len(tables) == 2:
            row = tables[0].concepts.index(name)
            one, other = centred[0][row], centred[1][row]
            r = (one * other) @ share / np.sqrt((one**2 @ share) * (other**2 @ share))
            correlation = f"{r:+.2f}"
        shown.add_row(name, *cells, correlation)
    console.print(shown)
    for table in tables:
        hubs = top_units(hub_shift(table.shift_nats)[None], 8)[0]
        console.print(f"hubs of {table.probe}: " + ", ".join(table.units[i] for i in hubs))
    return 0


def expected_effects(library: SignatureLibrary, table) -> dict[str, float]:
    reference = pl.concat([batch.rows for batch in read_batches([str(REFERENCE)])])
    detector = FrequencyDetector(replace(library, tables=(table,)), TestSettings())
    detector.prepare(lambda: [reference])
    state = detector.map(reference)
    return {f.concept: f.expected_effect for f in detector.test(state, state).findings}


def rows_needed(effect: float, tests: int) -> str:
    if not effect > 0:
        return "-"
    wanted = stats.norm.ppf(1 - 0.05 / tests) + stats.norm.ppf(0.8)
    return f"{int(np.ceil(2 * (wanted / effect) ** 2)):,}"


if __name__ == "__main__":
    sys.exit(main())
