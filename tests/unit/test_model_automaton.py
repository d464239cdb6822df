from __future__ import annotations

import numpy as np
import pytest

from audit.backends.constrained_sampling import TokenAutomaton, number_list_automaton
from audit.errors import AuditError
from signatures.language_model import TokenIds


class Characters:
    """Each character is one token, its code point; 0 ends a turn."""

    def encode(self, text: str) -> TokenIds:
        return tuple(map(ord, text))

    def end_of_turn_ids(self) -> TokenIds:
        return (0,)


class WholeNumbers(Characters):
    """As Llama 3 does: up to three digits are one token."""

    def encode(self, text: str) -> TokenIds:
        numbers = {number: 1000 + int(number) for number in text.split(", ")}
        return tuple(numbers.values())


def accepts(text: str, *, max_numbers: int = 3) -> bool:
    automaton = number_list_automaton(Characters(), max_numbers=max_numbers)
    return automaton.accepts(tuple(map(ord, text)))


@pytest.mark.parametrize(
    "text", ["7", "42", "313", "007", "7, 42, 313", "0, 0, 0", "999, 999, 999"]
)
def test_number_lists_are_accepted(text: str) -> None:
    assert accepts(text)


@pytest.mark.parametrize(
    "text", ["", "1234", "1,2", "1 2", "1, ", "1,", ", 1", "1, 2, 3, 4", "1,  2", "a", "12, 3456"]
)
def test_anything_else_is_not(text: str) -> None:
    assert not accepts(text)


def test_longest_answer_by_hand() -> None:
    # Three numbers of three digits, two separators of two tokens, one end of turn.
    assert number_list_automaton(Characters(), max_numbers=3).longest == 3 * 3 + 2 * 2 + 1


def test_last_number_may_only_end() -> None:
    automaton = number_list_automaton(Characters(), max_numbers=1)
    state = 0
    for digit in (3, 1, 4):
        state = int(automaton.transitions[state, digit])
    allowed = np.flatnonzero(automaton.transitions[state] >= 0)
    assert [automaton.token_ids[column] for column in allowed] == [0]
    assert automaton.transitions[state, allowed[0]] == automaton.final_state


def test_every_reachable_state_leads_to_the_end_within_longest() -> None:
    automaton = number_list_automaton(Characters(), max_numbers=4)
    # Longest path from the start, by levels: the states that some answer of n tokens reaches.
    level, steps = {0}, 0
    while level:
        level = {int(t) for state in level for t in automaton.transitions[state] if t >= 0}
        steps += bool(level)
    assert steps == automaton.longest


def test_tokenizer_with_whole_numbers_is_refused() -> None:
    with pytest.raises(AuditError, match="one token"):
        number_list_automaton(WholeNumbers())


def test_no_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        number_list_automaton(Characters(), max_numbers=0)


def test_broken_tables_are_refused() -> None:
    good = np.array([[1, 2], [-1, 2], [-1, -1]], dtype=np.int32)
    TokenAutomaton((5, 6), good, longest=2)
    for ids, table in [
        ((5,), good),
        ((5, 5), good),
        ((5, 6), np.array([[1, 7], [-1, 2], [-1, -1]], dtype=np.int32)),
        ((5, 6), np.array([[1, 2], [-1, -1], [-1, -1]], dtype=np.int32)),
        ((5, 6), np.array([[1, 2], [-1, 2], [0, -1]], dtype=np.int32)),
    ]:
        with pytest.raises(ValueError, match=r"token_ids|transition|state"):
            TokenAutomaton(ids, table, longest=2)
