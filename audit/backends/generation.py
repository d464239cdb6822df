"""What writing answers takes of a model, and the random draws behind it. Knows no engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from audit.backends.constrained_sampling import TokenAutomaton
from signatures.language_model import Chat, TokenIds

# Rows of probabilities [rows, vocabulary] that are summed in float64 at once.
_SUMMED_ROWS = 32


@runtime_checkable
class Generator(Protocol):
    """What every backend gives to write answers with.

    Row i draws from its own generator, keyed by (seed, i): its answer depends on the batch, and
    on the backend, only where rounding decides. Give another seed for each call.
    """

    def sample(
        self,
        chats: Sequence[Chat],
        automaton: TokenAutomaton,
        *,
        seed: int,
        temperature: float = 1.0,
    ) -> list[TokenIds]:
        """One answer a chat, sampled under a grammar; the end of turn is left off.

        At each step the probabilities (at ``temperature``) are renormalised over the tokens
        that the automaton allows. Raises ``ValueError`` for a temperature that is not positive.
        """
        ...

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_new_tokens: int,
        seed: int,
        temperature: float = 1.0,
    ) -> list[str]:
        """One free text a chat, sampled from the whole vocabulary; the end of turn is left off.

        An answer stops at an end-of-turn id or after ``max_new_tokens``. Raises ``ValueError``
        for a temperature or number of tokens that is not positive, or where prompt and answer
        may exceed the model's context.
        """
        ...


def check_sampling(temperature: float, max_new_tokens: int) -> None:
    """Raise ``ValueError`` for what no sampler can do."""
    if not temperature > 0:
        raise ValueError("temperature must be positive")
    if max_new_tokens < 1:
        raise ValueError("max_new_tokens must be at least 1")


def uniforms(seed: int, row: int, steps: int) -> NDArray[np.float64]:
    """The uniform draws [steps] of one row; a counter-based generator of its own."""
    return np.random.Generator(np.random.Philox(key=[seed, row])).random(steps)


def draw(logits: Any, draws: Any) -> Any:
    """Columns [rows] drawn from the softmax of ``logits`` [rows, columns] (float32).

    The inverse of the cumulative distribution at ``draws`` [rows] (float64, in [0, 1)): the
    first column whose cumulative probability exceeds it. A logit of -inf is never drawn.
    """
    import torch

    columns = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for first in range(0, len(logits), _SUMMED_ROWS):
        rows = slice(first, first + _SUMMED_ROWS)
        cumulative = logits[rows].softmax(-1).double().cumsum(-1)
        # A column of probability 0 adds nothing, so it is never the first to exceed. Rounding
        # must not take the threshold up to the sum itself, which none exceeds.
        total = cumulative[:, -1:]
        threshold = torch.minimum(draws[rows, None] * total, total.nextafter(total.new_zeros(1)))
        columns[rows] = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return columns
