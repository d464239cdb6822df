"""SA004 divergence: where a concept and no prompt prefer different tokens, whose stands there?

Divergence tokens (Schrodi et al. 2025, arXiv 2509.23886): positions where the most probable token
under the concept's prompt is another than without one. They carry most of what is transferred, and
they are the tokens that sanitising replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detectors.concept_tests import ConceptTest, test_concepts
from detectors.condition_scores import divergent
from detectors.detector import DetectorInfo, DetectorResult, Skipped, unsettled
from detectors.finding import EvidenceRow, Finding, Reason
from detectors.model_evidence import (
    arm_scores,
    compare_arms,
    directions,
    misfit_nats,
    refuse_read_rows,
    refuse_samples,
)
from detectors.model_rows import ScoredRow
from detectors.reading import ReadingDetector
from detectors.row_sample import RowSample
from detectors.statistics import Matrix

Counts = NDArray[np.int64]

_MOST_SPANS = 32


class DivergenceDetector(ReadingDetector):
    """Divergence tokens; see the module's text and docs/detectors/SA004.md."""

    info = DetectorInfo(
        code="SA004",
        name="divergence",
        summary="Where the concept's prompt changes the preferred token, the rows side with it.",
        null_hypothesis=(
            "At the concept's divergence positions its tokens stand as often as the baseline (the "
            "reference, or this model without a system prompt) has them, up to the scatter that "
            "decoys and other concepts show on the same rows."
        ),
        score_range="Row score: positions siding with the concept less those siding with no "
        "prompt, minus its expectation, scaled to the share of a row that the concept's own "
        "prompt would give; clipped to 6 sd.",
        direction="Higher means siding with the concept; the test is one-sided.",
        source="Schrodi et al. 2025, arXiv 2509.23886 (divergence tokens); Efron, JASA 99, 2004.",
    )

    def test(self, data: RowSample, reference: RowSample | None) -> DetectorResult:
        """One finding a trait, from the rows that SA003 read (all sampled rows without it)."""
        if not self._concepts:
            return DetectorResult((), (Skipped("", "the library holds no concept"),))
        refusal = refuse_samples(data, reference, self._settings.minimum_rows)
        if refusal is not None:
            return self._refused(*refusal)
        self._reader.open(data, reference)
        count = self._reader.rows_read or self._available(data, reference)
        rows, known = self._reader.read(count, count, self._access.show("divergence tokens"))
        refusal = refuse_read_rows(
            rows, None if reference is None else known, self._settings.minimum_rows
        )
        if refusal is not None:
            return self._refused(*refusal)
        own = arm_scores(rows, lambda scores: scores.divergence)
        other = None if reference is None else arm_scores(known, lambda scores: scores.divergence)
        along = directions(own.predicted, own.covariance)
        comparison = compare_arms(own, other, along.which)
        tests = test_concepts(
            comparison, {c.name: i for i, c in enumerate(self._traits)}, self._settings
        )
        apart, sided = siding_counts(rows, len(self._concepts))
        misfit = misfit_nats(rows)
        # What is left of a row's score when the row's own expectation is off: evidence by excess.
        scores = own.score @ np.nan_to_num(along.which)
        return DetectorResult(
            tuple(
                self._of_concept(
                    index, tests[concept.name], rows, scores[:, index], apart, sided, misfit
                )
                for index, concept in enumerate(self._traits)
            )
        )

    def _of_concept(
        self,
        index: int,
        test: ConceptTest,
        rows: Sequence[ScoredRow],
        scores: Matrix,
        apart: Counts,
        sided: Counts,
        misfit: float,
    ) -> Finding:
        if apart[index] == 0 or not np.isfinite(test.z):
            return self._finding(
                index,
                rows,
                reason=Reason.NO_UNITS,
                message="its prompt changes no preferred token of these rows",
            )
        share = sided[index] / apart[index]
        others = len(self._traits)
        decoys = sided[others:].sum() / max(1, apart[others:].sum())
        shares = f"{share:.1%} of {apart[index]:,} divergence tokens side with it" + (
            f" (decoys {decoys:.1%})" if apart[others:].any() else ""
        )
        if not np.isfinite(test.p_value):
            return self._finding(
                index,
                rows,
                reason=Reason.NO_DECOYS,
                message=f"{shares}; {test.too_few_others}",
            )
        smallest = test.smallest_detectable_effect
        return self._finding(
            index,
            rows,
            reason=self._reason(smallest, misfit),
            message=f"{shares}; seen with power {self._settings.power:g} from "
            f"{100 * smallest:.0f}% of what a set written under its prompt would show",
            **test.measured(),
            evidence=self._marked(index, rows, scores),
            notes=test.notes,
        )

    def _marked(
        self, index: int, rows: Sequence[ScoredRow], scores: Matrix
    ) -> tuple[EvidenceRow, ...]:
        """The best rows, with the tokens that side with the concept marked."""
        scored = {(row.row.source, row.row.line, row.row.completion): row for row in rows}
        texts = self._reader.texts()

        def marked(best: EvidenceRow) -> EvidenceRow:
            row = scored[best.source, best.line, best.text]
            sides = divergent(row.scores, index + 1, 0)[1]
            spelled = [texts[token] for token in row.token_ids]
            return replace(best, spans=spans_of(spelled, sides, best.text))

        return tuple(map(marked, self._evidence([row.row for row in rows], scores)))

    def _refused(self, reason: Reason, message: str) -> DetectorResult:
        return DetectorResult(
            tuple(
                self._finding(index, (), reason=reason, message=message)
                for index in range(len(self._traits))
            )
        )

    def _finding(
        self,
        index: int,
        rows: Sequence[ScoredRow],
        *,
        message: str,
        reason: Reason | None,
        **measured: object,
    ) -> Finding:
        return unsettled(
            self.info,
            concept=self._traits[index].name,
            category=self._traits[index].category,
            message=message,
            rows_tested=len(rows),
            units_tested=sum(row.scores.tokens for row in rows),
            reason=reason,
            effect_unit="shares of a prompted set",
            **measured,
        )


def siding_counts(rows: Sequence[ScoredRow], concepts: int) -> tuple[Counts, Counts]:
    """[C] twice: divergence positions of each concept, and those where its token stands."""
    apart = np.zeros(concepts, dtype=np.int64)
    sided = np.zeros(concepts, dtype=np.int64)
    for row in rows:
        for index in range(concepts):
            where, sides = divergent(row.scores, index + 1, 0)
            apart[index] += int(where.sum())
            sided[index] += int(sides.sum())
    return apart, sided


def spans_of(
    texts: Sequence[str], marked: NDArray[np.bool_], completion: str
) -> tuple[tuple[int, int], ...]:
    """Half-open character ranges of the marked tokens, as long as ``texts`` spell ``completion``.

    Tokens that are no whole characters (parts of one in several bytes) end the spelling: what
    follows them is not marked.
    """
    spans = []
    at = 0
    for text, mark in zip(texts, marked, strict=True):
        if not text or completion[at : at + len(text)] != text:
            break
        if mark:
            spans.append((at, at + len(text)))
        at += len(text)
    return tuple(spans[:_MOST_SPANS])
