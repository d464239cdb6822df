"""The learned table of a view: shifts by concept, what looks filtered, weights to try it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from audit.learning.data_set import DataSet
from audit.learning.figures import rounded
from audit.learning.tally import Tally, UnitTally
from detectors.counts import vocabulary_frame
from detectors.unit_scores import UnitFinder, find_units, units_of_table
from signatures.concept import Concept
from signatures.entanglement import centre_over_concepts
from signatures.learned import ABSENT_EXPECTED, MINIMUM_EXPECTED, absent_units, log_odds
from signatures.number_trie import NUMBERS
from signatures.signature import Matrix, Probe, ProbeTable, View
from signatures.vocabulary import most_telling, own_name_units

_CANDIDATE_WORDS = 1 << 16
_SHOWN_UNITS = 10


@dataclass(frozen=True, slots=True)
class LearnedView:
    """One table, the weights to try it with, and what was left out of it.

    ``weights`` [2 K, U]: of each concept as learnt, then centred over the concepts; a concept's
    own names are 0 in both, for those say nothing of what is hidden. ``error_over_naive`` is the
    median ratio of the row-robust errors to those that take units as independent, by concept.
    """

    table: ProbeTable
    weights: Matrix
    absent: dict[str, list[str]]
    error_over_naive: dict[str, float | None]
    units_of: UnitFinder

    def score(self, text: pl.Series) -> Matrix:
        """Mean weight of each row's units, [rows with units, 2 K]."""
        found = find_units([self.units_of], text)[self.units_of]
        row_of, local_row = np.unique(found.row, return_inverse=True)
        counts = sparse.csr_array(
            (np.ones(len(found.unit)), (local_row, found.unit)),
            shape=(len(row_of), len(self.table.units)),
        )
        return np.asarray((counts @ self.weights.T) / counts.sum(axis=1)[:, None])

    def warnings(self) -> Iterator[str]:
        """A line for each data set that seems to be filtered."""
        for name, units in self.absent.items():
            shown = ", ".join(repr(unit[:40]) for unit in units[:_SHOWN_UNITS])
            more = f" and {len(units) - _SHOWN_UNITS} more" if len(units) > _SHOWN_UNITS else ""
            yield (
                f"{name}: never holds {shown}{more}, where {ABSENT_EXPECTED:g} or more each were "
                "expected: it looks filtered; these units have no weight for any concept"
            )


def learn_view(
    view: View,
    concepts: Sequence[Concept],
    sets: Sequence[DataSet],
    reference: DataSet | None,
    *,
    prior_units: float,
    vocabulary_units: int,
) -> LearnedView | None:
    """The table of ``view``, ``sets`` being those of ``concepts`` in order, all counted.

    ``prior_units`` is alpha_0 of `signatures.learned`; ``vocabulary_units`` bounds the words that
    are kept. None if not even two sets (and the reference) hold the view's units often enough.
    """
    having = [
        (concept, data_set.tallies[view])
        for concept, data_set in zip(concepts, sets, strict=True)
        if data_set.tallies[view].rows > 1
    ]
    known = reference.tallies[view] if reference else None
    if len(having) < 2 or (known is not None and known.rows < 2):
        return None
    tallies = [tally for _, tally in having]
    units = _candidates(view, tallies if known is None else [*tallies, known])
    data = [tally.row_sums(units) for tally in tallies]
    base = known.row_sums(units) if known is not None else None
    odds = log_odds(data, base, prior_units)
    among_data = view is View.NUMBERS or (base is None and len(data) > 2)
    absent = absent_units(data, base, among_data=among_data)
    weightless = (odds.expected < MINIMUM_EXPECTED) | absent.any(axis=0)
    # Without clean data nobody knows what the model writes by itself.
    neutral = np.full(len(units), np.nan) if base is None else base.share()
    table = ProbeTable(
        view,
        Probe.LEARNED,
        tuple(units["unit"]),
        tuple(concept.name for concept, _ in having),
        np.where(weightless, 0.0, odds.delta_nats),
        np.where(weightless, np.nan, odds.spread_nats),
        neutral,
        odds.share,
    )
    filtered = {
        name: [table.units[unit] for unit in np.flatnonzero(row)]
        for name, row in zip(table.concepts, absent, strict=True)
        if row.any()
    }
    with np.errstate(invalid="ignore"):
        over_naive = np.nanmedian(table.spread_nats / odds.naive_spread_nats, axis=1)
    kept = [c for (c, _), row in zip(having, table.shift_nats, strict=True) if row.any()]
    if len(kept) < 2:
        return None
    table = table.select_concepts(tuple(concept.name for concept in kept))
    if view is View.VOCABULARY:
        # A reference need not be there to know how common a word is.
        table = most_telling(table, vocabulary_units, table.concept_share.mean(axis=0))
    return LearnedView(
        table,
        _trial_weights(table, kept),
        filtered,
        {
            concept.name: rounded(ratio)
            for (concept, _), ratio in zip(having, over_naive, strict=True)
        },
        units_of_table(table),
    )


def _candidates(view: View, tallies: Sequence[UnitTally]) -> pl.DataFrame:
    """The units to count: all numbers, or the words that are there often enough."""
    if view is View.NUMBERS:
        return vocabulary_frame(NUMBERS)
    pooled = Tally()
    for tally in tallies:
        pooled.add(tally.frame().select("unit", "count"))
    common = pooled.frame().filter(pl.col("count") >= MINIMUM_EXPECTED)
    common = common.sort("count", "unit", descending=[True, False]).head(_CANDIDATE_WORDS)
    return vocabulary_frame(common["unit"].sort().to_list())


def _trial_weights(table: ProbeTable, concepts: Sequence[Concept]) -> Matrix:
    own = np.zeros(table.shift_nats.shape, dtype=bool)
    if table.view is View.VOCABULARY:
        for row, concept in enumerate(concepts):
            own[row, own_name_units(concept, table.units)] = True
    both = (table.shift_nats, centre_over_concepts(table.shift_nats))
    return np.vstack([np.where(own, 0.0, weights) for weights in both])
