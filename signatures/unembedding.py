"""The ``unembedding`` probe: how near do concepts and units lie in a model's output embedding?

Zur et al. 2025 explain entanglement by the softmax bottleneck: a vocabulary larger than the hidden
size cannot have orthogonal output rows, so raising one token's logit raises its neighbours'. This
measures that geometry; as a detector it was measured to be at chance (the authors' own files).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from signatures.concept import Concept
from signatures.language_model import TokenIds
from signatures.library import ProbeRecord
from signatures.number_trie import NUMBERS, NumberTrie
from signatures.signature import Probe, ProbeTable, View

Matrix = NDArray[np.float64]

RowsOf = Callable[[NDArray[np.int64]], Matrix]
"""From token ids [n] to their output embedding rows less the vocabulary's mean row, [n, H]."""

_TOKENS_AT_ONCE = 1024


def shift_unit(probe: Probe) -> str:
    """What ``shift_nats`` of a table of ``probe`` really holds: "nats" or "cosine"."""
    return "cosine" if probe is Probe.UNEMBEDDING else "nats"


def concept_tokens(
    encode: Callable[[str], TokenIds], vocabulary: Sequence[str], concept: Concept
) -> TokenIds:
    """The different first tokens of the concept's name forms, as written after a space.

    Tokens of nothing but space are passed over, for tokenizers that write one before a word.
    Raises ``ValueError`` if no form has a token.
    """
    first: dict[int, None] = {}
    for form in concept.forms:
        visible = (token for token in encode(f" {form}") if vocabulary[token].strip())
        if (token := next(visible, None)) is not None:
            first[token] = None
    if not first:
        raise ValueError(f"the tokenizer writes no name of the concept {concept.name!r}")
    return tuple(first)


def unembedding_tables(
    encode: Callable[[str], TokenIds],
    vocabulary: Sequence[str],
    rows_of: RowsOf,
    concepts: Sequence[Concept],
    trie: NumberTrie,
    words: NDArray[np.int64],
) -> tuple[ProbeTable, ProbeTable]:
    """Tables of all numbers and of the vocabulary's ``words`` (token ids). Values are cosines.

    A value is the mean over the concept's first tokens, and over the unit's tokens, of the cosine
    of their centred rows; a row of no length has cosine 0. Centring takes out the direction that
    all rows share, without which every cosine is high. ``encode`` adds no special token. Raises
    ``ValueError`` for a concept whose name has no token.
    """
    tokens = [concept_tokens(encode, vocabulary, concept) for concept in concepts]
    flat = np.array([token for first in tokens for token in first], dtype=np.int64)
    owner = np.repeat(np.arange(len(concepts)), [len(first) for first in tokens])
    unit_rows = _unit_length(rows_of(flat))
    directions = np.array(
        [unit_rows[owner == index].mean(axis=0) for index in range(len(concepts))]
    )  # [K, H]: the mean cosine is the product with the mean of the unit rows

    def cosines(ids: NDArray[np.int64]) -> Matrix:
        parts = [
            directions @ _unit_length(rows_of(ids[start : start + _TOKENS_AT_ONCE])).T
            for start in range(0, len(ids), _TOKENS_AT_ONCE)
        ]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(concepts), 0))

    of_token = cosines(trie.token_ids)  # [K, T]
    used = trie.step_token >= 0  # [1110, steps]
    of_step = np.where(used, of_token[:, trie.step_token], 0.0)  # [K, 1110, steps]
    names = tuple(concept.name for concept in concepts)
    return (
        _table(View.NUMBERS, NUMBERS, names, of_step.sum(axis=2) / used.sum(axis=1)),
        _table(View.VOCABULARY, tuple(vocabulary[token] for token in words), names, cosines(words)),
    )


def unembedding_records(
    tokens: Mapping[str, TokenIds], vocabulary: Sequence[str]
) -> tuple[ProbeRecord, ProbeRecord]:
    """How both tables were measured; ``tokens`` are each concept's ``concept_tokens``.

    Concepts that begin with one token cannot be told apart: the record shows the tokens.
    """
    settings = {
        "unit": shift_unit(Probe.UNEMBEDDING),
        "concept_tokens": {
            name: [vocabulary[token] for token in first] for name, first in tokens.items()
        },
    }
    description = (
        "cosine (not nats) of centred output embedding rows, concept's first tokens and unit's"
    )
    return (
        ProbeRecord(View.NUMBERS, Probe.UNEMBEDDING, description, settings),
        ProbeRecord(View.VOCABULARY, Probe.UNEMBEDDING, description, settings),
    )


def _unit_length(rows: Matrix) -> Matrix:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 0))


def _table(
    view: View, units: tuple[str, ...], names: tuple[str, ...], cosine: Matrix
) -> ProbeTable:
    unknown = np.full(cosine.shape, np.nan)
    return ProbeTable(
        view,
        Probe.UNEMBEDDING,
        units,
        names,
        cosine,
        unknown,
        np.full(len(units), np.nan),
        unknown,
    )
