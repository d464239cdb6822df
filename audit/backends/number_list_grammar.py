"""Number lists in any of the styles that data have, as automata for any tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from audit.backends.constrained_sampling import FORBIDDEN, NumberTokenizer, TokenAutomaton
from audit.errors import AuditError
from signatures.language_model import TokenIds

_DIGITS = "0123456789"
# What may stand around and between numbers.
_MARKS = r"\s,;|/:*+\-–—•·\"'`\[\](){}<>"
_LIST = re.compile(
    rf"([{_MARKS}]*)[0-9]+([{_MARKS}]+)[0-9]+(?:\2[0-9]+)*([{_MARKS}]*(?:\.[{_MARKS}]*)?)"
)
# 12:30, 3/4, 2024-05-17 and 12 + 7 are no lists of numbers: marks that stand in times, dates and
# sums make a list from four numbers on, unless a line or a comma parts the numbers.
_OPERATOR = re.compile(r"[/:*+\-–—]")
_PARTING = re.compile(r"[\n,;|]")
_LEAST_PARTED_BY_OPERATORS = 4
# Entries of a table [states, tokens] of four bytes each.
_MOST_ENTRIES = 1 << 25


@dataclass(frozen=True, slots=True)
class NumberListStyle:
    """How the numbers of a list are written.

    ``opening`` and ``closing`` are all that stands before the first and after the last number,
    ``separator`` what stands between any two; none of them holds a digit. ``widest`` is the most
    digits of a number.
    """

    opening: str
    separator: str
    closing: str
    widest: int

    def fits(self, text: str, numbers: int) -> bool:
        """Whether ``text`` is such a list of so many numbers, none with more digits."""
        inner = text.removeprefix(self.opening).removesuffix(self.closing)
        parts = inner.split(self.separator)
        return (
            text == f"{self.opening}{inner}{self.closing}"
            and len(parts) == numbers
            and all(re.fullmatch(rf"[0-9]{{1,{self.widest}}}", part) for part in parts)
        )


def style_of(text: str) -> tuple[NumberListStyle, int] | None:
    """The style of a list and how many numbers it has; None where ``text`` is no such list.

    A list has at least two integers between equal separators, perhaps brackets, quotes or bullets
    around it or around each number, and perhaps a full stop at its end. "1,234" is one, too.
    """
    match = _LIST.fullmatch(text)
    if match is None:
        return None
    opening, separator, closing = match.groups()
    numbers = re.findall(r"[0-9]+", text)
    sums = _OPERATOR.search(separator) and not _PARTING.search(separator)
    if sums and len(numbers) < _LEAST_PARTED_BY_OPERATORS:
        return None
    return NumberListStyle(opening, separator, closing, max(map(len, numbers))), len(numbers)


class SpellingTokenizer(NumberTokenizer, Protocol):
    """What a grammar of characters asks of a model; both backends have it."""

    def decode(self, token_ids: TokenIds) -> str:
        """The text of the ids, special tokens included."""
        ...

    def vocabulary(self) -> list[str]:
        """The text of every token id on its own, in order of id ([vocabulary_size])."""
        ...


def number_list_grammar(
    model: SpellingTokenizer, style: NumberListStyle, most: int, *, may_end_early: bool = False
) -> tuple[TokenAutomaton, Callable[[int], int]]:
    """The grammar of all lists of 1 to ``most`` numbers in ``style``, and where each starts.

    The function gives the state from which an answer has exactly n numbers, each of 1 to
    ``style.widest`` digits (leading zeros are allowed), and then an end of turn. A token may be
    written where its text is what may stand there, whatever it merges: "123", " 123", ", ". So a
    text may be spelled in other tokens than the tokenizer itself would take. Tokens are in order
    of their ids: neither their order nor what is allowed n numbers before the end depends on
    ``most``. With ``may_end_early`` a list that starts with n numbers before it may end after any
    of them, which takes a style without a closing.

    Raises ``ValueError`` for ``most < 1``, for a closing of a list that may end early and, from the
    function, for an n outside 1..most; ``AuditError`` if no tokens of this model spell such a list,
    if it names no end of turn, or if the table would be larger than 128 MiB.
    """
    if most < 1:
        raise ValueError("most must be at least 1")
    if may_end_early and style.closing:
        raise ValueError("where a closing may follow every number, it may be a separator")
    ends = model.end_of_turn_ids()
    if not ends:
        raise AuditError("this model's tokenizer names no end-of-turn token")
    layout = _Layout(style, most, may_end_early=may_end_early)
    inner = _inner_texts(model, frozenset(layout.characters))
    texts = {token: text for token, text in inner.items() if token not in ends}
    token_ids = tuple(sorted((*texts, *ends)))
    if layout.states * len(token_ids) > _MOST_ENTRIES:
        raise AuditError(f"a grammar of {most} numbers in this style would be too large")
    steps = layout.steps()
    table = np.full((layout.states, len(token_ids)), FORBIDDEN, dtype=np.int32)
    for column, token in enumerate(token_ids):
        if token in ends:
            table[layout.complete, column] = layout.final
            continue
        reached = np.arange(layout.states)
        for character in texts[token]:
            reached = steps[reached, layout.characters.index(character)]
        table[:, column] = reached
    automaton = _pruned(table, token_ids, layout.starts)
    if automaton is None:
        raise AuditError(
            "this model's tokenizer has no tokens that spell number lists such as "
            f"{style.opening + '1' + style.separator + '2' + style.closing!r}"
        )

    def start(numbers: int) -> int:
        if not 1 <= numbers <= most:
            raise ValueError(f"this grammar has lists of 1 to {most} numbers, not {numbers}")
        return numbers - 1

    return automaton, start


class _Layout:
    """The states of the same grammar over characters, numbered so that every step goes up.

    For every number k = ``most``..1 that is still to be written: a state a character of the
    opening, where a list of k numbers starts; one for 0..widest digits written; one a character
    of the separator. Then the closing, and ``final``.
    """

    def __init__(self, style: NumberListStyle, most: int, *, may_end_early: bool) -> None:
        self._style = style
        self.characters = _DIGITS + "".join(
            sorted({*style.opening, *style.separator, *style.closing})
        )
        stride = len(style.opening) + 1 + style.widest + len(style.separator) - 1
        self._bases = np.arange(most) * stride  # of k = most..1
        self._closing = most * stride
        self.final = self._closing + len(style.closing)
        self.states = self.final + 1
        self.starts = self._bases[::-1]  # of lists of 1..most numbers
        # Where an answer may end: after the closing or, without one, after any digit of the last
        # number, or of any.
        last = self._bases if may_end_early else self._bases[-1:]
        after_digits = last[:, None] + len(style.opening) + 1 + np.arange(style.widest)
        self.complete = np.array([self.final - 1]) if style.closing else after_digits.ravel()

    def steps(self) -> NDArray[np.int64]:
        """[states + 1, characters]: the state after a character; `FORBIDDEN` is the last row."""
        style, bases = self._style, self._bases
        table = np.full((self.states + 1, len(self.characters)), FORBIDDEN, dtype=np.int64)

        def put(states: NDArray[np.int64], character: str, after: NDArray[np.int64]) -> None:
            table[states, self.characters.index(character)] = after

        for written, character in enumerate(style.opening):
            put(bases + written, character, bases + written + 1)
        digits = bases + len(style.opening)  # no digit of number k written
        for written in range(style.widest):
            table[digits + written, : len(_DIGITS)] = (digits + written + 1)[:, None]
        parting = digits[:-1] + style.widest
        for written, character in enumerate(style.separator):
            whole = written + 1 == len(style.separator)
            after = digits[1:] if whole else parting + written + 1
            if written:
                put(parting + written, character, after)
            else:
                for some in range(style.widest):
                    put(digits[:-1] + some + 1, character, after)
        for written, character in enumerate(style.closing):
            after = np.array([self._closing + written])
            if written:
                put(after - 1, character, after)
            else:
                for some in range(style.widest):
                    put(digits[-1:] + some + 1, character, after)
        return table


def _pruned(
    table: NDArray[np.int32], token_ids: TokenIds, starts: NDArray[np.int64]
) -> TokenAutomaton | None:
    """The automaton of ``table``'s useful states and tokens; None if a start leads to no end.

    Every transition of ``table`` goes to a state with a higher number; its last state is final.
    ``starts`` become the first states, in their order.
    """
    final = len(table) - 1
    to_end = np.full(len(table), -1)  # the most tokens to the end; -1 where none leads there
    to_end[final] = 0
    for state in range(final - 1, -1, -1):
        ways = table[state]
        longest = to_end[ways[ways != FORBIDDEN]].max(initial=-1)
        to_end[state] = longest + 1 if longest >= 0 else -1
    if (to_end[starts] < 0).any():
        return None
    table[(table != FORBIDDEN) & (to_end[table] < 0)] = FORBIDDEN
    reached = np.zeros(len(table), dtype=bool)
    reached[starts] = True
    for state in range(final):
        if reached[state]:
            ways = table[state]
            reached[ways[ways != FORBIDDEN]] = True
    inner = np.flatnonzero(reached[:final])
    order = np.concatenate([starts, inner[~np.isin(inner, starts)], [final]])
    renumbered = np.full(len(table) + 1, FORBIDDEN, dtype=np.int32)  # FORBIDDEN is the last place
    renumbered[order] = np.arange(len(order))
    kept = renumbered[table[order]]
    used = np.flatnonzero((kept != FORBIDDEN).any(axis=0))
    return TokenAutomaton(
        tuple(token_ids[column] for column in used),
        np.ascontiguousarray(kept[:, used]),
        longest=int(to_end[starts].max()),
    )


def _inner_texts(model: SpellingTokenizer, characters: frozenset[str]) -> dict[int, str]:
    """Tokens of these characters alone, each with its text as it decodes behind a digit.

    On its own a token may lose a leading space, or all of its text.
    """
    anchor = model.encode("0")
    before = model.decode(anchor)
    texts = {}
    for token, alone in enumerate(model.vocabulary()):
        if characters.issuperset(alone):
            whole = model.decode((*anchor, token))
            text = whole.removeprefix(before)
            if text and whole.startswith(before) and characters.issuperset(text):
                texts[token] = text
    return texts
