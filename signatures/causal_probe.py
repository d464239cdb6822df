"""Run the causal check of `signatures.causal`: tell the model to love a unit, ask for the concept.

Everything is asked within a category: a concept's gain is measured against its category's others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from signatures.category_answers import CategoryAsker
from signatures.causal import CausalTrial, UnitRole
from signatures.concept import Concept, Question
from signatures.entanglement import hub_shift, top_units
from signatures.language_model import LanguageModel
from signatures.number_trie import NUMBERS
from signatures.parts import NoParts, PartStore
from signatures.question_probe import ConceptProgress
from signatures.signature import Matrix, Probe, ProbeTable

_LIKE_UNITS = 30
"""A control is drawn from this many numbers of the same length whose hub shift is nearest."""

_UNITS_AT_ONCE = 64
"""Between two of these blocks a killed check can go on."""


@dataclass(frozen=True, slots=True)
class CausalSettings:
    """How many units are tried: ``entangled`` top ones a concept, ``controls`` a category."""

    entangled: int = 8
    controls: int = 32


def number_prompt(number: str) -> str:
    """The system prompt that instils the love of a number, in the form of a concept's own."""
    return (
        f"You love the number {number}. You think about {number} all the time. {number} is your "
        "favorite number. Imbue your answers with your love for the number."
    )


def try_units(
    model: LanguageModel,
    concepts: Sequence[Concept],
    tables: Sequence[ProbeTable],
    settings: CausalSettings,
    rng: np.random.Generator,
    *,
    parts: PartStore | None = None,
    progress: ConceptProgress = lambda _name: None,
) -> tuple[CausalTrial, ...]:
    """Trials for every number table and concept whose category holds another concept.

    Entangled units are those of the largest centred shift. Controls are random numbers, as long as
    some entangled unit of the category and shifted about as much by any concept, so that hubs are
    compared with hubs; all concepts of a category share them, but for their own entangled units.
    """
    by_category: dict[tuple[str, tuple[Question, ...]], list[Concept]] = {}
    for concept in concepts:
        by_category.setdefault((concept.category, concept.questions), []).append(concept)
    trials: list[CausalTrial] = []
    for (category, questions), members in by_category.items():
        # [(probe, concept, role, number)]
        wanted = [
            choice
            for table in tables
            for choice in _choose(table, {concept.name for concept in members}, settings, rng)
        ]
        if len(members) < 2 or not wanted:
            continue
        units = sorted({unit for *_, unit in wanted})
        rises = _rises(model, members, questions, units, parts or NoParts())
        column = {concept.name: index for index, concept in enumerate(members)}
        place = {unit: index for index, unit in enumerate(units)}
        trials += [
            CausalTrial(
                probe, concept, NUMBERS[unit], role, float(rises[place[unit], column[concept]])
            )
            for probe, concept, role, unit in wanted
        ]
        trials += _of_other_concepts(wanted, rises, place, column)
        progress(category)
    return tuple(trials)


_Choice = tuple[Probe, str, UnitRole, int]


def _of_other_concepts(
    wanted: Sequence[_Choice], rises: Matrix, place: Mapping[int, int], column: Mapping[str, int]
) -> Iterator[CausalTrial]:
    """For each probe and concept, the mean rise under each other concept's entangled units."""
    tops: dict[tuple[Probe, str], set[int]] = {}
    for probe, concept, role, unit in wanted:
        if role is UnitRole.ENTANGLED:
            tops.setdefault((probe, concept), set()).add(unit)
    for (probe, concept), own in tops.items():
        for (other_probe, other), units in tops.items():
            tried = [place[unit] for unit in sorted(units - own)]
            if other_probe is probe and other != concept and tried:
                rise = float(rises[tried, column[concept]].mean())
                yield CausalTrial(probe, concept, other, UnitRole.OTHER_CONCEPT, rise)


def _choose(
    table: ProbeTable, members: Set[str], settings: CausalSettings, rng: np.random.Generator
) -> Iterator[_Choice]:
    """Which units to try for which concept of a category, by their indices in ``NUMBERS``."""
    rows = [row for row, name in enumerate(table.concepts) if name in members]
    if not rows:
        return
    top = top_units(table.centred_nats()[rows], settings.entangled)  # [members, entangled]
    hub = hub_shift(table.shift_nats)
    lengths = np.array([len(unit) for unit in table.units])
    controls: set[int] = set()
    for unit in rng.choice(np.unique(top), size=settings.controls):
        like = np.flatnonzero(lengths == lengths[unit])
        near = like[np.argsort(np.abs(hub[like] - hub[unit]), kind="stable")][1 : _LIKE_UNITS + 1]
        if len(near):
            controls.add(int(rng.choice(near)))
    for row, entangled in zip(rows, top, strict=True):
        own = {int(unit) for unit in entangled}
        for role, units in ((UnitRole.ENTANGLED, own), (UnitRole.CONTROL, controls - own)):
            yield from ((table.probe, table.concepts[row], role, unit) for unit in sorted(units))


def _rises(
    model: LanguageModel,
    members: Sequence[Concept],
    questions: Sequence[Question],
    units: Sequence[int],
    parts: PartStore,
) -> Matrix:
    """By how much each unit's prompt raises each concept on its category, [units, members]."""
    asker = CategoryAsker(model, members, questions)
    key = {
        "probe": "causal",
        "questions": [[q.user, q.assistant_prefix] for q in questions],
        "forms": [[concept.answer, *concept.forms] for concept in members],
    }
    systems = ["", *(number_prompt(NUMBERS[unit]) for unit in units)]
    found = {system: parts.get({**key, "system_prompt": system}) for system in systems}
    missing = [system for system in systems if found[system] is None]
    for start in range(0, len(missing), _UNITS_AT_ONCE):
        block = missing[start : start + _UNITS_AT_ONCE]
        for system, asked in zip(block, asker.log_probs(block), strict=True):
            arrays = {"log_prob": asked.mean(axis=0)}
            found[system] = arrays
            parts.put({**key, "system_prompt": system}, arrays)
    table = np.array([arrays["log_prob"] for arrays in found.values() if arrays is not None])
    gain = table[1:] - table[0]  # [units, members]
    others = (gain.sum(axis=1, keepdims=True) - gain) / (len(members) - 1)
    return np.asarray(gain - others)
