"""What no engine can be asked, checked before one runs. Knows no engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from signatures.language_model import PrefixRequest, SequenceRequest, TokenIds


def check_prefix_requests(
    requests: Sequence[PrefixRequest],
    token_ids: NDArray[np.int64] | None,
    *,
    vocabulary_size: int,
    longest: int | None,
) -> None:
    """Raise ``ValueError`` for an empty prefix, an unknown id, or more than ``longest`` tokens."""
    if token_ids is not None:
        _check_ids(token_ids, vocabulary_size)
    for request in requests:
        _check_prefix(request.prefix, vocabulary_size)
        most = max((len(suffix) for suffix in request.suffixes), default=0)
        check_length(len(request.prefix) + most, longest)
    # Requests of one job share their suffixes: each set is checked once.
    for suffixes in {request.suffixes for request in requests}:
        _check_ids([token for suffix in suffixes for token in suffix], vocabulary_size)


def check_sequence_requests(
    requests: Sequence[SequenceRequest], *, vocabulary_size: int, longest: int | None
) -> None:
    """Raise ``ValueError`` as `check_prefix_requests` does."""
    for request in requests:
        _check_prefix(request.prefix, vocabulary_size)
        _check_ids(request.continuation, vocabulary_size)
        check_length(len(request.prefix) + len(request.continuation), longest)


def check_choice(token_ids: NDArray[np.int64], vocabulary_size: int) -> NDArray[np.int64]:
    """The ids to choose among. Raises ``ValueError`` where one is unknown, twice there, or none."""
    ids = np.asarray(token_ids, dtype=np.int64)
    _check_ids(ids, vocabulary_size)
    if ids.size == 0 or len(np.unique(ids)) != ids.size:
        raise ValueError("token_ids must hold at least one id, and none twice")
    return ids


def _check_ids(ids: Sequence[int] | NDArray[np.int64], vocabulary_size: int) -> None:
    values = np.asarray(ids, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() >= vocabulary_size):
        raise ValueError("a token id lies outside the model's vocabulary")


def _check_prefix(prefix: TokenIds, vocabulary_size: int) -> None:
    if not prefix:
        raise ValueError("a prefix must hold at least one token")
    _check_ids(prefix, vocabulary_size)


def check_length(tokens: int, longest: int | None) -> None:
    """Raise ``ValueError`` for more than ``longest`` tokens."""
    if longest is not None and tokens > longest:
        raise ValueError(f"a request of {tokens} tokens exceeds {longest}")
