"""Export the shifts of a signature library as a table that other programs read."""

from __future__ import annotations

import numpy as np
import polars as pl

from audit.errors import UsageError
from audit.shift_table import NUMBER_COLUMN, TOKEN_COLUMN, UNIT_COLUMNS
from signatures.library import SignatureLibrary
from signatures.signature import Probe, ProbeTable, View


def export_shifts(
    library: SignatureLibrary, view: View, probe: Probe | None = None, *, centred: bool = False
) -> pl.DataFrame:
    """One row a unit: ``number`` or ``token``, and a float32 column of shifts (nats) a concept.

    ``probe`` may be None where the library has one table of the view. ``centred`` gives the
    hub-corrected shifts. Raises ``UsageError`` for a table that is not there, or a concept that is
    called like the column of units.
    """
    table = _chosen(library, view, probe)
    reserved = [name for name in table.concepts if name in UNIT_COLUMNS]
    if reserved:
        raise UsageError(
            f"a concept is called {reserved[0]!r} like a column of units; rename it and build again"
        )
    shifts = table.centred_nats() if centred else table.shift_nats
    unit = NUMBER_COLUMN if view is View.NUMBERS else TOKEN_COLUMN
    return pl.DataFrame(
        {
            unit: pl.Series(table.units, dtype=pl.String),
            **{
                name: shifts[index].astype(np.float32)  # 7 digits, as a library stores them
                for index, name in enumerate(table.concepts)
            },
        }
    )


def _chosen(library: SignatureLibrary, view: View, probe: Probe | None) -> ProbeTable:
    of_view = [table for table in library.tables if table.view is view]
    chosen = [table for table in of_view if probe in (None, table.probe)]
    if len(chosen) == 1:
        return chosen[0]
    probes = ", ".join(table.probe for table in of_view) or "none"
    if chosen:
        raise UsageError(f"{library.name!r} has several {view} tables: choose a probe of {probes}")
    wanted = f"{probe} {view}" if probe else str(view)
    raise UsageError(f"{library.name!r} has no {wanted} table; its {view} probes: {probes}")
