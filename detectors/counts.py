"""Units of a row's trained text: numbers, and words that are single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

NUMBER_PATTERN = r"\d+"
WORD_PATTERN = r" ?[^\W\d_]+"
"""Letters with an optional space before them. Polars counts with it, Python only marks evidence."""


@dataclass(frozen=True, slots=True)
class UnitRows:
    """The units of a batch of rows, flat and in reading order.

    ``row`` [N] is ascending (position of the row in the frame); ``unit`` [N] indexes the unit
    list; ``uncovered`` counts units of that kind which the list does not hold.
    """

    row: NDArray[np.int64]
    unit: NDArray[np.int64]
    uncovered: int


def number_units(text: pl.Series) -> UnitRows:
    """Every run of 1 to 3 digits in ``text``, as an index into ``number_trie.NUMBERS``.

    A longer run of digits is one uncovered unit: its parts are no numbers of their own.
    """
    runs = _exploded(text, NUMBER_PATTERN)
    length = pl.col("unit").str.len_bytes()
    ascii_digits = pl.col("unit").str.contains(r"^[0-9]{1,3}$")
    value = pl.col("unit").str.to_integer(strict=False)
    offset = pl.when(length == 1).then(0).when(length == 2).then(10).otherwise(110)
    return _unit_rows(runs.select("row", pl.when(ascii_digits).then(value + offset).alias("index")))


def word_units(text: pl.Series, vocabulary: pl.DataFrame) -> UnitRows:
    """Every word of ``text`` that stands in ``vocabulary`` (columns ``unit``, ``index``).

    Words are split as byte-level BPE tokenizers split them first (an optional leading space and
    a run of letters), so a vocabulary entry that is such a word is found exactly where the
    tokenizer would see the whole of it at once.
    """
    words = _exploded(text, WORD_PATTERN)
    return _unit_rows(
        words.join(vocabulary, on="unit", how="left", maintain_order="left").select("row", "index")
    )


def vocabulary_frame(units: Sequence[str]) -> pl.DataFrame:
    """The lookup table of ``word_units``."""
    return pl.DataFrame(
        {"unit": list(units), "index": np.arange(len(units), dtype=np.int64)},
        schema={"unit": pl.String, "index": pl.Int64},
    )


def _exploded(text: pl.Series, pattern: str) -> pl.DataFrame:
    frame = pl.DataFrame({"text": text}).with_row_index("row")
    return (
        frame.select(pl.col("row").cast(pl.Int64), pl.col("text").str.extract_all(pattern))
        .explode("text")
        .rename({"text": "unit"})
        .filter(pl.col("unit").is_not_null())
    )


def _unit_rows(frame: pl.DataFrame) -> UnitRows:
    known = frame.filter(pl.col("index").is_not_null())
    return UnitRows(
        known["row"].to_numpy().astype(np.int64),
        known["index"].cast(pl.Int64).to_numpy().astype(np.int64),
        len(frame) - len(known),
    )
