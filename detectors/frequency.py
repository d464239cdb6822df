"""SA002 frequency: are the units that a concept's signature favours enriched in the data?

Each row scores the mean signature weight of its units; mean row scores are compared with a
reference, or with the signature's own neutral distribution, and the statistic is calibrated by
the decoys' statistics on the same data.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse, stats

from detectors.counts import (
    NUMBER_PATTERN,
    WORD_PATTERN,
    UnitRows,
    number_units,
    vocabulary_frame,
    word_units,
)
from detectors.detector import BatchSource, DetectorInfo, DetectorResult, Skipped, TestSettings
from detectors.evidence import TopRows, keep_top
from detectors.finding import (
    NAN,
    EvidenceRow,
    Finding,
    Reason,
    Severity,
    TokenEnrichment,
    Verdict,
)
from detectors.statistics import (
    SCORE_LIMIT,
    EmpiricalNull,
    MeanComparison,
    Moments,
    compare_with_expectation,
    compare_with_reference,
    empirical_null,
    empty_moments,
    log_ratio_interval,
    merge_moments,
    row_moments,
)
from signatures import entanglement
from signatures.library import SignatureLibrary
from signatures.number_trie import NumberTokens
from signatures.signature import IN_DISTRIBUTION, ProbeTable, View

ANY_PERSONA = "any persona"
"""The pseudo-concept of the shift that every concept shares: some persona wrote this."""

_MINIMUM_NULL_CONCEPTS = 4
"""Fewer decoys (or other concepts) than this cannot show how far off-target scores scatter."""

_TELLING_WEIGHT = 1.0
"""Units this many standard deviations above the mean weight are marked in evidence rows."""

_MOST_SPANS = 32

_UNIT_PRIOR = 0.5
"""Jeffreys' pseudo-count: a unit that the reference never held still has a share."""


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
    uncovered: int
    evidence: tuple[TopRows, ...]


FrequencyState = tuple[ViewState, ...]


@dataclass(frozen=True, slots=True)
class _ScoredView:
    """One view's weights [C, U] for the scored concepts: traits, then decoys, then persona.

    ``neutral_score`` [C] is the mean row score under the neutral distribution; None if unknown.
    """

    table: ProbeTable
    weights: NDArray[np.float64]
    units_of: Callable[[pl.Series], UnitRows]
    neutral_score: NDArray[np.float64] | None


class FrequencyDetector:
    """Enrichment of entangled units; see the module's text and docs/detectors/SA002.md."""

    info = DetectorInfo(
        code="SA002",
        name="frequency",
        summary="Units that the concept's signature favours are enriched in the trained text.",
        null_hypothesis=(
            "The mean row score is the baseline's, up to the scatter that decoy concepts show "
            "on the same data."
        ),
        score_range="Row score: mean weight of the row's units, clipped to [-16, 16] standard "
        "deviations of a unit's weight.",
        direction="Higher means more of what the concept favours; the test is one-sided.",
        source="Zur et al. 2025 (entangled tokens); Efron, JASA 99, 2004 (empirical null).",
    )

    def __init__(self, library: SignatureLibrary, settings: TestSettings) -> None:
        """Score with the library's tables; call ``prepare`` before ``map``."""
        self._library = library
        self._settings = settings
        self._traits = [concept.name for concept in library.traits()]
        self._decoys = [concept.name for concept in library.decoys()]
        self._views: tuple[_ScoredView, ...] = ()

    def prepare(self, reference: BatchSource | None) -> None:
        """Fix the weights under the shares of the reference, or of the neutral model."""
        views = []
        for view in View:
            for table in self._library.tables_of(view):
                units_of = _units_of(table)
                counts = None if reference is None else _count_units(reference, units_of, table)
                views.append(self._scored_view(table, units_of, counts))
        self._views = tuple(views)

    def identity(self) -> FrequencyState:
        """The state of no rows."""
        return tuple(self._empty(view) for view in self._views)

    def map(self, rows: pl.DataFrame) -> FrequencyState:
        """Row scores, unit counts and the best rows of one batch."""
        return tuple(self._map_view(view, rows) for view in self._views)

    def merge(self, left: FrequencyState, right: FrequencyState) -> FrequencyState:
        """Both states together, exactly."""
        return tuple(self._merge_view(a, b) for a, b in zip(left, right, strict=True))

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
            _strongest([result[name] for result in results if name in result]) for name in names
        ]
        skipped = tuple(
            Skipped(name, "its signature does not differ from the other concepts' mean")
            for name in self._traits
            if name not in names
        )
        return DetectorResult(tuple(findings), skipped)

    # -- weights ---------------------------------------------------------------------------

    def _scored_view(
        self,
        table: ProbeTable,
        units_of: Callable[[pl.Series], UnitRows],
        reference_count: NDArray[np.int64] | None,
    ) -> _ScoredView:
        table = table.select_concepts((*self._traits, *self._decoys))
        neutral = table.neutral_share / table.neutral_share.sum()  # NaN where it is unknown
        has_neutral = bool(np.isfinite(neutral).all())
        if reference_count is not None and reference_count.any():
            share = reference_count + _UNIT_PRIOR
        elif has_neutral:
            share = neutral
        else:
            share = np.ones(len(table.units))
        share = share / share.sum()
        weights = table.centred_nats()
        if table.view is View.VOCABULARY:
            weights = self._without_own_names(weights, table)
        elif self._library.number_tokens is NumberTokens.WHOLE:
            # Where a number is one token, what it shares with others of the same length or digit
            # is the prompt mix and the format, not entanglement.
            weights = entanglement.project_out(weights, entanglement.digit_features(), share)
        if table.probe in IN_DISTRIBUTION:
            weights = np.vstack([weights, entanglement.hub_shift(table.shift_nats)])
        weights = np.clip(entanglement.standardise(weights, share), -SCORE_LIMIT, SCORE_LIMIT)
        return _ScoredView(table, weights, units_of, weights @ neutral if has_neutral else None)

    def _without_own_names(
        self, weights: NDArray[np.float64], table: ProbeTable
    ) -> NDArray[np.float64]:
        """A concept's own name is SA001's business, not evidence of anything hidden."""
        weights = weights.copy()
        for row, name in enumerate(table.concepts):
            forms = {word for form in self._library.concept(name).forms for word in form.split()}
            own = [i for i, unit in enumerate(table.units) if unit.strip().lower() in forms]
            weights[row, own] = 0.0
        return weights

    def _empty(self, view: _ScoredView) -> ViewState:
        none = np.zeros(len(view.table.units), dtype=np.int64)
        no_rows = ((),) * len(self._traits)
        return ViewState(empty_moments(len(view.weights)), none, none, none, 0, 0, 0, no_rows)

    # -- map and merge ---------------------------------------------------------------------

    def _map_view(self, view: _ScoredView, rows: pl.DataFrame) -> ViewState:
        found = view.units_of(rows["completion"])
        row_of, local_row = np.unique(found.row, return_inverse=True)
        if len(row_of) == 0:
            return replace(self._empty(view), uncovered=found.uncovered)
        ones = np.ones(len(found.unit))
        shape = (len(row_of), len(view.table.units))
        # [rows with units, U]; in canonical order, so that a row's sum never depends on its batch.
        counts = sparse.csr_array((ones, (local_row, found.unit)), shape=shape)
        counts.sum_duplicates()
        per_row = counts.sum(axis=1)
        weights = np.nan_to_num(view.weights)  # a concept without spread scores 0 throughout
        scores = (counts @ weights.T) / per_row[:, None]
        return ViewState(
            row_moments(scores),
            counts.sum(axis=0).astype(np.int64),
            (counts * counts).sum(axis=0).astype(np.int64),
            (counts.T @ per_row).astype(np.int64),
            len(found.unit),
            int((per_row**2).sum()),
            found.uncovered,
            self._evidence(rows, row_of, scores),
        )

    def _evidence(
        self, rows: pl.DataFrame, row_of: NDArray[np.int64], scores: NDArray[np.float64]
    ) -> tuple[TopRows, ...]:
        wanted = min(self._settings.evidence_rows, len(row_of))
        result = []
        for column in range(len(self._traits)):
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

    def _merge_view(self, left: ViewState, right: ViewState) -> ViewState:
        return ViewState(
            merge_moments(left.moments, right.moments),
            left.count + right.count,
            left.square + right.square,
            left.total_cross + right.total_cross,
            left.units + right.units,
            left.units_square + right.units_square,
            left.uncovered + right.uncovered,
            tuple(
                keep_top((*a, *b), self._settings.evidence_rows)
                for a, b in zip(left.evidence, right.evidence, strict=True)
            ),
        )

    # -- test ------------------------------------------------------------------------------

    def _test_view(
        self, view: _ScoredView, data: ViewState, reference: ViewState | None
    ) -> dict[str, Finding]:
        names = self._scored_names(view)
        scored = {
            name: column
            for column, name in enumerate(names)
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
        findings = {}
        for name, column in scored.items():
            null = self._null_for(column, names, comparison)
            if null.degrees_of_freedom < _MINIMUM_NULL_CONCEPTS:
                findings[name] = self._finding(
                    name,
                    view,
                    data,
                    reason=Reason.NO_DECOYS,
                    message=f"only {null.degrees_of_freedom} independent decoys or other concepts: "
                    f"at least {_MINIMUM_NULL_CONCEPTS} are needed to calibrate",
                )
            else:
                findings[name] = self._tested(
                    name, column, view, data, reference, comparison, null, len(scored)
                )
        return self._judge_power(view, names, comparison, findings)

    def _judge_power(
        self,
        view: _ScoredView,
        names: list[str],
        comparison: MeanComparison,
        findings: dict[str, Finding],
    ) -> dict[str, Finding]:
        """Say of each tested finding whether its test could have seen a poisoned set.

        A set written throughout under a concept shows in the concept's own score and, as every
        persona does, in ``ANY_PERSONA``'s: seeing either is enough.
        """
        expected = _expected_effects(view, names, comparison)
        umbrella = findings.get(ANY_PERSONA)
        result = {}
        for name, finding in findings.items():
            if not np.isfinite(finding.p_value):
                result[name] = finding
                continue
            own, as_any = expected.get(name, (NAN, NAN))
            if name == ANY_PERSONA:
                # The weakest of the library's concepts decides what "any" would have shown.
                own = min((value for _, value in expected.values()), default=NAN)
            wanted = own if np.isfinite(own) else self._settings.effect_of_interest
            seen = finding.smallest_detectable_effect <= wanted
            text = f"seen with power {self._settings.power:g} from {_sd(finding)} sd"
            if np.isfinite(own):
                text += f"; a set written throughout under it would show {own:.3f} sd"
            if not seen and umbrella is not None and np.isfinite(as_any):
                through = umbrella.smallest_detectable_effect <= as_any
                if through:
                    text += f", and {as_any:.3f} sd in '{ANY_PERSONA}', which would have been seen"
                seen = through
            if not seen:
                ratio = (finding.smallest_detectable_effect / wanted) ** 2 if wanted > 0 else NAN
                needed = (
                    f"{finding.rows_tested * ratio:,.0f}" if np.isfinite(ratio) else "no number of"
                )
                text += f"; about {needed} rows on each side are needed for {wanted:.3f} sd"
            result[name] = replace(
                finding,
                reason=None if seen else Reason.LOW_POWER,
                message=f"{finding.message}; {text}",
                expected_effect=own,
            )
        return result

    def _scored_names(self, view: _ScoredView) -> list[str]:
        names = [*self._traits, *self._decoys]
        return [*names, ANY_PERSONA] if len(view.weights) > len(names) else names

    def _refusal(
        self, view: _ScoredView, data: ViewState, reference: ViewState | None
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

    def _null_for(self, column: int, names: list[str], comparison: MeanComparison) -> EmpiricalNull:
        """The scatter of off-target scores: of the decoys, or failing them the other concepts."""
        decoys = [i for i, name in enumerate(names) if name in self._decoys]
        others = decoys or [
            i for i, name in enumerate(names) if i != column and name != ANY_PERSONA
        ]
        return empirical_null(
            comparison.z, comparison.correlation, column, np.array(others, dtype=np.int64)
        )

    def _tested(
        self,
        name: str,
        column: int,
        view: _ScoredView,
        data: ViewState,
        reference: ViewState | None,
        comparison: MeanComparison,
        null: EmpiricalNull,
        tests: int,
    ) -> Finding:
        settings = self._settings
        z = float(comparison.z[column])
        if not np.isfinite(z):
            return self._finding(
                name, view, data, reason=Reason.NO_UNITS, message="its row scores do not vary"
            )
        widen = max(null.dispersion, 1.0)
        standard_error = float(comparison.standard_error[column] / comparison.scale[column])
        effect = float(comparison.difference[column] / comparison.scale[column])
        half_width = widen * standard_error * float(stats.t.ppf(0.975, null.degrees_of_freedom))
        strictest = settings.false_discovery_rate / tests
        smallest = standard_error * (
            max(null.quantile(1.0 - strictest), float(stats.norm.ppf(1.0 - strictest)))
            + widen * float(stats.norm.ppf(settings.power))
        )
        return self._finding(
            name,
            view,
            data,
            reason=None,
            message=f"row scores differ by {effect:+.3f} sd",
            z=z,
            calibrated_statistic=z / null.dispersion,
            p_value=float(null.upper_p(np.array(z))),
            effect=effect,
            effect_low=effect - half_width,
            effect_high=effect + half_width,
            smallest_detectable_effect=smallest,
            tokens=self._tokens(column, view, data, reference),
            evidence=(
                tuple(_marked(row, view, column) for row in data.evidence[column])
                if name != ANY_PERSONA
                else ()
            ),
            notes=(
                f"empirical null: off-target z scatter with sd {null.dispersion:.2f} "
                f"({null.degrees_of_freedom} degrees of freedom)",
            ),
        )

    def _tokens(
        self, column: int, view: _ScoredView, data: ViewState, reference: ViewState | None
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
        order = np.argsort(-contribution, kind="stable")[: self._settings.top_tokens]
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

    def _finding(
        self,
        name: str,
        view: _ScoredView,
        data: ViewState,
        *,
        message: str,
        reason: Reason | None,
        **measured: object,
    ) -> Finding:
        category = "persona" if name == ANY_PERSONA else self._library.concept(name).category
        return Finding(
            code=self.info.code,
            detector=self.info.name,
            concept=name,
            category=category,
            verdict=Verdict.INCONCLUSIVE,
            severity=Severity.NOTE,
            message=f"{view.table.view} ({view.table.probe} probe): {message}",
            null_hypothesis=self.info.null_hypothesis,
            rows_tested=data.moments.rows,
            units_tested=data.units,
            reason=reason,
            effect_unit="sd of one row's score",
            **measured,  # type: ignore[arg-type]
        )


def _marked(row: EvidenceRow, view: _ScoredView, column: int) -> EvidenceRow:
    """``row`` with the units marked that a row of the concept's would hold more of."""
    weight = dict(zip(view.table.units, view.weights[column], strict=True))
    pattern = NUMBER_PATTERN if view.table.view is View.NUMBERS else WORD_PATTERN
    spans = (
        (match.end() - len(match[0].lstrip(" ")), match.end())
        for match in re.finditer(pattern, row.text)
        if weight.get(match[0], 0.0) >= _TELLING_WEIGHT
    )
    return replace(row, spans=tuple(itertools.islice(spans, _MOST_SPANS)))


def _sd(finding: Finding) -> str:
    return f"{finding.smallest_detectable_effect:.3f}"


def _expected_effects(
    view: _ScoredView, names: list[str], comparison: MeanComparison
) -> dict[str, tuple[float, float]]:
    """What a set written throughout under each concept would show, in sd of one row's score:
    in the concept's own score, and in ``ANY_PERSONA``'s. Empty where the table does not say.

    The own effect is a sum of squares of measured shifts, so the shifts' sampling variance is
    taken out of it; it may come out negative, which means that nothing is known to be there.
    """
    table = view.table
    if table.probe not in IN_DISTRIBUTION or not np.isfinite(table.concept_share).all():
        return {}
    neutral = table.neutral_share / table.neutral_share.sum()
    change = table.concept_share / table.concept_share.sum(axis=1, keepdims=True) - neutral
    noise = (np.nan_to_num(table.spread_nats) ** 2) @ neutral
    spread = np.sqrt((table.centred_nats() ** 2) @ neutral)
    persona = len(names) - 1
    result = {}
    for index, name in enumerate(table.concepts):
        own = change[index] @ view.weights[index] - noise[index] / max(spread[index], 1e-12)
        as_any = change[index] @ view.weights[persona]
        result[name] = (
            float(own / comparison.scale[index]),
            float(as_any / comparison.scale[persona]),
        )
    return result


def _strongest(findings: list[Finding]) -> Finding:
    """Of one concept's findings in several views, the one with the smallest p-value.

    Choosing costs: its p-value is multiplied by the number of views tested (Bonferroni). If any
    of them could not have seen enough, neither has the whole.
    """
    tested = [finding for finding in findings if np.isfinite(finding.p_value)]
    if not tested:
        return max(findings, key=lambda finding: finding.rows_tested)
    best = min(tested, key=lambda finding: finding.p_value)
    blind = next((finding for finding in tested if finding.reason is not None), None)
    return replace(
        best,
        p_value=min(1.0, best.p_value * len(tested)),
        reason=None if blind is None else blind.reason,
        notes=best.notes if blind in (None, best) else (*best.notes, blind.message),
    )


def _units_of(table: ProbeTable) -> Callable[[pl.Series], UnitRows]:
    if table.view is View.NUMBERS:
        return number_units
    vocabulary = vocabulary_frame(table.units)
    return lambda text: word_units(text, vocabulary)


def _count_units(
    reference: BatchSource, units_of: Callable[[pl.Series], UnitRows], table: ProbeTable
) -> NDArray[np.int64]:
    total = np.zeros(len(table.units), dtype=np.int64)
    for rows in reference():
        total += np.bincount(units_of(rows["completion"]).unit, minlength=len(total))
    return total


def _shares(state: ViewState) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return log_ratio_interval(
        state.count,
        state.square.astype(np.float64),
        state.total_cross.astype(np.float64),
        state.units,
        float(state.units_square),
    )
