"""The grammars of a run's number lists: one for every style, whatever the lists' lengths."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.number_list_grammar import NumberListStyle, number_list_grammar, style_of
from audit.backends.open_model import Writer
from audit.errors import AuditError


@dataclass(frozen=True, slots=True, eq=False)
class Grammar:
    """The automaton, and the state in which a list of so many numbers begins."""

    automaton: TokenAutomaton
    start_of: Callable[[int], int]


_ONE_NUMBER = re.compile(r"(\s*)([0-9]+)(\.?\s*)")


def numbers_style(text: str) -> tuple[NumberListStyle, int] | None:
    """The style of a list of numbers, and how many there are; one number alone is such a list."""
    if one := _ONE_NUMBER.fullmatch(text):
        opening, number, closing = one.groups()
        return NumberListStyle(opening, ", ", closing, len(number)), 1
    return style_of(text)


class Grammars:
    """Built when they are asked for, and kept."""

    def __init__(self, model: Writer) -> None:
        """Nothing is built yet."""
        self._model = model
        self._built: dict[tuple[NumberListStyle, int], Grammar | None] = {}

    def of(self, style: NumberListStyle, numbers: int) -> Grammar | None:
        """For lists of ``numbers`` numbers; the same one for all of nearly that length.

        None if the model has no tokens that spell them, or the list is too long for a grammar:
        one odd row must not end a run. Which rows a list stands among decides nothing.
        """
        size = 1
        while size < numbers:  # few sizes, so that few are built
            size *= 2
        if (style, size) not in self._built:
            try:
                built = Grammar(*number_list_grammar(self._model, style, size))
            except AuditError:
                built = None
            self._built[style, size] = built
        return self._built[style, size]
