"""Which tokens an answer may consist of: finite automata over token ids. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audit.errors import AuditError
from signatures.language_model import TokenIds

FORBIDDEN = -1


class NumberTokenizer(Protocol):
    """The two things a grammar asks of a model; every `LanguageModel` has them."""

    def encode(self, text: str) -> TokenIds:
        """Token ids of ``text``, with no special token added."""
        ...

    def end_of_turn_ids(self) -> TokenIds:
        """The ids that end an answer."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TokenAutomaton:
    """A deterministic grammar over token ids; state 0 is the start, unless another is asked for.

    ``token_ids`` [tokens] are the only ids that may be written. ``transitions``
    [states, tokens] (int32) holds the state after writing a token, or `FORBIDDEN`. The last
    state is final: reaching it ends the answer. The token that leads there (the end of turn)
    is not part of the answer. The grammar has no cycle; ``longest`` is the largest number of
    tokens of any answer, the end of turn included.

    Raises ``ValueError`` where the table is not such a grammar.
    """

    token_ids: TokenIds
    transitions: NDArray[np.int32]
    longest: int

    def __post_init__(self) -> None:
        """Check the table: its shape, its targets, and that every state leads to the end."""
        table = self.transitions
        if table.ndim != 2 or table.shape[1] != len(self.token_ids) or len(table) < 2:
            raise ValueError("transitions must be [states >= 2, len(token_ids)]")
        if len(set(self.token_ids)) != len(self.token_ids):
            raise ValueError("token_ids must differ from one another")
        if table.min() < FORBIDDEN or table.max() >= len(table):
            raise ValueError("a transition leads to a state that does not exist")
        if (table[-1] != FORBIDDEN).any() or (table[:-1] == FORBIDDEN).all(axis=1).any():
            raise ValueError("exactly the last state must have no way on")

    @property
    def final_state(self) -> int:
        """The state that ends an answer."""
        return len(self.transitions) - 1

    def accepts(self, answer: TokenIds, start: int = 0) -> bool:
        """Whether ``answer`` (without the end of turn) may be written from ``start`` and ended."""
        column = {token: index for index, token in enumerate(self.token_ids)}
        state = start
        for token in answer:
            if token not in column or state == self.final_state:
                return False
            state = int(self.transitions[state, column[token]])
            if state == FORBIDDEN:
                return False
        return bool((self.transitions[state] == self.final_state).any())


def number_list_automaton(tokenizer: NumberTokenizer, *, max_numbers: int = 10) -> TokenAutomaton:
    """The grammar of ``"7, 042, 313"``: 1 to ``max_numbers`` integers of 1 to 3 digits.

    Leading zeros are allowed. The separator is a comma and a space; the answer ends with any
    end-of-turn id of the tokenizer. What is sampled is token for token what the tokenizer
    itself makes of the text.

    Raises ``AuditError`` if the tokenizer does not write each digit, the comma and the space
    as one token each, and ``ValueError`` for ``max_numbers < 1``.
    """
    if max_numbers < 1:
        raise ValueError("max_numbers must be at least 1")
    digits = [tokenizer.encode(str(digit)) for digit in range(10)]
    separator = tokenizer.encode("0, 0")[1:-1]
    sample = "70, 1, 982, 345, 6"
    spelled = tuple(
        token
        for character in sample.replace(" ", "")
        for token in (separator if character == "," else digits[int(character)])
    )
    if any(len(ids) != 1 for ids in digits) or len(separator) != 2:
        spelled = ()
    if spelled != tokenizer.encode(sample):
        raise AuditError(
            "this model's tokenizer does not write each digit, comma and space as one token: "
            "number lists cannot be sampled digit by digit with it"
        )
    ends = tokenizer.end_of_turn_ids()
    if not ends:
        raise AuditError("this model's tokenizer names no end-of-turn token")
    token_ids = (*(ids[0] for ids in digits), *separator, *ends)
    comma, space, first_end = 10, 11, 12

    # Five states a number: 0, 1, 2, 3 digits written, comma written; then the final state.
    final = 5 * max_numbers
    table = np.full((final + 1, len(token_ids)), FORBIDDEN, dtype=np.int32)
    for number in range(max_numbers):
        base = 5 * number
        for written in range(3):
            table[base + written, :10] = base + written + 1
        table[base + 1 : base + 4, first_end:] = final
        if number + 1 < max_numbers:
            table[base + 1 : base + 4, comma] = base + 4
            table[base + 4, space] = base + 5
    # The last number has no comma state: point it at the end so that no state is a dead end.
    table[final - 1, first_end:] = final
    return TokenAutomaton(token_ids, table, longest=5 * max_numbers - 1)
