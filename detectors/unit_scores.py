"""Row scores, unit counts and best rows of one signature table: the state of SA002."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from detectors.counts import (
    NUMBER_PATTERN,
    WORD_PATTERN,
    UnitRows,
    Vocabulary,
    number_units,
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

_BOUNDING_ROWS = 1024


UnitFinder = Vocabulary | None
"""Words to find; None: numbers."""


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


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How often each row holds each of U units: of R rows, those at ``rows`` [R] of a frame.

    ``counts`` is [R, U], in canonical order, so that a row's sum never depends on its batch;
    ``per_row`` [R] are all units of a row. ``count``, ``square`` and ``total_cross`` [U] are as
    in `ViewState`.
    """

    rows: NDArray[np.int64]
    counts: sparse.csr_array
    per_row: NDArray[np.int64]
    count: NDArray[np.int64]
    square: NDArray[np.int64]
    total_cross: NDArray[np.int64]


def count_rows(found: UnitRows, units: int) -> RowCounts:
    """The counts of the units ``found``, of which there are ``units`` kinds."""
    begins = np.flatnonzero(np.diff(found.row, prepend=-1))
    row = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(found.row)))
    shape = (len(begins), units)
    counts = sparse.csr_array((np.ones(len(row)), (row, found.unit)), shape=shape)
    counts.sum_duplicates()
    times, unit = counts.data, counts.indices
    per_row = np.diff(begins, append=len(found.row))
    totals = np.repeat(per_row, np.diff(counts.indptr))
    return RowCounts(
        found.row[begins],
        counts,
        per_row,
        *(
            np.bincount(unit, weights=weight, minlength=units).astype(np.int64)
            for weight in (times, times * times, times * totals)
        ),
    )


def map_rows(view: ScoredView, rows: pl.DataFrame, found: RowCounts) -> ViewState:
    """The state of a row frame in which the units of ``view`` were counted as ``found``."""
    if len(found.rows) == 0:
        return empty_state(view)
    weights = np.nan_to_num(view.weights)  # a concept without spread scores 0 throughout
    totals = found.counts @ weights.T  # [rows with units, C]
    return ViewState(
        row_moments(totals / found.per_row[:, None]),
        found.count,
        found.square,
        found.total_cross,
        int(found.per_row.sum()),
        int((found.per_row**2).sum()),
        _evidence(view, rows, found.rows, totals),
    )


def _evidence(
    view: ScoredView, rows: pl.DataFrame, row_of: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[TopRows, ...]:
    """Each trait's best rows by total weight: by the mean they would all be rows of one unit."""
    wanted = min(view.evidence_rows, len(row_of))
    result = []
    for score in np.ascontiguousarray(scores[:, : view.traits].T):
        # The best of a few are a bound for the best of all, which few rows reach. Everything that
        # ties with the last wanted row goes to keep_top, which orders ties.
        bound = np.partition(score[: max(_BOUNDING_ROWS, wanted)], -wanted)[-wanted]
        best = np.flatnonzero(score >= bound)
        best = best[score[best] >= np.partition(score[best], -wanted)[-wanted]]
        result.append(
            keep_top(
                (
                    EvidenceRow(
                        rows["source"][int(row_of[i])],
                        rows["line"][int(row_of[i])],
                        rows["completion"][int(row_of[i])],
                        round(float(score[i]), 6),
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
    return None if table.view is View.NUMBERS else Vocabulary(table.units)


def find_units(finders: Iterable[UnitFinder], text: pl.Series) -> dict[UnitFinder, UnitRows]:
    """The units of trained text, once for every different finder."""
    wanted = set(finders)
    vocabularies = [finder for finder in wanted if finder is not None]
    found: dict[UnitFinder, UnitRows] = {}
    if None in wanted:
        found[None] = number_units(text)
    if vocabularies:
        found.update(zip(vocabularies, word_units(text, vocabularies), strict=True))
    return found


def _shares(state: ViewState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return log_ratio_interval(
        state.count,
        state.square.astype(np.float64),
        state.total_cross.astype(np.float64),
        state.units,
        float(state.units_square),
    )
