"""Probe tables: every concept's measured shifts under one probe, in memory and in Parquet."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from signatures import entanglement

Matrix = NDArray[np.float64]


class View(enum.StrEnum):
    """What the units of a table are: every number string, or tokens of the vocabulary."""

    NUMBERS = "numbers"
    VOCABULARY = "vocabulary"


class Probe(enum.StrEnum):
    """How a table was measured."""

    QUESTION = "question"
    CONTEXT = "context"
    FINETUNED = "finetuned"
    LEARNED = "learned"
    UNEMBEDDING = "unembedding"
    IMPORTED = "imported"


IN_DISTRIBUTION = (Probe.CONTEXT, Probe.FINETUNED, Probe.LEARNED)
"""Probes that measure shares in real contexts; the others only say what is favoured."""


@dataclass(frozen=True, slots=True)
class ProbeTable:
    """What K concepts do to U units under one probe. Arrays are float64.

    ``shift_nats`` [K, U]: mean over contexts (or templates) of
    log P(unit | concept) - log P(unit | none). ``spread_nats`` [K, U]: its standard error over
    contexts (NaN with fewer than two). ``neutral_share`` [U]: P(unit | none) averaged over
    contexts; ``concept_share`` [K, U]: the same under the concept. Both are NaN where the probe
    does not measure them (a question says nothing of how often a number is written; an imported
    table has only shifts).
    """

    view: View
    probe: Probe
    units: tuple[str, ...]
    concepts: tuple[str, ...]
    shift_nats: Matrix
    spread_nats: Matrix
    neutral_share: Matrix
    concept_share: Matrix

    def __post_init__(self) -> None:
        """Raise ``ValueError`` where the arrays' shapes do not fit the names."""
        shape = (len(self.concepts), len(self.units))
        for name in ("shift_nats", "spread_nats", "concept_share"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        if self.neutral_share.shape != shape[1:]:
            raise ValueError(f"neutral_share has shape {self.neutral_share.shape}, not {shape[1:]}")
        if not np.isfinite(self.shift_nats).all():
            raise ValueError("shift_nats holds a value that is not finite")

    def centred_nats(self) -> Matrix:
        """The hub-corrected shifts, [K, U]."""
        return entanglement.centre_over_concepts(self.shift_nats)

    def select_units(self, keep: NDArray[np.int64]) -> ProbeTable:
        """The same table with only the units ``keep`` (indices), in that order."""
        return replace(
            self,
            units=tuple(self.units[index] for index in keep),
            shift_nats=self.shift_nats[:, keep],
            spread_nats=self.spread_nats[:, keep],
            neutral_share=self.neutral_share[keep],
            concept_share=self.concept_share[:, keep],
        )

    def select_concepts(self, names: tuple[str, ...]) -> ProbeTable:
        """The same table with only the concepts ``names``, in that order.

        Raises ``KeyError`` for a name that it does not hold.
        """
        position = {name: index for index, name in enumerate(self.concepts)}
        keep = np.array([position[name] for name in names], dtype=np.int64)
        return replace(
            self,
            concepts=names,
            shift_nats=self.shift_nats[keep],
            spread_nats=self.spread_nats[keep],
            concept_share=self.concept_share[keep],
        )

    def to_frame(self) -> pl.DataFrame:
        """One row a unit; ``shift``, ``spread`` and ``share`` columns a concept, float32.

        Columns that are NaN throughout are left out: they come back as NaN.
        """
        columns: dict[str, pl.Series | Matrix] = {
            "unit": pl.Series(self.units, dtype=pl.String),
            "neutral_share": self.neutral_share,
        }
        for index, concept in enumerate(self.concepts):
            columns[f"shift:{concept}"] = self.shift_nats[index]
            columns[f"spread:{concept}"] = self.spread_nats[index]
            columns[f"share:{concept}"] = self.concept_share[index]
        frame = pl.DataFrame(columns).with_columns(
            pl.selectors.float().cast(pl.Float32)  # 7 digits: probes agree to 1e-4 at best
        )
        empty = [
            name
            for name in frame.columns
            if frame[name].dtype == pl.Float32 and frame[name].is_nan().all()
        ]
        return frame.drop(empty)


def table_from_frame(
    frame: pl.DataFrame, view: View, probe: Probe, concepts: tuple[str, ...]
) -> ProbeTable:
    """Rebuild a table from ``ProbeTable.to_frame``.

    Raises ``ValueError`` if a concept has no shift column or the units are not unique.
    """
    units = tuple(frame["unit"].to_list()) if "unit" in frame.columns else ()
    if not units or len(set(units)) != len(units):
        raise ValueError("the units are missing or not unique")

    def column(name: str) -> Matrix:
        if name not in frame.columns:
            return np.full(len(units), np.nan)
        return frame[name].cast(pl.Float64).to_numpy().astype(np.float64)

    def block(prefix: str) -> Matrix:
        return np.array([column(f"{prefix}:{concept}") for concept in concepts]).reshape(
            len(concepts), len(units)
        )

    missing = [concept for concept in concepts if f"shift:{concept}" not in frame.columns]
    if missing:
        raise ValueError(f"the concept {missing[0]!r} has no shift column")
    return ProbeTable(
        view,
        probe,
        units,
        concepts,
        block("shift"),
        block("spread"),
        column("neutral_share"),
        block("share"),
    )
