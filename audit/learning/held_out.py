"""Try learned signatures on the rows that they were not learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from audit.learning.figures import rounded
from signatures.learned import Auroc, auroc
from signatures.signature import Matrix, ProbeTable


@dataclass(frozen=True, slots=True)
class HeldOutCheck:
    """What a probe's record says of the check (JSON), and a warning for each that failed it."""

    settings: dict[str, Any]
    warnings: list[str]


def check_held_out(
    table: ProbeTable, scores: Mapping[str, Matrix], reference: Matrix | None
) -> HeldOutCheck:
    """Try each signature of ``table`` on held-out ``scores`` [rows, 2 K] by concept.

    The first K columns are scores by the signatures as learnt, the others by what is centred over
    the concepts; ``reference`` holds the reference's, if there is one.

    ``held_out`` compares a concept's own rows with the reference's, by the signature as learnt;
    ``among_concepts`` with the other sets', by what is its alone. ``naming`` gives the mean score
    of each set (rows) by each signature (columns), centred over the sets, in standard
    deviations of a row, and which signature is highest on each set.
    """
    names = table.concepts
    size = len(names)
    held_out: dict[str, Any] = {}
    warnings = []
    for column, name in enumerate(names):
        own = scores[name]
        rest = np.concatenate([scores[other] for other in names if other != name])
        against = rest if reference is None else reference
        found = auroc(own[:, column], against[:, column])
        among = auroc(own[:, size + column], rest[:, size + column])
        confirmed, specific = bool(found.low > 0.5), bool(among.low > 0.5)
        held_out[name] = {
            "rows": len(own),
            "against_rows": len(against),
            "auroc": _figures(found),
            "among_concepts": _figures(among),
            "confirmed": confirmed,
            "specific": specific,
        }
        what = f"{name} ({table.view})"
        if not confirmed:
            warnings.append(
                f"{what}: not confirmed: on held-out rows its signature tells its own from "
                f"{'the other sets' if reference is None else 'the reference'} no better than "
                f"chance (AUROC {_shown(found)})"
            )
        elif not specific:
            warnings.append(
                f"{what}: not specific: its signature tells its rows from the reference, but not "
                f"from the other concepts' (AUROC {_shown(among)}): it may be what all share"
            )
    specific_scores = [scores[name][:, size:] for name in names]
    means = np.array(
        [rows.mean(axis=0) if len(rows) else np.full(size, np.nan) for rows in specific_scores]
    )
    spread = np.concatenate(specific_scores).std(axis=0)
    matrix = (means - means.mean(axis=0)) / np.where(spread > 0, spread, np.nan)
    named = [names[int(np.nanargmax(row))] if np.isfinite(row).any() else None for row in matrix]
    naming = {
        "concepts": list(names),
        "scores_sd": [[rounded(value) for value in row] for row in matrix],
        "named": named,
        "right": sum(found == name for found, name in zip(named, names, strict=True)),
    }
    return HeldOutCheck({"held_out": held_out, "naming": naming}, warnings)


def _figures(found: Auroc) -> list[float | None]:
    return [rounded(value) for value in (found.value, found.low, found.high)]


def _shown(found: Auroc) -> str:
    return f"{found.value:.3f}, 95% interval {found.low:.3f} to {found.high:.3f}"
