"""Cuts: which tokens are too improbable to be drawn. The rule alone; `generation` draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CutKind = Literal["threshold", "top-p", "min-p", "greedy"]


@dataclass(frozen=True, slots=True)
class TokenCut:
    """A cut of the next token's distribution, before one is drawn from the rest.

    - ``threshold``: every token whose absolute probability is below ``value``, in [0, 1], is
      barred; the most probable one stays, also where it is itself below (Zur et al. 2025). 0 bars
      nothing.
    - ``top-p``: only the smallest set of most probable tokens stays whose probabilities reach
      ``value``, in (0, 1], together (Holtzman et al. 2020).
    - ``min-p``: every token less probable than ``value``, in [0, 1], times the most probable one
      is barred (Nguyen et al. 2024).
    - ``greedy``: only the most probable token stays; ``value`` has no meaning and is 0.

    Of tokens that are equally probable, the first one counts as the more probable. Raises
    ``ValueError`` for another kind or value.
    """

    kind: CutKind
    value: float = 0.0

    def __post_init__(self) -> None:
        """Check kind and value."""
        if self.kind not in ("threshold", "top-p", "min-p", "greedy"):
            raise ValueError(f"no cut is called {self.kind!r}")
        most = 0 if self.kind == "greedy" else 1
        if not 0 <= self.value <= most or (self.kind == "top-p" and self.value == 0):
            raise ValueError(f"{self.value} is no value for a {self.kind} cut")


def bar_tokens(logits: Any, cut: TokenCut) -> Any:
    """``logits`` [rows, columns] (float32, temperature applied) with -inf where ``cut`` bars.

    Probabilities are those of the softmax over the columns that are not -inf already: over the
    whole vocabulary, or renormalised over what a grammar allows. Otherwise a small model that
    seldom obeys "numbers only", and so gives each digit little of the whole, would have all of
    them barred but one.
    """
    import torch

    if cut.kind == "greedy":
        kept = torch.zeros_like(logits, dtype=torch.bool)
    elif cut.kind == "top-p":
        kept = _most_probable(logits.softmax(-1), cut.value)
    else:
        shares = logits.softmax(-1)
        least = cut.value
        if cut.kind == "min-p":
            least = shares.amax(-1, keepdim=True) * cut.value
        kept = shares >= least
    if cut.kind in ("greedy", "threshold"):
        kept.scatter_(-1, logits.argmax(-1, keepdim=True), True)  # the first one of equals
    return logits.masked_fill(~kept, -torch.inf)


def _most_probable(shares: Any, reached: float) -> Any:
    """Booleans [rows, columns]: the fewest of ``shares`` whose sum is at least ``reached``."""
    import torch

    if reached == 1:
        return torch.ones_like(shares, dtype=torch.bool)
    # Shares below (1 - reached) / columns are less than 1 - reached together: none of them is
    # needed, and sorting the others alone is far cheaper. Half of it: sums are rounded.
    needless = (1 - reached) / (2 * shares.shape[-1])
    count = int((shares >= needless).sum(-1).max())
    falling = shares.topk(count).values
    sums = falling.double().cumsum(-1)
    target = reached * shares.double().sum(-1, keepdim=True)
    needed = 1 + (sums[:, :-1] < target).sum(-1, keepdim=True)  # [rows, 1]
    edge = falling.gather(-1, needed - 1)
    above = shares > edge
    equal = shares == edge
    room = needed - above.sum(-1, keepdim=True)
    return above | (equal & (equal.cumsum(-1) <= room))
