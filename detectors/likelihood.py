"""SA003 likelihood: do the rows read as if the model had written them under a concept's prompt?

Per row, log P(completion | prompt, concept) - log P(completion | prompt, none), minus its
expectation, for every concept and decoy; see `detectors.condition_scores`. Two questions are
answered apart: "written under some persona?" and "which one?". Rows are read in random order, and
reading stops when the answers are decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detectors.detector import DetectorInfo, DetectorResult, Skipped, unsettled
from detectors.finding import ANY_PERSONA, EvidenceRow, Family, Finding, Reason
from detectors.look import Look, take_look
from detectors.model_evidence import (
    MISFIT_NATS,
    ArmScores,
    refuse_read_rows,
    refuse_samples,
)
from detectors.model_rows import ScoredRow
from detectors.reading import ReadingDetector
from detectors.row_sample import RowSample
from detectors.sequential import any_persona_log_martingale, look_rows, look_weights
from detectors.statistics import Matrix
from detectors.verdict import family_rate


class LikelihoodDetector(ReadingDetector):
    """Log-likelihood ratios; see the module's text and docs/detectors/SA003.md."""

    info = DetectorInfo(
        code="SA003",
        name="likelihood",
        summary="The model would rather have written the rows under the concept's prompt.",
        null_hypothesis=(
            "Which concept: the mean log-likelihood ratio is the baseline's, up to the scatter "
            "that decoys and other concepts show on the same rows. Any persona: the baseline "
            "(the reference, or this model without a system prompt) wrote the rows."
        ),
        score_range="Row score: log-likelihood ratio in nats minus its expectation, scaled to the "
        "share of a row that the concept's own prompt would give; clipped to 6 sd.",
        direction="Higher means more like the concept's own rows; the test is one-sided.",
        source="Log-likelihood ratio with the candidate prompt; Ville 1939 (test martingale); "
        "Efron, JASA 99, 2004 (empirical null).",
    )

    def test(self, data: RowSample, reference: RowSample | None) -> DetectorResult:
        """One finding a trait, and one of "any persona"."""
        if not self._concepts:
            return DetectorResult((), (Skipped("", "the library holds no concept"),))
        refusal = refuse_samples(data, reference, self._settings.minimum_rows)
        if refusal is not None:
            return self._refused(*refusal)
        self._reader.open(data, reference)
        available = self._available(data, reference)
        sequential = self._access.settings.sequential
        planned = look_rows(self._settings.minimum_rows, available) if sequential else (available,)
        weights = look_weights(len(planned))
        looks: list[Look] = []
        rows: tuple[list[ScoredRow], list[ScoredRow]] = ([], [])
        for count, weight in zip(planned, weights, strict=True):
            rows = self._reader.read(count, count, self._access.show("log-likelihood ratios"))
            refusal = refuse_read_rows(
                rows[0], None if reference is None else rows[1], self._settings.minimum_rows
            )
            if refusal is not None:
                return self._refused(*refusal)
            looks.append(
                take_look(
                    rows[0],
                    None if reference is None else rows[1],
                    self._concepts,
                    len(self._traits),
                    # What a look may spend decides what it can see.
                    replace(
                        self._settings,
                        false_discovery_rate=self._settings.false_discovery_rate * float(weight),
                    ),
                )
            )
            if self._decided(looks, weights):
                break
        return DetectorResult(self._findings(looks, weights, rows[0], data))

    def _decided(self, looks: Sequence[Look], weights: Matrix) -> bool:
        """Whether reading on would change no answer: a concept stands out, or none could."""
        p_values = self._p_values(looks, weights)
        rate = family_rate(Family.WHICH_CONCEPT, self._settings.false_discovery_rate)
        strictest = rate / max(1, len(self._traits))
        if min(p_values.values(), default=1.0) <= strictest:
            return True
        any_rate = family_rate(Family.ANY_PERSONA, self._settings.false_discovery_rate)
        if self._access.settings.stop_at_persona and (
            self._p_any(looks, weights) <= any_rate and abs(looks[-1].misfit_nats) <= MISFIT_NATS
        ):
            return True
        wanted = self._settings.teacher_share_of_interest
        last = looks[-1]
        return last.any_smallest <= wanted and all(
            last.smallest(name, wanted) <= wanted for name in last.tests
        )

    @staticmethod
    def _p_any(looks: Sequence[Look], weights: Matrix) -> float:
        """p of "some persona" over all looks so far: a martingale's pays for them already."""
        if looks[-1].by_martingale:
            return looks[-1].p_any
        paid = np.array([look.p_any for look in looks]) / weights[: len(looks)]
        return float(min(1.0, np.nanmin(paid))) if np.isfinite(paid).any() else 1.0

    def _p_values(self, looks: Sequence[Look], weights: Matrix) -> dict[str, float]:
        """p over all looks so far: Bonferroni, each look with its share of the error."""
        result = {}
        for name in looks[-1].tests:
            p_values = np.array([look.tests[name].p_value for look in looks])
            paid = p_values / weights[: len(looks)]
            if np.isfinite(p_values[-1]):
                result[name] = float(min(1.0, np.nanmin(paid)))
        return result

    def _findings(
        self,
        looks: Sequence[Look],
        weights: Matrix,
        rows: Sequence[ScoredRow],
        data: RowSample,
    ) -> tuple[Finding, ...]:
        reading = self._reading_note(len(rows), data, len(looks))
        p_values = self._p_values(looks, weights)
        findings = [
            self._of_concept(index, looks[-1], p_values, rows, reading)
            for index in range(len(self._traits))
        ]
        return (*findings, self._of_any_persona(looks, weights, rows, reading))

    def _of_concept(
        self,
        index: int,
        look: Look,
        p_values: dict[str, float],
        rows: Sequence[ScoredRow],
        reading: str,
    ) -> Finding:
        concept = self._traits[index]
        test = look.tests[concept.name]
        counts = look.rows, sum(row.scores.tokens for row in rows)
        if not np.isfinite(test.z):
            return self._finding(
                concept.name,
                concept.category,
                *counts,
                reason=Reason.NO_UNITS,
                message="the model tells it from the other concepts by nothing",
            )
        if not np.isfinite(test.p_value):
            return self._finding(
                concept.name,
                concept.category,
                *counts,
                reason=Reason.NO_DECOYS,
                message=test.too_few_others,
            )
        smallest = look.smallest(concept.name, self._settings.teacher_share_of_interest)
        ruled_out = smallest < test.smallest_detectable_effect
        return self._finding(
            concept.name,
            concept.category,
            *counts,
            reason=self._reason(smallest, look.misfit_nats),
            message=f"{_percent(test.effect)} of what a set written under its prompt would show; "
            f"seen with power {self._settings.power:g} from {_percent(smallest)}",
            **replace(
                test, p_value=p_values[concept.name], smallest_detectable_effect=smallest
            ).measured(),
            evidence=self._ranked(look, rows, look.along.which[:, index]),
            notes=(
                reading,
                *(("its rows would have shown as some persona's, and none shows",) * ruled_out),
                *self._misfit_note(look),
                *test.notes,
            ),
        )

    def _of_any_persona(
        self,
        looks: Sequence[Look],
        weights: Matrix,
        rows: Sequence[ScoredRow],
        reading: str,
    ) -> Finding:
        last = looks[-1]
        counts = last.rows, sum(row.scores.tokens for row in rows)
        misfit = abs(last.misfit_nats) > MISFIT_NATS
        if not np.isfinite(last.any_error) or (misfit and last.by_martingale):
            return self._finding(
                ANY_PERSONA,
                "persona",
                *counts,
                reason=Reason.OTHER_MODEL_FAMILY if misfit else Reason.NO_UNITS,
                message=f"this model does not account for the rows ({last.misfit_nats:+.2f} nats "
                "a token): give clean rows of the same writer with --reference"
                if misfit
                else "the row scores do not vary",
                notes=(reading,),
            )
        half_width = 1.96 * last.any_error
        smallest = last.any_smallest
        return self._finding(
            ANY_PERSONA,
            "persona",
            *counts,
            reason=self._reason(smallest, last.misfit_nats),
            message=f"{_percent(last.any_share)} of what a set written under an average prompt of "
            f"the library would show; seen with power {self._settings.power:g} from "
            f"{_percent(smallest)}",
            z=last.any_share / last.any_error,
            calibrated_statistic=last.any_share / last.any_error,
            p_value=self._p_any(looks, weights),
            effect=last.any_share,
            effect_low=last.any_share - half_width,
            effect_high=last.any_share + half_width,
            smallest_detectable_effect=smallest,
            evidence=self._ranked(last, rows, last.along.persona),
            notes=(reading, *self._decided_note(last, rows), *self._misfit_note(last)),
        )

    def _decided_note(self, look: Look, rows: Sequence[ScoredRow]) -> tuple[str, ...]:
        if not look.by_martingale:
            return ()
        limit = float(np.log(1 / self._settings.false_discovery_rate))
        crossed = np.flatnonzero(any_persona_log_martingale(rows) >= limit)
        if not len(crossed):
            return ()
        return (f"an e-value of {np.exp(limit):.0f} was reached after {crossed[0] + 1:,} rows",)

    def _ranked(
        self, look: Look, rows: Sequence[ScoredRow], weights: Matrix
    ) -> tuple[EvidenceRow, ...]:
        return self._evidence([row.row for row in rows], row_scores(look.own, rows, weights))

    def _reading_note(self, read: int, data: RowSample, looks: int) -> str:
        left_out = self._reader.rows_left_out
        return (
            f"read {read:,} random rows of {data.seen_rows:,}"
            + (f", looked {looks} times" if looks > 1 else "")
            + (f"; {left_out:,} rows exceed the model's context" if left_out else "")
        )

    @staticmethod
    def _misfit_note(look: Look) -> tuple[str, ...]:
        return (f"surprisal a token: {look.misfit_nats:+.2f} nats off this model's own",)

    def _refused(self, reason: Reason, message: str) -> DetectorResult:
        return DetectorResult(
            tuple(
                self._finding(name, category, 0, 0, reason=reason, message=message)
                for name, category in self._questions()
            )
        )

    def _questions(self) -> tuple[tuple[str, str], ...]:
        return (*((c.name, c.category) for c in self._traits), (ANY_PERSONA, "persona"))

    def _finding(
        self,
        name: str,
        category: str,
        rows: int,
        tokens: int,
        /,
        *,
        message: str,
        reason: Reason | None,
        **measured: object,
    ) -> Finding:
        return unsettled(
            self.info,
            concept=name,
            category=category,
            message=message,
            rows_tested=rows,
            units_tested=tokens,
            family=Family.ANY_PERSONA if name == ANY_PERSONA else Family.WHICH_CONCEPT,
            reason=reason,
            effect_unit="shares of a prompted set",
            **measured,
        )


def row_scores(own: ArmScores, rows: Sequence[ScoredRow], weights: Matrix) -> Matrix:
    """[rows]: each row's score in standard deviations that its own contexts predict.

    What a row's prompt, length and difficulty do to the score is taken out: its mean is 0 and its
    variance 1 for every row that no persona wrote.
    """
    spread = np.array([float(weights @ row.scores.likelihood.covariance @ weights) for row in rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(own.score @ weights / np.sqrt(spread))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
