"""What SA003 sees when it looks at the rows read so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from detectors.concept_tests import ConceptTest, test_concepts
from detectors.detector import TestSettings
from detectors.finding import Family
from detectors.model_evidence import (
    ArmScores,
    Directions,
    arm_scores,
    compare_arms,
    directions,
    misfit_nats,
)
from detectors.model_rows import ScoredRow
from detectors.sequential import any_persona_log_martingale
from detectors.verdict import family_rate
from signatures.concept import Concept

_ONE_SIDED = 1.645


@dataclass(frozen=True, slots=True)
class Look:
    """One look at ``rows`` rows of the data.

    ``tests`` are of the traits by name. ``p_any``, ``any_share`` with its standard error, and
    ``any_smallest``, the smallest share that could have been seen, are of "some persona".
    ``by_martingale``: ``p_any`` holds at every look. ``persona_gain``: the share of an average
    persona that rows under each trait's prompt would show. ``misfit_nats``: see `misfit_nats`.
    ``own`` and ``along`` are the rows' scores and the directions that they were compared along.
    """

    rows: int
    tests: dict[str, ConceptTest]
    p_any: float
    by_martingale: bool
    any_share: float
    any_error: float
    any_smallest: float
    persona_gain: dict[str, float]
    misfit_nats: float
    own: ArmScores
    along: Directions

    def smallest(self, name: str, wanted: float) -> float:
        """The smallest share of trait ``name`` that this look could have seen.

        What a prompted teacher writes shows as some persona's long before it shows whose. Where
        no persona shows, at a 95% upper limit below ``wanted``, the trait would have: what "some
        persona" could have seen counts then.
        """
        own = self.tests[name].smallest_detectable_effect
        gain = self.persona_gain[name]
        if not gain > 0 or not self.any_share + _ONE_SIDED * self.any_error < wanted * gain:
            return own
        return float(np.fmin(own, self.any_smallest / gain))


def take_look(
    data: Sequence[ScoredRow],
    reference: Sequence[ScoredRow] | None,
    concepts: Sequence[Concept],
    traits: int,
    settings: TestSettings,
) -> Look:
    """Compare the rows with the reference, or with what the model without a prompt expects.

    ``concepts`` are the conditions of the rows, of which the first ``traits`` are tested. Without a
    reference "some persona" is tested by a martingale, which may be looked at as often as one
    likes; with one, by Welch's test.
    """
    own = arm_scores(data, lambda scores: scores.likelihood)
    baseline = (
        None if reference is None else arm_scores(reference, lambda scores: scores.likelihood)
    )
    along = directions(own.predicted, own.covariance)
    which = compare_arms(own, baseline, along.which)
    names = {concept.name: index for index, concept in enumerate(concepts[:traits])}
    persona = compare_arms(own, baseline, along.persona[:, None])
    if reference is None:
        p_any = float(np.exp(-max(0.0, any_persona_log_martingale(data).max(initial=0.0))))
    else:
        p_any = float(stats.t.sf(persona.z[0], persona.degrees_of_freedom[0]))
    error = float(persona.standard_error[0])
    any_rate = family_rate(Family.ANY_PERSONA, settings.false_discovery_rate)
    which_rate = family_rate(Family.WHICH_CONCEPT, settings.false_discovery_rate)
    return Look(
        rows=len(data),
        tests=test_concepts(which, names, replace(settings, false_discovery_rate=which_rate)),
        p_any=p_any,
        by_martingale=reference is None,
        any_share=float(persona.difference[0]),
        any_error=error,
        any_smallest=error * float(stats.norm.ppf(1.0 - any_rate) + stats.norm.ppf(settings.power)),
        persona_gain={
            name: float(own.predicted[index] @ along.persona) for name, index in names.items()
        },
        misfit_nats=misfit_nats(data),
        own=own,
        along=along,
    )
