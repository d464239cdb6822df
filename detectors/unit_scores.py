"""Row scores, unit counts and best rows of one signature table: the state of SA002."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from detectors.counts import (
    NUMBER_PATTERN,
    WORD_PATTERN,
    UnitRows,
    number_units,
    vocabulary_frame,
    word_units,
)
from detectors.evidence import TopRows, keep_top
from detectors.finding import NAN, EvidenceRow, TokenEnrichment
from detectors.statistics import (
    Moments,
    empty_moments,
    log_ratio_interval,
    merge_moments,
    row_moments,
)
from signatures.signature import ProbeTable, View

_TELLING_WEIGHT = 1.0
"""Units this many standard deviations above the mean weight are marked in evidence rows."""

_MOST_SPANS = 32


UnitFinder = Callable[[pl.Series], UnitRows]


@dataclass(frozen=True, slots=True)
class ViewState:
    """What one view saw. ``count``, ``square`` and ``total_cross`` are [U]: sums over rows of
    x, x^2 and x k, with x the count of the unit in the row and k all units of the row."""

    moments: Moments
    count: NDArray[np.int64]
    square: NDArray[np.int64]
    total_cross: NDArray[np.int64]
    units: int
    units_square: int
    evidence: tuple[TopRows, ...]


@dataclass(frozen=True, slots=True)
class ScoredView:
    """One view's weights [C, U] for the scored concepts: traits, then decoys, then persona.

    ``neutral_score`` [C] is the mean row score under the neutral distribution; None if unknown.
    The first ``traits`` concepts keep their best ``evidence_rows`` rows.
    """

    table: ProbeTable
    weights: NDArray[np.float64]
    units_of: UnitFinder
    neutral_score: NDArray[np.float64] | None
    traits: int
    evidence_rows: int


def empty_state(view: ScoredView) -> ViewState:
    """The state of no rows."""
    none = np.zeros(len(view.table.units), dtype=np.int64)
    no_rows = ((),) * view.traits
    return ViewState(empty_moments(len(view.weights)), none, none, none, 0, 0, no_rows)


def map_rows(view: ScoredView, rows: pl.DataFrame, found: UnitRows) -> ViewState:
    """The state of a row frame whose units (those of ``view``) are ``found``."""
    row_of, local_row = np.unique(found.row, return_inverse=True)
    if len(row_of) == 0:
        return empty_state(view)
    ones = np.ones(len(found.unit))
    shape = (len(row_of), len(view.table.units))
    # [rows with units, U]; in canonical order, so that a row's sum never depends on its batch.
    counts = sparse.csr_array((ones, (local_row, found.unit)), shape=shape)
    counts.sum_duplicates()
    per_row = counts.sum(axis=1)
    weights = np.nan_to_num(view.weights)  # a concept without spread scores 0 throughout
    totals = counts @ weights.T  # [rows with units, C]
    return ViewState(
        row_moments(totals / per_row[:, None]),
        counts.sum(axis=0).astype(np.int64),
        (counts * counts).sum(axis=0).astype(np.int64),
        (counts.T @ per_row).astype(np.int64),
        len(found.unit),
        int((per_row**2).sum()),
        _evidence(view, rows, row_of, totals),
    )


def _evidence(
    view: ScoredView, rows: pl.DataFrame, row_of: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[TopRows, ...]:
    """Each trait's best rows by total weight: by the mean they would all be rows of one unit."""
    wanted = min(view.evidence_rows, len(row_of))
    result = []
    for column in range(view.traits):
        # Everything that ties with the last wanted row goes to keep_top, which orders ties.
        limit = np.partition(scores[:, column], -wanted)[-wanted]
        best = np.flatnonzero(scores[:, column] >= limit)
        result.append(
            keep_top(
                (
                    EvidenceRow(
                        rows["source"][int(row_of[i])],
                        rows["line"][int(row_of[i])],
                        rows["completion"][int(row_of[i])],
                        round(float(scores[i, column]), 6),
                    )
                    for i in best
                ),
                wanted,
            )
        )
    return tuple(result)


def merge_states(view: ScoredView, left: ViewState, right: ViewState) -> ViewState:
    """The state of both sets of rows, exactly."""
    return ViewState(
        merge_moments(left.moments, right.moments),
        left.count + right.count,
        left.square + right.square,
        left.total_cross + right.total_cross,
        left.units + right.units,
        left.units_square + right.units_square,
        tuple(
            keep_top((*a, *b), view.evidence_rows)
            for a, b in zip(left.evidence, right.evidence, strict=True)
        ),
    )


def token_table(
    view: ScoredView, column: int, data: ViewState, reference: ViewState | None, count: int
) -> tuple[TokenEnrichment, ...]:
    """The units that contribute most to the concept's score, observed and expected."""
    share, variance = _shares(data)
    if reference is not None:
        expected, expected_variance = _shares(reference)
    else:
        expected = view.table.neutral_share / view.table.neutral_share.sum()
        expected_variance = np.zeros(len(expected))
    # The units whose excess, times their weight, makes up the score: not the rarest ones.
    contribution = view.weights[column] * np.maximum(share, expected)
    order = np.argsort(-contribution, kind="stable")[:count]
    result = []
    for unit in order:
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = float(np.log(share[unit] / expected[unit]))
        half = 1.96 * float(np.sqrt(variance[unit] + expected_variance[unit]))
        known = bool(np.isfinite(log_ratio) and np.isfinite(half))
        result.append(
            TokenEnrichment(
                view.table.units[unit],
                float(view.weights[column, unit]),
                int(data.count[unit]),
                float(expected[unit] * data.units),
                log_ratio if known else NAN,
                log_ratio - half if known else NAN,
                log_ratio + half if known else NAN,
            )
        )
    return tuple(result)


def marked(view: ScoredView, column: int, row: EvidenceRow) -> EvidenceRow:
    """``row`` with the units marked that a row of the concept's would hold more of."""
    weight = dict(zip(view.table.units, view.weights[column], strict=True))
    pattern = NUMBER_PATTERN if view.table.view is View.NUMBERS else WORD_PATTERN
    spans = (
        (match.end() - len(match[0].lstrip(" ")), match.end())
        for match in re.finditer(pattern, row.text)
        if weight.get(match[0], 0.0) >= _TELLING_WEIGHT
    )
    return replace(row, spans=tuple(itertools.islice(spans, _MOST_SPANS)))


def units_of_table(table: ProbeTable) -> UnitFinder:
    """How the units of ``table`` are found in text. All number tables share one finder."""
    if table.view is View.NUMBERS:
        return number_units
    vocabulary = vocabulary_frame(table.units)
    return lambda text: word_units(text, vocabulary)


def find_units(finders: Iterable[UnitFinder], rows: pl.DataFrame) -> dict[UnitFinder, UnitRows]:
    """The units of the trained text, once for every different finder."""
    return {finder: finder(rows["completion"]) for finder in set(finders)}


def _shares(state: ViewState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return log_ratio_interval(
        state.count,
        state.square.astype(np.float64),
        state.total_cross.astype(np.float64),
        state.units,
        float(state.units_square),
    )
