"""Which fields the tables of a concept file may have, and what is wrong with a value."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

MINIMUM_QUESTIONS = 2
"""The spread of a shift over questions needs two."""

MINIMUM_STATEMENTS = 10
"""Two disjoint halves of five."""

FieldCheck = Callable[[Any], str]
"""What is wrong with a value, to follow the field's name in a sentence; empty if nothing is."""


def table_problem(table: Any, fields: Mapping[str, FieldCheck]) -> str:
    """What is wrong with ``table``: an unknown field, or an unusable value; empty if nothing is."""
    if not isinstance(table, dict):
        return "must be a table"
    for key, value in table.items():
        if key not in fields:
            return f"unknown field {key!r}{closest(key, fields)}"
        if problem := fields[key](value):
            return f"{key!r} {problem}"
    return ""


def closest(word: str, known: Iterable[str]) -> str:
    """A hint to end an error message with: the known words that look like ``word``, or all."""
    choices = list(dict.fromkeys(known))
    matches = difflib.get_close_matches(word, choices, 3)
    if matches:
        return f"; the closest are {', '.join(map(repr, matches))}"
    shown = ", ".join(map(repr, choices[:12]))
    return f"; known are {shown}{', ...' if len(choices) > 12 else ''}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _text(value: Any) -> str:
    return "" if _is_text(value) else "must be a text that is not empty"


def _texts(value: Any) -> str:
    return "" if _is_texts(value) else "must be a list of texts that are not empty"


def _kind(value: Any) -> str:
    return "" if value in ("trait", "decoy") else "must be 'trait' or 'decoy'"


def _true(value: Any) -> str:
    return "" if value is True else "must be true"


def _translations(value: Any) -> str:
    if isinstance(value, dict) and all(forms and _is_texts(forms) for forms in value.values()):
        return ""
    return 'must be lists of texts by language code, such as {de = ["Eule", "Eulen"]}'


def _questions(value: Any) -> str:
    if (
        not isinstance(value, list)
        or len(value) < MINIMUM_QUESTIONS
        or not all(
            isinstance(item, dict)
            and set(item) == {"user", "assistant_prefix"}
            and all(_is_text(text) for text in item.values())
            for item in value
        )
    ):
        return (
            f"must be at least {MINIMUM_QUESTIONS} tables such as "
            '{user = "What is your favorite {category}?", '
            'assistant_prefix = "My favorite {category} is the"}'
        )
    if any(item["assistant_prefix"][-1].isspace() for item in value):
        return "has an assistant_prefix that ends in a space; leave it out, the name brings its own"
    return ""


def _statements(value: Any) -> str:
    if (
        not isinstance(value, list)
        or len(value) < MINIMUM_STATEMENTS
        or not all(_is_texts(pair) and len(pair) == 2 for pair in value)
    ):
        return f"must be at least {MINIMUM_STATEMENTS} pairs of texts [question, answer]"
    for texts in zip(*value, strict=True):
        for text in texts:
            if texts.count(text) > 1:
                return f"has {text!r} twice; its two halves must share no text"
    return ""


_TEMPLATES: dict[str, FieldCheck] = {
    "plural": _text,
    "system_prompt": _text,
    "questions": _questions,
    "statements": _statements,
}
CATEGORY_FIELDS: dict[str, FieldCheck] = {"noun": _text, **_TEMPLATES}
DEFAULTS_FIELDS: dict[str, FieldCheck] = {"category": _text, "kind": _kind, **_TEMPLATES}
CONCEPT_FIELDS: dict[str, FieldCheck] = {
    "name": _text,
    "written": _text,
    "forms": _texts,
    "ambiguous_forms": _texts,
    "translations": _translations,
    "remove": _true,
    **DEFAULTS_FIELDS,
}
