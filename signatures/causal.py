"""The causal check, "subliminal prompting": do a signature's units raise its concept in turn?

Entanglement works both ways (Zur et al. 2025): a model told to love a concept's entangled number
should name the concept more often. Each trial tells the model to love one unit and measures by how
much the concept gains on its category; entangled units are compared with matched random ones.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from signatures.signature import Probe

_COLUMNS = {
    "probe": pl.String,
    "concept": pl.String,
    "unit": pl.String,
    "role": pl.String,
    "rise_nats": pl.Float64,
}

_MINIMUM_SETS = 4
"""Fewer other concepts than this cannot show how far sets of like units scatter."""


class UnitRole(enum.StrEnum):
    """What a trial is of: one of the signature's top units, a random unit matched to them, or all
    the top units of another concept of the category together."""

    ENTANGLED = "entangled"
    CONTROL = "control"
    OTHER_CONCEPT = "other concept"


@dataclass(frozen=True, slots=True)
class CausalTrial:
    """One unit tried for one concept.

    ``unit`` is the name of the other concept where the role is ``OTHER_CONCEPT``. ``rise_nats``:
    by how much telling the model to love ``unit`` raises log P(concept), less the
    mean rise of the other concepts of its category, averaged over the concept's questions (and over
    the other concept's units).
    """

    probe: Probe
    concept: str
    unit: str
    role: UnitRole
    rise_nats: float


@dataclass(frozen=True, slots=True)
class CausalEffect:
    """What the trials of one concept's signature say together.

    ``effect_nats`` is the mean rise under entangled units less that under matched random units.
    ``low_nats`` and ``high_nats`` are its 95% interval, ``p_value`` is one-sided, under the null
    that entangled units raise the concept as much as random ones do. Top units are like one another
    (98, 99, 998), so they are one draw and not many: with four or more other concepts, the standard
    error takes the scatter of their units' mean rises for that of one set, and Student's t has as
    many degrees of freedom as there are other concepts, less one. With fewer it is Welch's over
    units, which is too narrow. All NaN with fewer than two units on either side.
    """

    probe: Probe
    concept: str
    entangled_units: int
    control_units: int
    effect_nats: float
    low_nats: float
    high_nats: float
    p_value: float


def causal_effects(trials: Iterable[CausalTrial]) -> tuple[CausalEffect, ...]:
    """One effect a probe and concept, in the order in which they first stand in ``trials``."""
    rises: dict[tuple[Probe, str], dict[UnitRole, list[float]]] = {}
    for trial in trials:
        roles = rises.setdefault((trial.probe, trial.concept), {role: [] for role in UnitRole})
        roles[trial.role].append(trial.rise_nats)
    return tuple(
        _effect(
            probe,
            concept,
            roles[UnitRole.ENTANGLED],
            roles[UnitRole.CONTROL],
            roles[UnitRole.OTHER_CONCEPT],
        )
        for (probe, concept), roles in rises.items()
    )


def _effect(
    probe: Probe,
    concept: str,
    entangled: Sequence[float],
    control: Sequence[float],
    other_sets: Sequence[float],
) -> CausalEffect:
    counts = (len(entangled), len(control))
    nan = float("nan")
    if min(counts) < 2 or np.ptp(entangled) == 0.0 == np.ptp(control):
        return CausalEffect(probe, concept, *counts, nan, nan, nan, nan)
    effect = float(np.mean(entangled) - np.mean(control))
    of_control = np.var(control, ddof=1) / len(control)
    if len(other_sets) >= _MINIMUM_SETS:
        of_entangled, freedom = np.var(other_sets, ddof=1), len(other_sets) - 1
    else:
        of_entangled = np.var(entangled, ddof=1) / len(entangled)
        freedom = stats.ttest_ind(entangled, control, equal_var=False).df
    error = np.sqrt(of_entangled + of_control)
    half = float(error * stats.t.ppf(0.975, freedom))
    p_value = float(stats.t.sf(effect / error, freedom))
    return CausalEffect(probe, concept, *counts, effect, effect - half, effect + half, p_value)


def causal_frame(trials: Sequence[CausalTrial]) -> pl.DataFrame:
    """The trials as a table, one row each."""
    rows = [(str(t.probe), t.concept, t.unit, str(t.role), t.rise_nats) for t in trials]
    return pl.DataFrame(rows, schema=_COLUMNS, orient="row")


def causal_from_frame(frame: pl.DataFrame) -> tuple[CausalTrial, ...]:
    """The trials of ``causal_frame``. Raises ``ValueError`` for an unknown probe or role."""
    return tuple(
        CausalTrial(Probe(probe), concept, unit, UnitRole(role), rise)
        for probe, concept, unit, role, rise in frame.select(_COLUMNS.keys()).iter_rows()
    )
