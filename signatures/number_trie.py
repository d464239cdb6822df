"""Which contexts and tokens give every number's exact joint probability, whatever the tokenizer.

The numbers are the 1,110 strings "0".."9", "00".."99", "000".."999" of Zur et al. 2025. A
tokenizer turns each into a path of tokens; the trie of the paths has 1 inner node for whole-number
tokens and 111 for digit tokens, where the plain loop runs 1,110 sequences.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from signatures.language_model import TokenIds
from signatures.path_trie import PathTrie, build_path_trie

NUMBERS: tuple[str, ...] = tuple(
    str(value).zfill(digits) for digits in (1, 2, 3) for value in range(10**digits)
)
"""Every number string, in the order of every numbers table: by length, then by value."""


class NumberTokens(enum.StrEnum):
    """How a tokenizer writes numbers: decides which part of a signature is token identity."""

    WHOLE = "whole"
    SPLIT = "split"


class NumberTrie(PathTrie):
    """The trie of all number strings under one tokenizer, in the order of ``NUMBERS``.

    Complete numbers (``complete_log_probs``) go on with no further digit; three-digit numbers
    count as complete, since no data here holds longer ones.
    """

    @property
    def number_tokens(self) -> NumberTokens:
        """``WHOLE`` if every number is one token."""
        return NumberTokens.WHOLE if len(self.contexts) == 1 else NumberTokens.SPLIT


def build_number_trie(encode: Callable[[str], TokenIds], anchor: str = ", ") -> NumberTrie:
    """The trie of ``NUMBERS`` as ``encode`` writes them right after ``anchor``.

    Raises ``ValueError`` if the tokenizer merges the anchor with a number: the number would then
    have no token path of its own.
    """
    start = encode(anchor)
    paths: list[TokenIds] = []
    for number in NUMBERS:
        ids = encode(anchor + number)
        if ids[: len(start)] != start or len(ids) == len(start):
            raise ValueError(
                f"the tokenizer merges {anchor!r} with {number!r}: choose another anchor"
            )
        paths.append(ids[len(start) :])
    trie = build_path_trie(paths)
    return NumberTrie(
        trie.contexts, trie.token_ids, trie.step_context, trie.step_token, trie.end_context
    )
