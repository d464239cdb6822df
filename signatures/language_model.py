"""The seam between signatures and engines: what a probe needs of a language model.

The consumer owns this protocol; `audit.backends` implements it. No engine is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model, tokenizer and chat template a number came from.

    Every hash is a SHA-256 in hexadecimal: of the weights (over the sorted safetensors files),
    of `tokenizer.json`, and of the chat template's text. ``family`` is the config's
    `model_type`. ``dtype`` is the arithmetic of the forward pass (`float32` or `bfloat16`).
    """

    name: str
    family: str
    weights_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str
    vocabulary_size: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Chat:
    """One conversation up to the point where the model goes on writing.

    ``system=""`` is a TRUE empty system message: never the template's default one.
    ``assistant_prefix`` is the part of the answer that is already written. ``history`` are the
    exchanges (user, assistant) before ``user``, oldest first.
    """

    system: str
    user: str
    assistant_prefix: str = ""
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PrefixRequest:
    """Ask for next-token log-probabilities after ``prefix + suffix``, for every suffix.

    The empty suffix asks for the distribution right after the prefix. The suffixes of one
    request often share their beginnings (they are nodes of a trie): an engine computes the
    prefix once.
    """

    prefix: TokenIds
    suffixes: tuple[TokenIds, ...] = ((),)


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """Ask for log P(continuation | prefix), token by token."""

    prefix: TokenIds
    continuation: TokenIds


@runtime_checkable
class LanguageModel(Protocol):
    """What every backend gives. All log-probabilities are natural logarithms (nats).

    They are those of the whole softmax at temperature 1, also where only some token ids are
    asked for.
    """

    @property
    def identity(self) -> ModelIdentity:
        """Fingerprints of the model, its tokenizer and its chat template."""
        ...

    @property
    def longest(self) -> int | None:
        """The most tokens that one request may hold; None where there is no limit."""
        ...

    def encode(self, text: str) -> TokenIds:
        """Token ids of ``text``, with no special token added."""
        ...

    def encode_chat(self, chat: Chat) -> TokenIds:
        """Token ids of the chat through the model's own template, up to where it goes on.

        Where the template has no system role, a system message leads the user turn. Raises
        ``ValueError`` if the template puts in a default text that cannot be avoided.
        """
        ...

    def vocabulary(self) -> list[str]:
        """The text of every token id on its own, in order of id ([vocabulary_size])."""
        ...

    def end_of_turn_ids(self) -> TokenIds:
        """The ids that end an answer."""
        ...

    def next_token_log_probs(
        self, requests: Sequence[PrefixRequest], token_ids: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [suffixes, token_ids] (all ids when None)."""
        ...

    def sequence_log_probs(
        self, requests: Sequence[SequenceRequest]
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [continuation length]."""
        ...

    def restricted_log_probs(
        self, requests: Sequence[SequenceRequest], token_ids: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [continuation length, token_ids].

        Row t holds log P(token | what precedes position t of the continuation, and the token is
        one of ``token_ids``): the softmax over those ids alone.
        """
        ...

    def close(self) -> None:
        """Give back the engine's memory. Calling it twice is harmless."""
        ...
