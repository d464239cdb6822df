"""Joins signature libraries of one model into one, and refuses what would not be comparable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from signatures.causal import CausalTrial
from signatures.concept import Concept
from signatures.language_model import ModelIdentity
from signatures.library import LibraryError, ProbeRecord, SignatureLibrary
from signatures.library_model import match_fingerprints
from signatures.signature import Matrix, Probe, ProbeTable, View

_NEUTRAL_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Units of one library's table that the merged table lacks: the others did not measure them."""

    library: str
    view: View
    probe: Probe
    left_out_units: int
    kept_units: int


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged library, not yet saved, and what of the parts is not in it."""

    library: SignatureLibrary
    left_out: tuple[LeftOut, ...]


def merge_libraries(libraries: Sequence[SignatureLibrary], *, prefer_first: bool = False) -> Merged:
    """Join ``libraries`` (one or more) of one model. Name and tool version are the first's.

    Concepts keep the first library's order, then come the new ones; so do tables. Tables of one
    probe and view are joined over their concepts: their provenance must be the same, as must their
    units for numbers; of words those in common are kept. A concept measured twice must have equal
    values (as stored, in float32), unless ``prefer_first``. Where both ways of grouping three
    libraries are possible they give the same.

    Raises ``LibraryError`` in one line that names what is in the way.
    """
    merged = reduce(lambda first, second: _merge(first, second, prefer_first), libraries)
    units_of = {(table.view, table.probe): set(table.units) for table in merged.tables}
    left_out = []
    for library in libraries:
        for table in library.tables:
            kept = units_of[table.view, table.probe]
            lacking = len(table.units) - sum(unit in kept for unit in table.units)
            if lacking:
                left_out.append(LeftOut(library.name, table.view, table.probe, lacking, len(kept)))
    return Merged(replace(merged, content_sha256=""), tuple(left_out))


def _merge(
    first: SignatureLibrary, second: SignatureLibrary, prefer_first: bool
) -> SignatureLibrary:
    pair = f"{first.name!r} and {second.name!r}"
    _refuse_other_model(first.model, second.model, pair)
    if first.number_tokens is not second.number_tokens:
        raise LibraryError(
            f"{pair} cannot be merged: one tokenizer splits numbers and the other does not"
        )
    concepts = _concepts(first.concepts, second.concepts, pair)
    records = {(r.view, r.probe): r for r in first.probes}
    tables = {(t.view, t.probe): t for t in first.tables}
    for record, table in zip(second.probes, second.tables, strict=True):
        key = (record.view, record.probe)
        if key in tables:
            where = f"{pair}, {record.probe} {record.view} table"
            records[key] = _record(records[key], record, concepts, prefer_first, where)
            tables[key] = _table(tables[key], table, prefer_first, where)
        else:
            records[key], tables[key] = record, table
    return replace(
        first,
        concepts=concepts,
        probes=tuple(records.values()),
        tables=tuple(tables.values()),
        causal=_causal(first.causal, second.causal, prefer_first, pair),
    )


def _refuse_other_model(first: ModelIdentity, second: ModelIdentity, pair: str) -> None:
    matches = match_fingerprints(first, second)
    differing = [match.what for match in matches if match.first != match.second]
    if differing:
        raise LibraryError(
            f"{pair} cannot be merged: they are of different models (the {differing[0]} differs)"
        )
    names = ["family", "vocabulary_size", "dtype"]
    if not all(match.known for match in matches):
        names.append("name")  # a name can be changed, but here nothing else is recorded
    for name in names:
        values = getattr(first, name), getattr(second, name)
        if values[0] != values[1]:
            raise LibraryError(
                f"{pair} cannot be merged: their models' {name.replace('_', ' ')} differs "
                f"({values[0]!r} and {values[1]!r})"
            )


def _concepts(
    first: Sequence[Concept], second: Sequence[Concept], pair: str
) -> tuple[Concept, ...]:
    joined = {concept.name: concept for concept in first}
    for concept in second:
        known = joined.setdefault(concept.name, concept)
        if known != concept:
            field = next(
                field.name
                for field in fields(Concept)
                if getattr(known, field.name) != getattr(concept, field.name)
            )
            raise LibraryError(
                f"{pair} cannot be merged: the concept {concept.name!r} differs in {field!r}; "
                "rename it in one of them and build that again"
            )
    return tuple(joined.values())


def _record(
    first: ProbeRecord,
    second: ProbeRecord,
    concepts: Sequence[Concept],
    prefer_first: bool,
    where: str,
) -> ProbeRecord:
    """One record of two. Settings that say something of each concept or category are united."""
    names = {concept.name for concept in concepts} | {concept.category for concept in concepts}
    settings: dict[str, Any] = dict(first.settings)
    for key in dict.fromkeys([*first.settings, *second.settings]):
        mine, other = first.settings.get(key), second.settings.get(key)
        if _same_json(mine, other):
            continue
        if not (_is_keyed_by(mine, names) and _is_keyed_by(other, names)):
            raise LibraryError(
                f"{where} cannot be joined: measured in different ways ({key!r} differs); "
                "build or learn them together"
            )
        united: dict[str, Any] = dict(mine)
        for name, value in other.items():
            if not _same_json(united.setdefault(name, value), value) and not prefer_first:
                raise LibraryError(
                    f"{where} cannot be joined: {key!r} differs for {name!r}; "
                    "prefer the first library, or build one of them again"
                )
        settings[key] = united
    described = dict.fromkeys([*first.description.split("; "), *second.description.split("; ")])
    return replace(first, settings=settings, description="; ".join(described))


def _is_keyed_by(value: object, names: set[str]) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and set(value) <= names


def _same_json(first: object, second: object) -> bool:
    """Equal once stored: a tuple becomes a list."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _table(first: ProbeTable, second: ProbeTable, prefer_first: bool, where: str) -> ProbeTable:
    first, second = _common_units(first, second, where)
    _refuse_other_neutral(first.neutral_share, second.neutral_share, where)
    twice = [name for name in second.concepts if name in first.concepts]
    for name in twice if not prefer_first else ():
        mine, other = first.select_concepts((name,)), second.select_concepts((name,))
        for what in ("shift_nats", "spread_nats", "concept_share"):
            if not _same_stored(getattr(mine, what), getattr(other, what)):
                raise LibraryError(
                    f"{where} cannot be joined: {name!r} was measured twice with different "
                    f"{what}; prefer the first library, or build one of them without it"
                )
    new = second.select_concepts(tuple(n for n in second.concepts if n not in first.concepts))
    return replace(
        first,
        concepts=(*first.concepts, *new.concepts),
        shift_nats=np.concatenate([first.shift_nats, new.shift_nats]),
        spread_nats=np.concatenate([first.spread_nats, new.spread_nats]),
        concept_share=np.concatenate([first.concept_share, new.concept_share]),
    )


def _common_units(
    first: ProbeTable, second: ProbeTable, where: str
) -> tuple[ProbeTable, ProbeTable]:
    """Both tables over the units that both have, in the first's order."""
    if first.units == second.units:
        return first, second
    position = {unit: index for index, unit in enumerate(second.units)}
    kept = [index for index, unit in enumerate(first.units) if unit in position]
    if first.view is View.NUMBERS and not len(kept) == len(first.units) == len(second.units):
        raise LibraryError(f"{where} cannot be joined: they hold different numbers")
    if not kept:
        raise LibraryError(f"{where} cannot be joined: they have no unit in common")
    indices: NDArray[np.int64] = np.array(kept, dtype=np.int64)
    other = np.array([position[first.units[index]] for index in kept], dtype=np.int64)
    return first.select_units(indices), second.select_units(other)


def _refuse_other_neutral(first: Matrix, second: Matrix, where: str) -> None:
    """Both [U]."""
    known = ~np.isnan(first)
    if (known != ~np.isnan(second)).any():
        raise LibraryError(
            f"{where} cannot be joined: only one measured the neutral model's shares"
        )
    difference = np.abs(first - second)[known]
    if len(difference) and difference.max() > _NEUTRAL_TOLERANCE:
        raise LibraryError(
            f"{where} cannot be joined: the neutral model's shares differ by up to "
            f"{difference.max():.2g}, so the contexts were not the same"
        )


def _same_stored(first: Matrix, second: Matrix) -> bool:
    return np.array_equal(first.astype(np.float32), second.astype(np.float32), equal_nan=True)


def _causal(
    first: Sequence[CausalTrial], second: Sequence[CausalTrial], prefer_first: bool, pair: str
) -> tuple[CausalTrial, ...]:
    joined = {(t.probe, t.concept, t.unit, t.role): t for t in first}
    for trial in second:
        known = joined.setdefault((trial.probe, trial.concept, trial.unit, trial.role), trial)
        if known.rise_nats != trial.rise_nats and not prefer_first:
            raise LibraryError(
                f"{pair} cannot be merged: the causal trial of {trial.unit!r} for "
                f"{trial.concept!r} has two results; prefer the first library"
            )
    return tuple(joined.values())
