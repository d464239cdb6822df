"""Sums by text over batches of rows, in bounded memory."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.counts import NUMBER_PATTERN, WORD_PATTERN
from signatures.learned import RowSums
from signatures.signature import View

_MOST_TEXTS = 1 << 20
"""Different words whose counts are kept; beyond it the rarer half is dropped."""


class Tally:
    """Sums by text over many batches.

    The frames have a text column ``unit``, which is the key, and integer columns to add up.
    """

    def __init__(self) -> None:
        """No text yet."""
        self._frames: list[pl.DataFrame] = []
        self._height = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Add the sums of one batch. Beyond ``_MOST_TEXTS`` texts those of low ``count`` go."""
        self._frames.append(frame)
        self._height += len(frame)
        if self._height > 2 * _MOST_TEXTS:
            merged = self.frame()
            if len(merged) > _MOST_TEXTS:
                merged = merged.sort("count", "unit", descending=True).head(_MOST_TEXTS // 2)
            self._frames, self._height = [merged], len(merged)

    def frame(self) -> pl.DataFrame:
        """One row a text, sorted by it."""
        merged = pl.concat(self._frames).group_by("unit").agg(pl.all().sum())
        return merged.sort("unit")


class UnitTally:
    """What `RowSums` needs, by unit, of the texts added so far.

    ``rows`` are those that hold units, ``units`` all their units, and ``units_square`` the sum of
    squares of the units of each row.
    """

    def __init__(self, view: View) -> None:
        """Count numbers or words, as ``view`` says."""
        self._view = view
        self._tally = Tally()
        self.rows = self.units = self.units_square = 0

    def add(self, text: pl.Series) -> None:
        """Count the units of each row of ``text`` [rows]."""
        numbers = self._view is View.NUMBERS
        found = units_of_rows(text, NUMBER_PATTERN if numbers else WORD_PATTERN)
        if numbers:
            found = found.filter(pl.col("unit").str.contains(r"^[0-9]{1,3}$"))
        x, k = pl.col("x"), pl.col("k")
        cells = found.group_by("row", "unit").agg(x=pl.len().cast(pl.Int64))
        cells = cells.with_columns(k=x.sum().over("row"))
        self._tally.add(
            cells.group_by("unit").agg(
                count=x.sum(), square=(x * x).sum(), total_cross=(x * k).sum()
            )
        )
        sizes = cells.group_by("row").agg(k=x.sum())["k"].to_numpy()
        self.rows += len(sizes)
        self.units += int(sizes.sum())
        self.units_square += int((sizes.astype(np.int64) ** 2).sum())

    def frame(self) -> pl.DataFrame:
        """Columns ``unit``, ``count``, ``square`` and ``total_cross``; sorted by unit."""
        return self._tally.frame()

    def row_sums(self, units: pl.DataFrame) -> RowSums:
        """The sums of ``units`` (columns ``unit``, ``index`` in order), arrays [U]; 0 if unseen."""
        found = units.join(self.frame(), on="unit", how="left", maintain_order="left")

        def column(name: str) -> NDArray[np.int64]:
            return found[name].fill_null(0).cast(pl.Int64).to_numpy()

        return RowSums(
            column("count"),
            column("square"),
            column("total_cross"),
            self.rows,
            self.units,
            self.units_square,
        )


def units_of_rows(text: pl.Series, pattern: str) -> pl.DataFrame:
    """Every match of ``pattern`` in ``text`` [rows]: columns ``row`` (position in it), ``unit``."""
    return (
        pl.DataFrame({"unit": text})
        .with_row_index("row")
        .with_columns(pl.col("unit").str.extract_all(pattern))
        .explode("unit")
        .drop_nulls("unit")
    )
