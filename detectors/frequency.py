"""SA002 frequency: are the units that a concept's signature favours enriched in the data?

Each row scores the mean signature weight of its units; mean row scores are compared with a
reference, or with the signature's own neutral distribution, and the statistic is calibrated by
the decoys' statistics on the same data.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from detectors.concept_tests import ConceptTest, test_concepts
from detectors.detector import (
    BatchSource,
    DetectorInfo,
    DetectorResult,
    Skipped,
    TestSettings,
    unsettled,
)
from detectors.finding import EvidenceRow, Finding, Reason
from detectors.statistics import (
    SCORE_LIMIT,
    Moments,
    compare_with_expectation,
    compare_with_reference,
)
from detectors.unit_scores import (
    ScoredView,
    UnitFinder,
    ViewState,
    count_rows,
    empty_state,
    find_units,
    map_rows,
    marked,
    merge_states,
    token_table,
    units_of_table,
)
from signatures import entanglement
from signatures.library import SignatureLibrary
from signatures.signature import Probe, ProbeTable, View
from signatures.vocabulary import own_name_units

_UNIT_PRIOR = 0.5
"""Jeffreys' pseudo-count: a unit that the reference never held still has a share."""


FrequencyState = tuple[ViewState, ...]


class FrequencyDetector:
    """Enrichment of entangled units; see the module's text and docs/detectors/SA002.md."""

    info = DetectorInfo(
        code="SA002",
        name="frequency",
        summary="Units that the concept's signature favours are enriched in the trained text.",
        null_hypothesis=(
            "The mean row score is the baseline's, up to the scatter that decoys and other "
            "concepts show on the same data."
        ),
        score_range="Row score: mean weight of the row's units, clipped to [-16, 16] standard "
        "deviations of a unit's weight.",
        direction="Higher means more of what the concept favours; the test is one-sided.",
        source="Zur et al. 2025 (entangled tokens); Efron, JASA 99, 2004 (empirical null).",
    )
    state_types = (ViewState, Moments, EvidenceRow)

    def __init__(self, library: SignatureLibrary, settings: TestSettings) -> None:
        """Score with the library's tables; call ``prepare`` before ``map``."""
        self._library = library
        self._settings = settings
        self._traits = [concept.name for concept in library.traits()]
        self._decoys = [concept.name for concept in library.decoys()]
        self._views: tuple[ScoredView, ...] = ()

    def prepare(self, reference: BatchSource | None) -> None:
        """Fix the weights under the shares of the reference, or of the neutral model."""
        tables = [table for view in View for table in self._library.tables_of(view)]
        finders = [units_of_table(table) for table in tables]
        counts = [np.zeros(len(table.units), dtype=np.int64) for table in tables]
        for rows in () if reference is None else reference():
            found = find_units(finders, rows["completion"])
            for count, finder in zip(counts, finders, strict=True):
                count += np.bincount(found[finder].unit, minlength=len(count))
        self._views = tuple(
            self._scored_view(*parts) for parts in zip(tables, finders, counts, strict=True)
        )

    @property
    def views(self) -> tuple[ScoredView, ...]:
        """The weights of every table that is scored with, once prepared."""
        return self._views

    def identity(self) -> FrequencyState:
        """The state of no rows."""
        return tuple(empty_state(view) for view in self._views)

    def map(self, rows: pl.DataFrame) -> FrequencyState:
        """Row scores, unit counts and the best rows of one batch."""
        kinds = {view.units_of: len(view.table.units) for view in self._views}
        found = find_units(kinds, rows["completion"])
        counted = {finder: count_rows(found[finder], units) for finder, units in kinds.items()}
        return tuple(map_rows(view, rows, counted[view.units_of]) for view in self._views)

    def merge(self, left: FrequencyState, right: FrequencyState) -> FrequencyState:
        """Both states together, exactly."""
        return tuple(
            merge_states(view, a, b) for view, a, b in zip(self._views, left, right, strict=True)
        )

    def test(self, data: FrequencyState, reference: FrequencyState | None) -> DetectorResult:
        """One finding a trait, of the view in which it shows most (with its price paid)."""
        if not self._views:
            return DetectorResult((), (Skipped("", "the library holds no table to score with"),))
        results = [
            self._test_view(view, state, None if reference is None else reference[index])
            for index, (view, state) in enumerate(zip(self._views, data, strict=True))
        ]
        names = list(dict.fromkeys(name for result in results for name in result))
        findings = [
            _strongest(
                [
                    (view.table.probe, result[name])
                    for view, result in zip(self._views, results, strict=True)
                    if name in result
                ]
            )
            for name in names
        ]
        skipped = tuple(
            Skipped(
                name,
                "its signature does not differ from the other concepts' mean"
                if any(name in view.table.concepts for view in self._views)
                else "no table of the library holds its signature",
            )
            for name in self._traits
            if name not in names
        )
        return DetectorResult(tuple(findings), skipped)

    # -- weights ---------------------------------------------------------------------------

    def _scored_view(
        self,
        table: ProbeTable,
        units_of: UnitFinder,
        reference_count: NDArray[np.int64],
    ) -> ScoredView:
        traits = [name for name in self._traits if name in table.concepts]
        decoys = [name for name in self._decoys if name in table.concepts]
        table = table.select_concepts((*traits, *decoys))
        neutral = table.neutral_share / table.neutral_share.sum()  # NaN where it is unknown
        has_neutral = bool(np.isfinite(neutral).all())
        if reference_count.any():
            share = reference_count + _UNIT_PRIOR
        elif has_neutral:
            share = neutral
        else:
            share = np.ones(len(table.units))
        share = share / share.sum()
        hub = entanglement.hub_shift(table.shift_nats)
        # Orthogonal to the hub: how strongly a persona was instilled must not look like which one.
        nuisance = np.column_stack([np.ones(len(hub)), hub])
        if table.view is View.NUMBERS:
            features = entanglement.format_features(self._library.number_tokens)
            nuisance = np.column_stack([nuisance, features])
        weights = entanglement.project_out(table.centred_nats(), nuisance, share)
        if table.view is View.VOCABULARY:
            weights = self._without_own_names(weights, table)
        weights = np.clip(entanglement.standardise(weights, share), -SCORE_LIMIT, SCORE_LIMIT)
        return ScoredView(
            table,
            weights,
            units_of,
            weights @ neutral if has_neutral else None,
            len(traits),
            self._settings.evidence_rows,
        )

    def _without_own_names(
        self, weights: NDArray[np.float64], table: ProbeTable
    ) -> NDArray[np.float64]:
        """A concept's own name is SA001's business, not evidence of anything hidden."""
        weights = weights.copy()
        for row, name in enumerate(table.concepts):
            weights[row, own_name_units(self._library.concept(name), table.units)] = 0.0
        return weights

    # -- test ------------------------------------------------------------------------------

    def _test_view(
        self, view: ScoredView, data: ViewState, reference: ViewState | None
    ) -> dict[str, Finding]:
        scored = {
            name: column
            for column, name in enumerate(view.table.concepts)
            if name not in self._decoys and np.isfinite(view.weights[column]).all()
        }
        refusal = self._refusal(view, data, reference)
        if refusal is not None:
            return {
                name: self._finding(name, view, data, reason=refusal[0], message=refusal[1])
                for name in scored
            }
        if reference is not None:
            comparison = compare_with_reference(data.moments, reference.moments)
        else:
            assert view.neutral_score is not None  # or it would have been refused
            comparison = compare_with_expectation(data.moments, view.neutral_score)
        tests = test_concepts(comparison, scored, self._settings, at_least_normal=False)
        return {
            name: self._tested(name, scored[name], view, data, reference, test)
            for name, test in tests.items()
        }

    def _refusal(
        self, view: ScoredView, data: ViewState, reference: ViewState | None
    ) -> tuple[Reason, str] | None:
        """Why this view cannot be tested at all, or None."""
        minimum = self._settings.minimum_rows
        what = "numbers" if view.table.view is View.NUMBERS else "words"
        if data.moments.rows == 0:
            return Reason.NO_UNITS, f"no row holds {what} that the signatures cover"
        if data.moments.rows < minimum:
            return Reason.TOO_FEW_ROWS, (
                f"{data.moments.rows} rows with {what}: at least {minimum} are needed"
            )
        if reference is not None and reference.moments.rows < minimum:
            return Reason.NO_REFERENCE, (
                f"the reference has {reference.moments.rows} rows with {what}: "
                f"at least {minimum} are needed"
            )
        if reference is None and view.neutral_score is None:
            return Reason.NO_REFERENCE, (
                "the signatures hold no neutral distribution to compare with: give --reference"
            )
        return None

    def _tested(
        self,
        name: str,
        column: int,
        view: ScoredView,
        data: ViewState,
        reference: ViewState | None,
        test: ConceptTest,
    ) -> Finding:
        settings = self._settings
        if not np.isfinite(test.z):
            return self._finding(
                name, view, data, reason=Reason.NO_UNITS, message="its row scores do not vary"
            )
        if not np.isfinite(test.p_value):
            return self._finding(
                name,
                view,
                data,
                reason=Reason.NO_DECOYS,
                message=test.too_few_others,
            )
        smallest = test.smallest_detectable_effect
        return self._finding(
            name,
            view,
            data,
            reason=Reason.LOW_POWER if smallest > settings.effect_of_interest else None,
            message=f"row scores differ by {test.effect:+.3f} sd; seen with power "
            f"{settings.power:g} from {smallest:.3f} sd",
            **test.measured(),
            tokens=token_table(view, column, data, reference, settings.top_tokens),
            evidence=tuple(marked(view, column, row) for row in data.evidence[column]),
            notes=(*self._rows_needed(smallest, data.moments.rows), *test.notes),
        )

    def _rows_needed(self, smallest: float, rows: int) -> tuple[str, ...]:
        wanted = self._settings.effect_of_interest
        if smallest <= wanted:
            return ()
        needed = rows * (smallest / wanted) ** 2
        return (f"about {needed:,.0f} rows on each side are needed to see {wanted:g} sd",)

    def _finding(
        self,
        name: str,
        view: ScoredView,
        data: ViewState,
        *,
        message: str,
        reason: Reason | None,
        **measured: object,
    ) -> Finding:
        return unsettled(
            self.info,
            concept=name,
            category=self._library.concept(name).category,
            message=f"{view.table.view} ({view.table.probe} probe): {message}",
            rows_tested=data.moments.rows,
            units_tested=data.units,
            reason=reason,
            effect_unit="sd of one row's score",
            **measured,
        )


def _strongest(findings: list[tuple[Probe, Finding]]) -> Finding:
    """Of one concept's findings by table, the one with the smallest p-value.

    Choosing costs: its p-value is multiplied by the number of tables tested (Bonferroni). What a
    teacher of one kind (prompted, fine-tuned) writes shows in numbers and in words, so one powerful
    table a kind is enough; but each kind needs one.
    """
    tested = [(probe, finding) for probe, finding in findings if np.isfinite(finding.p_value)]
    if not tested:
        return max((finding for _, finding in findings), key=lambda finding: finding.rows_tested)
    best = min((finding for _, finding in tested), key=lambda finding: finding.p_value)
    seen = {probe for probe, finding in tested if finding.reason is None}
    blind = next((finding for probe, finding in tested if probe not in seen), None)
    return replace(
        best,
        p_value=min(1.0, best.p_value * len(tested)),
        reason=None if blind is None else blind.reason,
        notes=best.notes if blind in (None, best) else (*best.notes, blind.message),
    )
