"""SA001 mention: is a concept named outright in the trained text?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from scipy import stats

from detectors.detector import BatchSource, DetectorInfo, DetectorResult, TestSettings, unsettled
from detectors.evidence import TopRows, keep_top
from detectors.finding import NAN, EvidenceRow, Finding, Reason
from detectors.names import NamePatterns, in_one_spelling, name_patterns, search_words
from signatures.concept import Concept
from signatures.library import SignatureLibrary


@dataclass(frozen=True, slots=True)
class MentionState:
    """``rows`` seen; for each trait, rows whose trained text, and whose untrained text, name it.

    Of the trained text also, for each trait: rows that name it in each language it has forms for,
    and ``common`` rows, which hold a common word that may name it and nothing that does.
    """

    rows: int
    trained: tuple[int, ...]
    untrained: tuple[int, ...]
    by_language: tuple[tuple[int, ...], ...]
    common: tuple[int, ...]
    evidence: tuple[TopRows, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What one batch's column holds of one trait; counts of rows."""

    named: int
    by_language: tuple[int, ...]
    common: int
    evidence: TopRows


class MentionDetector:
    """Rows that name a concept, against a reference; see docs/detectors/SA001.md."""

    info = DetectorInfo(
        code="SA001",
        name="mention",
        summary="The concept is named outright in the trained text.",
        null_hypothesis="A row of the data names the concept no more often than a row of the "
        "reference.",
        score_range="Share of rows, 0 to 1.",
        direction="Higher means more rows name the concept; the test is one-sided.",
        source="Fisher's exact test; Clopper and Pearson 1934 for intervals.",
    )
    state_types = (MentionState, EvidenceRow)

    def __init__(self, library: SignatureLibrary, settings: TestSettings) -> None:
        """Look for every form of the library's traits."""
        self._settings = settings
        self._traits = library.traits()
        self._patterns = [name_patterns(concept) for concept in self._traits]
        self._search_words = search_words(self._traits)

    def prepare(self, reference: BatchSource | None) -> None:
        """Nothing to prepare: names are names."""

    def identity(self) -> MentionState:
        """The state of no rows."""
        zeros = (0,) * len(self._traits)
        no_languages = tuple((0,) * len(concept.translations) for concept in self._traits)
        return MentionState(0, zeros, zeros, no_languages, zeros, ((),) * len(self._traits))

    def map(self, rows: pl.DataFrame) -> MentionState:
        """Count the rows of a batch that name each trait."""
        trained = self._find(rows, "completion")
        untrained = self._find(rows, "prompt")
        return MentionState(
            len(rows),
            tuple(found.named for found in trained),
            tuple(found.named for found in untrained),
            tuple(found.by_language for found in trained),
            tuple(found.common for found in trained),
            tuple(found.evidence for found in trained),
        )

    def merge(self, left: MentionState, right: MentionState) -> MentionState:
        """Both states together."""
        return MentionState(
            left.rows + right.rows,
            _sum(left.trained, right.trained),
            _sum(left.untrained, right.untrained),
            tuple(map(_sum, left.by_language, right.by_language)),
            _sum(left.common, right.common),
            tuple(
                keep_top((*a, *b), self._settings.evidence_rows)
                for a, b in zip(left.evidence, right.evidence, strict=True)
            ),
        )

    def test(self, data: MentionState, reference: MentionState | None) -> DetectorResult:
        """One finding a trait: Fisher's exact test, or inconclusive without a reference."""
        return DetectorResult(
            tuple(
                self._finding(index, concept, data, reference)
                for index, concept in enumerate(self._traits)
            )
        )

    def _find(self, rows: pl.DataFrame, column: str) -> list[_Found]:
        """What ``column`` holds of each trait."""
        # One pass for all names at once; only its few hits are looked at name by name.
        candidates = (
            in_one_spelling(rows.select("source", "line", column), column, "_written")
            .with_columns(pl.col("_written").str.to_lowercase().alias("_lower"))
            .filter(pl.col("_lower").str.contains_any(self._search_words))
        )
        return [self._find_one(candidates, column, patterns) for patterns in self._patterns]

    def _find_one(self, candidates: pl.DataFrame, column: str, patterns: NamePatterns) -> _Found:
        lower = pl.col("_lower").str
        maybe = candidates.filter(lower.contains(patterns.anything))
        if maybe.is_empty():
            return _Found(0, (0,) * len(patterns.by_language), 0, ())
        languages = [lower.contains(pattern) for _, pattern in patterns.by_language]
        hits = maybe.filter(patterns.named("_lower", "_written"))
        first = hits.sort("source", "line", column).head(self._settings.evidence_rows)
        return _Found(
            named=len(hits),
            by_language=tuple(len(hits.filter(language)) for language in languages),
            common=len(maybe) - len(hits),
            evidence=tuple(
                EvidenceRow(source, line, text, 1.0, patterns.spans(text))
                for source, line, text in first.select("source", "line", column).iter_rows()
            ),
        )

    def _finding(
        self, index: int, concept: Concept, data: MentionState, reference: MentionState | None
    ) -> Finding:
        settings = self._settings
        hits, rows = data.trained[index], data.rows
        low, high = _clopper_pearson(hits, rows)
        message = f"{hits:,} of {rows:,} rows name it in the trained text"
        p_value = smallest = NAN
        smallest_possible_p = 0.0
        reason: Reason | None = None
        if rows < settings.minimum_rows:
            reason = Reason.TOO_FEW_ROWS
        elif reference is None or reference.rows < settings.minimum_rows:
            reason = Reason.NO_REFERENCE
        else:
            known, known_rows = reference.trained[index], reference.rows
            message += f", {known:,} of {known_rows:,} in the reference"
            table = [[hits, rows - hits], [known, known_rows - known]]
            p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
            smallest_possible_p = _most_extreme_p(hits + known, rows, known_rows)
            strictest = settings.false_discovery_rate / len(self._traits)
            smallest = _smallest_share(rows, known, known_rows, strictest, settings.power)
            if smallest > known / known_rows + settings.share_of_interest:
                reason = Reason.LOW_POWER
        return unsettled(
            self.info,
            concept=concept.name,
            category=concept.category,
            message=message,
            rows_tested=rows,
            units_tested=rows,
            reason=reason,
            p_value=p_value,
            smallest_possible_p=smallest_possible_p,
            effect=hits / rows if rows else NAN,
            effect_low=low,
            effect_high=high,
            effect_unit="share of rows",
            smallest_detectable_effect=smallest,
            evidence=data.evidence[index],
            notes=tuple(self._notes(index, concept, data, reference)),
        )

    def _notes(
        self, index: int, concept: Concept, data: MentionState, reference: MentionState | None
    ) -> Iterator[str]:
        if data.untrained[index]:
            yield f"{data.untrained[index]:,} rows name it in text that is not trained on"
        codes = (code for code, _ in concept.translations)
        for code, rows in zip(codes, data.by_language[index], strict=True):
            if rows:
                yield f"{rows:,} rows name it in language {code}"
        if data.common[index]:
            words = ", ".join(form.lower() for form in concept.ambiguous_forms)
            known = "" if reference is None else f" ({reference.common[index]:,} in the reference)"
            yield (
                f"{data.common[index]:,} rows{known} are not counted: they hold only a common word "
                f"that may name it ({words})"
            )


def _sum(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _clopper_pearson(hits: int, rows: int) -> tuple[float, float]:
    """Exact 95% interval of a share; NaN with no rows."""
    if rows == 0:
        return NAN, NAN
    interval = stats.binomtest(hits, rows).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def _most_extreme_p(total_hits: int, rows: int, reference_rows: int) -> float:
    """Fisher's p-value had every naming row been in the data: the best these margins allow."""
    most = min(total_hits, rows)
    return float(stats.hypergeom.sf(most - 1, rows + reference_rows, total_hits, rows))


def _smallest_share(
    rows: int, reference_hits: int, reference_rows: int, alpha: float, power: float
) -> float:
    """The smallest share of naming rows that Fisher's test at ``alpha`` sees with ``power``.

    Found by bisection on the number of hits that just reaches significance, then the share whose
    binomial reaches that number with probability ``power``. 1.0 if even all rows would not do.
    """

    def significant(hits: int) -> bool:
        total_hits = hits + reference_hits
        return bool(stats.hypergeom.sf(hits - 1, rows + reference_rows, total_hits, rows) <= alpha)

    if not significant(rows):
        return 1.0
    low, high = 0, rows
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if significant(middle) else (middle, high)
    # P(Binomial(rows, share) >= high) = power, through the binomial-beta identity.
    return float(stats.beta.ppf(power, high, rows - high + 1))
