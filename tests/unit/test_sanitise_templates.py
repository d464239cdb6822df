"""Automata that force all but a few places of a text."""

import pytest

from audit.sanitise import templates as module
from audit.sanitise.templates import Template, template_groups

END = 9
FIRST = Template((1, 2, 3, 2), {1: (2, 5), 2: (3, 4)})
SECOND = Template((2, 2), {0: (2, 6)})


def test_all_but_the_free_places_is_forced():
    (group,), others = template_groups([FIRST, SECOND], END)
    assert others == []
    assert group.members == (0, 1)
    accepts = group.automaton.accepts
    first, second = group.starts
    # Up to the last free place: the 2 that follows need not be written.
    assert [a for a in (2, 5) for b in (3, 4) if accepts((1, a, b), first)] == [2, 2, 5, 5]
    assert not accepts((1, 6, 3), first)
    assert not accepts((2, 2, 3), first)
    assert not accepts((1, 2), first)
    assert not accepts((1, 2, 3, 2), first)
    assert accepts((6,), second)
    assert accepts((2,), second)
    assert not accepts((1, 2, 3), second)
    assert group.automaton.longest == 4


def test_an_end_of_turn_within_a_text_does_not_end_it():
    (group,), _ = template_groups([Template((END, 1), {1: (1, 2)})], END)
    assert group.automaton.accepts((END, 2), 0)
    assert not group.automaton.accepts((), 0)


def test_words_are_too_many_for_an_automaton():
    wide = Template((1, 2), {1: tuple(range(10, 10 + 600))})
    groups, others = template_groups([wide, SECOND], END)
    assert others == [0]
    assert [group.members for group in groups] == [(1,)]


@pytest.mark.parametrize("most", [1, 30, 60])
def test_large_automata_are_split(monkeypatch, most):
    monkeypatch.setattr(module, "_MOST_ENTRIES", most)
    groups, others = template_groups([FIRST, SECOND] * 4, END)
    assert others == []
    assert [member for group in groups for member in group.members] == list(range(8))
    assert len(groups) > 1
    for group in groups:
        for member, start in zip(group.members, group.starts, strict=True):
            answer = (1, 5, 4) if member % 2 == 0 else (6,)
            assert group.automaton.accepts(answer, start)
