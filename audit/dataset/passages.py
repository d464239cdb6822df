"""The texts of one row in the order of the conversation, and where in the row each stands."""

from __future__ import annotations

from dataclasses import dataclass

Place = tuple[str | int, ...]
"""Keys and indices from the row to a text.

A text has no children, so a step from one means something else: ``"json"`` is the value whose
JSON the text holds, and two numbers are the characters from the first to before the second.
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """One stretch of text of a row, in the order of the conversation.

    ``role`` is "system", "user" or "assistant"; ``trained``: training raises its probability.
    ``place`` is None where the text cannot be rewritten (a tool call, encoded content, token ids).
    """

    role: str
    text: str
    trained: bool
    place: Place | None


@dataclass(frozen=True, slots=True)
class RowTurns:
    """One row as it is read, in texts and in turns.

    ``prompt``, ``completion`` and ``rejected`` are what a scan reads. ``turns`` are the prompt and
    the trained text in the order of the conversation, rejected text left out: the trained turns,
    joined by line feeds, are ``completion`` before lone surrogates are replaced.
    """

    schema: str
    prompt: str
    completion: str
    rejected: str | None
    turns: tuple[Turn, ...]
