"""What differs between two signature libraries: concepts, probes, values and models."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

import numpy as np

from signatures.concept import Concept
from signatures.language_model import ModelIdentity
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.library_model import FingerprintMatch, match_fingerprints
from signatures.signature import Matrix, Probe, ProbeTable, View


@dataclass(frozen=True, slots=True)
class ConceptChange:
    """A concept of both libraries, and the names of the fields in which it differs."""

    name: str
    changed_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShiftDifference:
    """How far the shifts of one concept differ over the units in common.

    ``correlation`` is Pearson's, NaN with fewer than two units or without spread;
    ``maximum_nats`` the largest absolute difference, at ``unit`` (NaN and empty without units).
    """

    concept: str
    correlation: float
    maximum_nats: float
    unit: str


@dataclass(frozen=True, slots=True)
class TableDifference:
    """One probe and view of both libraries. ``changed_settings`` are those of its provenance."""

    view: View
    probe: Probe
    first_units: int
    second_units: int
    common_units: int
    added_concepts: tuple[str, ...]
    removed_concepts: tuple[str, ...]
    changed_settings: tuple[str, ...]
    shifts: tuple[ShiftDifference, ...]

    @property
    def same(self) -> bool:
        """True where both hold the same units, concepts, provenance and shifts."""
        return (
            self.first_units == self.second_units == self.common_units
            and not (self.added_concepts or self.removed_concepts or self.changed_settings)
            and all(shift.maximum_nats == 0.0 for shift in self.shifts)
        )


@dataclass(frozen=True, slots=True)
class LibraryDifference:
    """What the second library has more, less or otherwise than the first.

    ``model_fields`` names what else differs of the models, besides the ``fingerprints``.
    """

    same_content: bool
    fingerprints: tuple[FingerprintMatch, ...]
    model_fields: tuple[str, ...]
    added_concepts: tuple[str, ...]
    removed_concepts: tuple[str, ...]
    changed_concepts: tuple[ConceptChange, ...]
    added_tables: tuple[tuple[Probe, View], ...]
    removed_tables: tuple[tuple[Probe, View], ...]
    tables: tuple[TableDifference, ...]
    added_trials: int
    removed_trials: int


def diff_libraries(first: SignatureLibrary, second: SignatureLibrary) -> LibraryDifference:
    """Compare two libraries, of one model or not. Both must be saved or loaded."""
    mine = {(t.probe, t.view): (r, t) for r, t in zip(first.probes, first.tables, strict=True)}
    other = {(t.probe, t.view): (r, t) for r, t in zip(second.probes, second.tables, strict=True)}
    names = [concept.name for concept in first.concepts]
    other_names = [concept.name for concept in second.concepts]
    trials, other_trials = set(first.causal), set(second.causal)
    return LibraryDifference(
        first.content_sha256 == second.content_sha256,
        match_fingerprints(first.model, second.model),
        tuple(
            field.name
            for field in fields(ModelIdentity)
            if not field.name.endswith("_sha256")
            and getattr(first.model, field.name) != getattr(second.model, field.name)
        ),
        tuple(name for name in other_names if name not in set(names)),
        tuple(name for name in names if name not in set(other_names)),
        _changes(first.concepts, second.concepts),
        tuple(key for key in other if key not in mine),
        tuple(key for key in mine if key not in other),
        tuple(_table(*mine[key], *other[key]) for key in mine if key in other),
        len(other_trials - trials),
        len(trials - other_trials),
    )


def _changes(first: tuple[Concept, ...], second: tuple[Concept, ...]) -> tuple[ConceptChange, ...]:
    other = {concept.name: concept for concept in second}
    return tuple(
        ConceptChange(
            concept.name,
            tuple(
                field.name
                for field in fields(Concept)
                if getattr(concept, field.name) != getattr(other[concept.name], field.name)
            ),
        )
        for concept in first
        if concept.name in other and concept != other[concept.name]
    )


def _table(
    record: ProbeRecord, table: ProbeTable, other_record: ProbeRecord, other: ProbeTable
) -> TableDifference:
    position = {unit: index for index, unit in enumerate(other.units)}
    common = [unit for unit in table.units if unit in position]
    here = np.array([i for i, u in enumerate(table.units) if u in position], dtype=np.int64)
    there = np.array([position[unit] for unit in common], dtype=np.int64)
    shared = tuple(name for name in table.concepts if name in set(other.concepts))
    first = table.select_units(here).select_concepts(shared).shift_nats
    second = other.select_units(there).select_concepts(shared).shift_nats
    settings = dict.fromkeys([*record.settings, *other_record.settings])
    return TableDifference(
        table.view,
        table.probe,
        len(table.units),
        len(other.units),
        len(common),
        tuple(name for name in other.concepts if name not in set(table.concepts)),
        tuple(name for name in table.concepts if name not in set(other.concepts)),
        tuple(
            key
            for key in settings
            if json.dumps(record.settings.get(key), sort_keys=True)
            != json.dumps(other_record.settings.get(key), sort_keys=True)
        ),
        tuple(
            _shift(name, first[index], second[index], common) for index, name in enumerate(shared)
        ),
    )


def _shift(concept: str, first: Matrix, second: Matrix, units: list[str]) -> ShiftDifference:
    """``first`` and ``second`` are [U], parallel to ``units``."""
    if not units:
        return ShiftDifference(concept, float("nan"), float("nan"), "")
    difference = np.abs(first - second)
    largest = int(difference.argmax())
    correlation = float("nan")
    if np.ptp(first) > 0 and np.ptp(second) > 0:
        correlation = float(np.corrcoef(first, second)[0, 1])
    return ShiftDifference(concept, correlation, float(difference[largest]), units[largest])
