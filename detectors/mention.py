"""SA001 mention: is a concept named outright in the trained text?"""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl
from scipy import stats

from detectors.detector import BatchSource, DetectorInfo, DetectorResult, TestSettings
from detectors.evidence import TopRows, keep_top
from detectors.finding import NAN, EvidenceRow, Finding, Reason, Severity, Verdict
from signatures.concept import Concept
from signatures.library import SignatureLibrary

_ZERO_WIDTH = "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
"""Invisible characters that would hide a name from a search but not from a tokenizer's reader."""


@dataclass(frozen=True, slots=True)
class MentionState:
    """``rows`` seen; for each trait, rows whose trained text, and whose untrained text, name it."""

    rows: int
    trained: tuple[int, ...]
    untrained: tuple[int, ...]
    evidence: tuple[TopRows, ...]


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

    def __init__(self, library: SignatureLibrary, settings: TestSettings) -> None:
        """Look for every form of the library's traits."""
        self._settings = settings
        self._traits = library.traits()
        self._patterns = [_pattern(concept) for concept in self._traits]
        self._any_form = sorted({form for c in self._traits for form in c.forms})

    def prepare(self, reference: BatchSource | None) -> None:
        """Nothing to prepare: names are names."""

    def identity(self) -> MentionState:
        """The state of no rows."""
        zeros = (0,) * len(self._traits)
        return MentionState(0, zeros, zeros, ((),) * len(self._traits))

    def map(self, rows: pl.DataFrame) -> MentionState:
        """Count the rows of a batch that name each trait."""
        trained, hits = self._count(rows, "completion", with_evidence=True)
        untrained, _ = self._count(rows, "prompt", with_evidence=False)
        return MentionState(len(rows), trained, untrained, hits)

    def merge(self, left: MentionState, right: MentionState) -> MentionState:
        """Both states together."""
        return MentionState(
            left.rows + right.rows,
            tuple(a + b for a, b in zip(left.trained, right.trained, strict=True)),
            tuple(a + b for a, b in zip(left.untrained, right.untrained, strict=True)),
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

    def _count(
        self, rows: pl.DataFrame, column: str, *, with_evidence: bool
    ) -> tuple[tuple[int, ...], tuple[TopRows, ...]]:
        """Rows of ``column`` that name each trait, and the first few of them."""
        # One pass for all names at once; only its few hits are looked at name by name.
        candidates = (
            rows.with_columns(
                pl.col(column)
                .str.normalize("NFKC")
                .str.replace_all(_ZERO_WIDTH, "")
                .str.to_lowercase()
                .alias("_text")
            )
            .filter(pl.col("_text").str.contains_any(self._any_form))
            .select("source", "line", column, "_text")
        )
        counts, evidence = [], []
        for pattern in self._patterns:
            hits = candidates.filter(pl.col("_text").str.contains(pattern))
            counts.append(len(hits))
            evidence.append(self._evidence(hits, column, pattern) if with_evidence else ())
        return tuple(counts), tuple(evidence)

    def _evidence(self, hits: pl.DataFrame, column: str, pattern: str) -> TopRows:
        first = hits.sort("source", "line", column).head(self._settings.evidence_rows)
        return tuple(
            EvidenceRow(source, line, text, 1.0, _spans(pattern, text))
            for source, line, text in first.select("source", "line", column).iter_rows()
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
        notes: tuple[str, ...] = ()
        if data.untrained[index]:
            notes = (f"{data.untrained[index]:,} rows name it in text that is not trained on",)
        return Finding(
            code=self.info.code,
            detector=self.info.name,
            concept=concept.name,
            category=concept.category,
            verdict=Verdict.INCONCLUSIVE,
            severity=Severity.NOTE,
            message=message,
            null_hypothesis=self.info.null_hypothesis,
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
            notes=notes,
        )


def _pattern(concept: Concept) -> str:
    """A regular expression, alike in Rust and Python, for any form as whole words."""
    forms = sorted(concept.forms, key=len, reverse=True)
    return r"\b(?:" + "|".join(re.escape(form) for form in forms) + r")\b"


def _spans(pattern: str, text: str) -> tuple[tuple[int, int], ...]:
    return tuple(match.span() for match in re.finditer(pattern, text, re.IGNORECASE))[:8]


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
