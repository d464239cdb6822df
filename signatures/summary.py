"""What a signature library says of itself: hubs, strength and noise, units, likeness, causality."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signatures.causal import CausalEffect, causal_effects
from signatures.concept import ConceptKind
from signatures.entanglement import hub_shift, top_units
from signatures.language_model import ModelIdentity
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, ProbeTable, View
from signatures.strength import Strength, correlations, own_part, strength, unit_weights

Matrix = NDArray[np.float64]

FALSE_DISCOVERY_RATE = 0.05
"""Of the own parts of one table that are said to stand above their noise."""

_HUB_RANK = 10
_SHOWN_UNITS = 10
_SHOWN_BOTTOM = 5
_SHOWN_NEIGHBOURS = 5


class StrengthVerdict(enum.StrEnum):
    """Is there more to a concept's own part than sampling noise?"""

    ABOVE = "own part stands above its noise"
    NOT_SHOWN = "not shown to stand above its noise"
    UNKNOWN = "noise unknown"


class CausalVerdict(enum.StrEnum):
    """What prompting with a signature's units did to its concept; intervals are of 95%."""

    RAISES = "raises the concept"
    LOWERS = "lowers the concept"
    NO_EFFECT = "no effect seen"
    TOO_FEW = "too few units tried"


@dataclass(frozen=True, slots=True)
class Hub:
    """A unit among the 10 largest shifts of at least half of a table's concepts.

    ``concepts`` says of how many, ``shift_nats`` how far all concepts shift it on average.
    """

    unit: str
    concepts: int
    shift_nats: float


@dataclass(frozen=True, slots=True)
class UnitShift:
    """One unit under one concept. ``spread_nats`` is the shift's standard error."""

    unit: str
    shift_nats: float
    centred_nats: float
    spread_nats: float
    neutral_share: float
    is_hub: bool


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another concept, and the correlation of both concepts' own parts."""

    concept: str
    correlation: float


@dataclass(frozen=True, slots=True)
class TableSummary:
    """One table as a whole.

    ``shared_rms_nats`` is the root mean square of the shift that all concepts share (less its
    mean), ``own_rms_nats`` that of what each has beside it, ``noise_rms_nats`` that of the
    standard errors: over concepts, and over units weighted by neutral share where
    ``share_weighted``. ``shared_fraction``: shared variance over shared and own variance.
    ``observations``: contexts or questions averaged over, None where the record does not say.
    ``effective_units``: see ``strength``. Undefined numbers are NaN.
    """

    view: View
    probe: Probe
    description: str
    settings: Mapping[str, Any]
    concepts: int
    units: int
    observations: int | None
    positions: int | None
    share_weighted: bool
    shared_rms_nats: float
    own_rms_nats: float
    noise_rms_nats: float
    shared_fraction: float
    effective_units: float
    above_noise: int
    hubs: tuple[Hub, ...]


@dataclass(frozen=True, slots=True)
class ConceptTable:
    """One concept in one table; see ``Strength`` for the numbers.

    ``top`` are the units of the largest centred shifts, ``bottom`` those of the smallest (smallest
    first), ``nearest`` the other concepts with the highest correlation.
    """

    view: View
    probe: Probe
    own_rms_nats: float
    noise_rms_nats: float
    signal_to_noise: float
    p_value: float
    q_value: float
    verdict: StrengthVerdict
    top: tuple[UnitShift, ...]
    bottom: tuple[UnitShift, ...]
    nearest: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True)
class ConceptCausal:
    """The causal check of one concept's signature, and what it comes to."""

    effect: CausalEffect
    verdict: CausalVerdict


@dataclass(frozen=True, slots=True)
class ConceptSummary:
    """One concept in every table that holds it. ``causal`` is empty where it was not tried."""

    name: str
    category: str
    kind: ConceptKind
    system_prompt: str
    tables: tuple[ConceptTable, ...]
    causal: tuple[ConceptCausal, ...]


@dataclass(frozen=True, slots=True)
class LibrarySummary:
    """A whole library. ``tables`` and ``concepts`` stand in the library's own order."""

    name: str
    tool_version: str
    content_sha256: str
    model: ModelIdentity
    number_tokens: NumberTokens
    tables: tuple[TableSummary, ...]
    concepts: tuple[ConceptSummary, ...]

    def concept(self, name: str) -> ConceptSummary:
        """The concept called ``name``. Raises ``KeyError``."""
        for concept in self.concepts:
            if concept.name == name:
                return concept
        raise KeyError(name)


def summarise(library: SignatureLibrary) -> LibrarySummary:
    """All that ``library`` says of itself."""
    tables = []
    parts: dict[str, list[ConceptTable]] = {concept.name: [] for concept in library.concepts}
    for record, table in zip(library.probes, library.tables, strict=True):
        summary, by_concept = _table(record, table, library.number_tokens)
        tables.append(summary)
        for name, part in zip(table.concepts, by_concept, strict=True):
            if name in parts:
                parts[name].append(part)
    effects: dict[str, list[ConceptCausal]] = {}
    for effect in causal_effects(library.causal):
        effects.setdefault(effect.concept, []).append(ConceptCausal(effect, _verdict_of(effect)))
    concepts = tuple(
        ConceptSummary(
            concept.name,
            concept.category,
            concept.kind,
            concept.system_prompt,
            tuple(parts[concept.name]),
            tuple(effects.get(concept.name, ())),
        )
        for concept in library.concepts
    )
    return LibrarySummary(
        library.name,
        library.tool_version,
        library.content_sha256,
        library.model,
        library.number_tokens,
        tuple(tables),
        concepts,
    )


def find_hubs(table: ProbeTable) -> tuple[Hub, ...]:
    """The table's hubs, most shared first; none in a table of one concept.

    A unit counts for a concept if its uncentred shift is above 0 and among the 10 largest (in a
    table of fewer than 100 units, among the largest tenth).
    """
    concepts, units = table.shift_nats.shape
    top = top_units(table.shift_nats, max(1, min(_HUB_RANK, units // 10)))
    raised = np.take_along_axis(table.shift_nats, top, axis=1) > 0
    times = np.bincount(top[raised], minlength=units)
    mean = hub_shift(table.shift_nats)
    found = np.flatnonzero(times >= max(2.0, concepts / 2))
    order = sorted(found, key=lambda unit: (-times[unit], -mean[unit]))
    return tuple(Hub(table.units[unit], int(times[unit]), float(mean[unit])) for unit in order)


def flat_settings(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """A record's settings as (path, text) pairs; what was checked on held-out data comes first."""
    pairs = list(_flat(settings, ()))
    pairs.sort(key=lambda pair: not pair[0].startswith("held_out"))
    return tuple(pairs)


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    elif isinstance(value, list) and any(isinstance(item, (list, Mapping)) for item in value):
        yield ".".join(path), "; ".join(_text(item) for item in value)
    else:
        yield ".".join(path), _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(
    record: ProbeRecord, table: ProbeTable, number_tokens: NumberTokens
) -> tuple[TableSummary, tuple[ConceptTable, ...]]:
    weights, share_weighted = unit_weights(table)
    own = own_part(table, number_tokens)
    observations = _observations(record.settings)
    strong = strength(table, own, observations)
    hub = hub_shift(table.shift_nats)
    shared = float((hub - hub @ weights) ** 2 @ weights)
    own_rms_nats = _rms(strong.own_rms_nats)
    hubs = find_hubs(table)
    parts = _concept_tables(table, strong, correlations(table, own), hubs)
    total = shared + own_rms_nats**2
    summary = TableSummary(
        table.view,
        table.probe,
        record.description,
        record.settings,
        len(table.concepts),
        len(table.units),
        observations,
        _count(record.settings, "positions"),
        share_weighted,
        math.sqrt(shared),
        own_rms_nats,
        _rms(strong.noise_rms_nats),
        shared / total if total > 0 else math.nan,
        strong.effective_units,
        sum(part.verdict is StrengthVerdict.ABOVE for part in parts),
        hubs,
    )
    return summary, parts


def _rms(values: Matrix) -> float:
    """Root mean square of those values that are known; NaN where none is."""
    known = values[np.isfinite(values)]
    return float(np.sqrt((known**2).mean())) if len(known) else math.nan


def _concept_tables(
    table: ProbeTable, strong: Strength, alike: Matrix, hubs: Sequence[Hub]
) -> tuple[ConceptTable, ...]:
    centred = table.centred_nats()
    hub_units = {hub.unit for hub in hubs}

    def shifts(concept: int, chosen: NDArray[np.int64]) -> tuple[UnitShift, ...]:
        return tuple(
            UnitShift(
                table.units[unit],
                float(table.shift_nats[concept, unit]),
                float(centred[concept, unit]),
                float(table.spread_nats[concept, unit]),
                float(table.neutral_share[unit]),
                table.units[unit] in hub_units,
            )
            for unit in chosen
        )

    top = top_units(centred, _SHOWN_UNITS)
    bottom = top_units(-centred, _SHOWN_BOTTOM)
    return tuple(
        ConceptTable(
            table.view,
            table.probe,
            float(strong.own_rms_nats[concept]),
            float(strong.noise_rms_nats[concept]),
            float(strong.signal_to_noise[concept]),
            float(strong.p_value[concept]),
            float(strong.q_value[concept]),
            _above_noise(float(strong.q_value[concept])),
            shifts(concept, top[concept]),
            shifts(concept, bottom[concept]),
            _nearest(table.concepts, alike[concept], concept),
        )
        for concept in range(len(table.concepts))
    )


def _nearest(names: Sequence[str], alike: Matrix, concept: int) -> tuple[Neighbour, ...]:
    order = [
        int(other)
        for other in np.argsort(-alike, kind="stable")
        if other != concept and np.isfinite(alike[other])
    ]
    return tuple(
        Neighbour(names[other], float(alike[other])) for other in order[:_SHOWN_NEIGHBOURS]
    )


def _above_noise(q_value: float) -> StrengthVerdict:
    if math.isnan(q_value):
        return StrengthVerdict.UNKNOWN
    return StrengthVerdict.ABOVE if q_value <= FALSE_DISCOVERY_RATE else StrengthVerdict.NOT_SHOWN


def _verdict_of(effect: CausalEffect) -> CausalVerdict:
    if math.isnan(effect.effect_nats):
        return CausalVerdict.TOO_FEW
    if effect.low_nats > 0:
        return CausalVerdict.RAISES
    return CausalVerdict.LOWERS if effect.high_nats < 0 else CausalVerdict.NO_EFFECT


def _observations(settings: Mapping[str, Any]) -> int | None:
    """Over how many contexts, or questions of a category, the table's spreads were taken."""
    questions = settings.get("questions")
    if isinstance(questions, Mapping) and questions:
        return min(len(asked) for asked in questions.values())
    return _count(settings, "contexts")


def _count(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 1 else None
