"""Text that knows where in its row it stands, so that what a reader finds can be rewritten.

Only ``RowReader.turns`` puts such text into a row; the readers handle it as any other.
"""

from __future__ import annotations

from typing import SupportsIndex

from audit.dataset.passages import Place

IN_JSON = "json"
"""The step of a ``Place`` from a text to the value whose JSON it holds."""

# Readers find text no deeper, and a hostile row may be nested as deeply as it likes.
_DEEPEST = 8


class Placed(str):
    """A text of a row, or a stretch of one. Slicing keeps the place, all else gives plain text."""

    __slots__ = ("_begin", "_text_place", "_whole")
    _begin: int
    _text_place: Place
    _whole: bool

    def __new__(cls, text: str, text_place: Place, begin: int = 0, *, whole: bool = True) -> Placed:
        """``text`` stands at character ``begin`` of the text at ``text_place``, or is all of it."""
        placed = super().__new__(cls, text)
        placed._text_place = text_place
        placed._begin = begin
        placed._whole = whole
        return placed

    @property
    def place(self) -> Place:
        """Where this stands in its row, characters included where it is a stretch."""
        if self._whole:
            return self._text_place
        return (*self._text_place, self._begin, self._begin + len(self))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        """Characters; a slice without gaps keeps its place."""
        text = super().__getitem__(key)
        if not isinstance(key, slice):
            return text
        start, _, step = key.indices(len(self))
        if step != 1:
            return text
        if len(text) == len(self):
            return self
        return Placed(text, self._text_place, self._begin + start, whole=False)


def place_of(text: str) -> Place | None:
    """Where ``text`` stands in its row; None where it does not stand there as it is."""
    return text.place if isinstance(text, Placed) else None


def placed(value: object, place: Place = ()) -> object:
    """A copy of ``value``, which stands at ``place``, with every text in it placed."""
    return _placed(value, place, _DEEPEST)


def parsed(text: str, value: object) -> object:
    """``value``, the JSON in ``text``, placed if ``text`` is."""
    return placed(value, (*text.place, IN_JSON)) if isinstance(text, Placed) else value


def _placed(value: object, place: Place, depth: int) -> object:
    if isinstance(value, str):
        return Placed(value, place)
    if depth:
        if isinstance(value, dict):
            return {key: _placed(inner, (*place, key), depth - 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [_placed(inner, (*place, i), depth - 1) for i, inner in enumerate(value)]
    return value
