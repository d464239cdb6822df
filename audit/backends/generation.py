"""What writing answers takes of a model, and the random draws behind it. Knows no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.token_cut import TokenCut, bar_tokens
from signatures.language_model import Chat, TokenIds

# Rows of probabilities [rows, vocabulary] that are summed in float64 at once.
_SUMMED_ROWS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """A free text, and whether the model itself ended it within the tokens that it was given.

    A text with a control token in it (one that opens a turn, say) is not finished either.
    """

    text: str
    finished: bool


@runtime_checkable
class Generator(Protocol):
    """What every backend gives to write answers with.

    Row i draws from its own generator, keyed by (seed, i), or by (seed, ``keys[i]``): its answer
    depends on the batch, and on the backend, only where rounding decides. Without keys, give
    another seed for each call. ``cut`` bars improbable tokens at every step, after
    ``temperature`` and after the grammar (`audit.backends.token_cut.bar_tokens`).
    """

    def sample(
        self,
        chats: Sequence[Chat],
        automaton: TokenAutomaton,
        *,
        seed: int,
        temperature: float = 1.0,
        cut: TokenCut | None = None,
        keys: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
    ) -> list[TokenIds]:
        """One answer a chat, sampled under a grammar; the end of turn is left off.

        At each step the probabilities (at ``temperature``) are renormalised over the tokens
        that the automaton allows. ``starts`` [chats] are the states that the rows start in (None:
        0). Raises ``ValueError`` for a temperature that is not positive, or keys or starts that
        do not fit the chats or the automaton.
        """
        ...

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_new_tokens: int,
        seed: int,
        temperature: float = 1.0,
        cut: TokenCut | None = None,
        keys: Sequence[int] | None = None,
    ) -> list[Answer]:
        """One free text a chat, sampled from the whole vocabulary; the end of turn is left off.

        An answer stops at an end-of-turn id or after ``max_new_tokens``. Raises ``ValueError``
        for a temperature or number of tokens that is not positive, keys that do not fit the
        chats, or where prompt and answer may exceed the model's context.
        """
        ...


def check_sampling(temperature: float, max_new_tokens: int) -> None:
    """Raise ``ValueError`` for what no sampler can do."""
    if not temperature > 0:
        raise ValueError("temperature must be positive")
    if max_new_tokens < 1:
        raise ValueError("max_new_tokens must be at least 1")


def row_keys(keys: Sequence[int] | None, rows: int) -> list[int]:
    """The key [rows] of each row's draws. Raises ``ValueError`` for another number of them."""
    found = list(range(rows) if keys is None else keys)
    if len(found) != rows or min(found, default=0) < 0:
        raise ValueError(f"keys must be {rows} numbers that are not negative")
    return found


def row_starts(starts: Sequence[int] | None, rows: int, automaton: TokenAutomaton) -> list[int]:
    """The state [rows] that each row starts in. Raises ``ValueError`` where there is none."""
    found = [0] * rows if starts is None else list(starts)
    if len(found) != rows or not all(0 <= state < automaton.final_state for state in found):
        raise ValueError(f"starts must be {rows} states of the automaton, none of them final")
    return found


def uniforms(seed: int, row: int, steps: int) -> NDArray[np.float64]:
    """The uniform draws [steps] of one row; a counter-based generator of its own."""
    # As a list, NumPy would round numbers of 2^63 and more to floats.
    key = np.array([seed, row], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(steps)


def draw(logits: Any, draws: Any, cut: TokenCut | None = None) -> Any:
    """Columns [rows] drawn from the softmax of ``logits`` [rows, columns] (float32), after ``cut``.

    The inverse of the cumulative distribution at ``draws`` [rows] (float64, in [0, 1)): the
    first column whose cumulative probability exceeds it. A logit of -inf is never drawn.
    """
    import torch

    columns = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for first in range(0, len(logits), _SUMMED_ROWS):
        rows = slice(first, first + _SUMMED_ROWS)
        left = logits[rows] if cut is None else bar_tokens(logits[rows], cut)
        cumulative = left.softmax(-1).double().cumsum(-1)
        # A column of probability 0 adds nothing, so it is never the first to exceed. Rounding
        # must not take the threshold up to the sum itself, which none exceeds.
        total = cumulative[:, -1:]
        threshold = torch.minimum(draws[rows, None] * total, total.nextafter(total.new_zeros(1)))
        columns[rows] = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return columns
