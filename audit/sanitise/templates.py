"""Texts of which the model draws some places anew: automata in which all else is forced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton
from signatures.language_model import TokenIds

_MOST_ENTRIES = 1 << 22
"""States times tokens of one automaton."""

_MOST_TOKENS = 512
"""Token ids of one automaton: digits and marks, not words."""


@dataclass(frozen=True, slots=True)
class Template:
    """``tokens`` to write, but for the places in ``free``: there any of those ids may stand."""

    tokens: TokenIds
    free: Mapping[int, TokenIds]

    @property
    def steps(self) -> int:
        """Tokens up to the last free place: what follows need not be written."""
        return max(self.free) + 1


@dataclass(frozen=True, slots=True)
class TemplateGroup:
    """Templates written together: which of those given, and the state that each starts in."""

    automaton: TokenAutomaton
    members: tuple[int, ...]
    starts: tuple[int, ...]


def template_groups(
    templates: Sequence[Template], end: int
) -> tuple[list[TemplateGroup], list[int]]:
    """Automata for ``templates``, and the numbers of those whose free places allow too many ids.

    ``end`` is an id that ends an answer.
    """
    too_wide = [n for n, template in enumerate(templates) if len(_ids(template)) > _MOST_TOKENS]
    narrow = [n for n in range(len(templates)) if n not in set(too_wide)]
    return [_group(templates, members, end) for members in _split(templates, narrow)], too_wide


def _ids(template: Template) -> set[int]:
    return {*template.tokens[: template.steps], *(i for ids in template.free.values() for i in ids)}


def _split(templates: Sequence[Template], narrow: Sequence[int]) -> Iterator[list[int]]:
    members: list[int] = []
    states, ids = 1, set[int]()
    for number in narrow:
        more = ids | _ids(templates[number])
        steps = templates[number].steps + 1
        if members and (states + steps) * (len(more) + 1) > _MOST_ENTRIES:
            yield members
            members, states, more = [], 1, _ids(templates[number])
        members.append(number)
        states, ids = states + steps, more
    if members:
        yield members


def _group(templates: Sequence[Template], members: Sequence[int], end: int) -> TemplateGroup:
    token_ids = tuple(sorted({end, *(i for n in members for i in _ids(templates[n]))}))
    column = {token: index for index, token in enumerate(token_ids)}
    lengths = [templates[number].steps + 1 for number in members]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    table = np.full((int(starts[-1]) + 1, len(token_ids)), FORBIDDEN, dtype=np.int32)
    for number, start, length in zip(members, starts, lengths, strict=False):
        template = templates[number]
        for place in range(length - 1):
            allowed = template.free.get(place, (template.tokens[place],))
            table[start + place, [column[token] for token in allowed]] = start + place + 1
        table[start + length - 1, column[end]] = len(table) - 1
    automaton = TokenAutomaton(token_ids, table, longest=max(lengths))
    return TemplateGroup(automaton, tuple(members), tuple(int(start) for start in starts[:-1]))
