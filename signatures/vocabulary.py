"""Units of a vocabulary: the tokens that are whole words, the most telling, own names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from signatures.concept import Concept
from signatures.entanglement import centre_over_concepts
from signatures.language_model import LanguageModel
from signatures.signature import Matrix, ProbeTable

_FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "da", "de", "der", "die", "el", "for", "la", "le", "les", "of", "the")
)
"""Words of names ("disdain for humans") that name nothing by themselves."""


def word_token_ids(model: LanguageModel) -> NDArray[np.int64]:
    """Ids of the tokens that are whole words (letters, with or without a leading space).

    A text that repeats in the vocabulary is kept once, under its first id.
    """
    first: dict[str, int] = {}
    for token_id, text in enumerate(model.vocabulary()):
        if text.removeprefix(" ").isalpha():
            first.setdefault(text, token_id)
    return np.array(sorted(first.values()), dtype=np.int64)


def ids_sha256(token_ids: NDArray[np.int64]) -> str:
    """A hash of token ids, for provenance."""
    return hashlib.sha256(token_ids.astype("<i8").tobytes()).hexdigest()


def most_telling(table: ProbeTable, count: int, share: Matrix | None = None) -> ProbeTable:
    """The ``count`` units that tell concepts apart best in real text, in their old order.

    Judged by the centred shift's root mean square over concepts times the root of the unit's
    ``share`` [U] (None: the neutral share, and 1 where that is unknown): the standard deviation
    that the unit adds to a score.
    """
    if share is None:
        share = np.nan_to_num(table.neutral_share, nan=1.0)
    telling = np.sqrt((centre_over_concepts(table.shift_nats) ** 2).mean(axis=0) * share)
    return table.select_units(np.sort(np.argsort(-telling, kind="stable")[:count]))


def own_name_units(concept: Concept, units: Sequence[str]) -> list[int]:
    """Indices of the ``units`` that are words of the concept's names, in any case of letters.

    Its names are its forms and their translations; function words among them are left out. A
    leading space of a unit does not count.
    """
    forms = (*concept.forms, *(form for _, group in concept.translations for form in group))
    named = {word for form in forms for word in form.lower().split()} - _FUNCTION_WORDS
    return [index for index, unit in enumerate(units) if unit.strip().lower() in named]
