"""Number-list prompts of the protocol of Cloud et al. 2025 (arXiv 2507.14805), as text."""

from __future__ import annotations

import numpy as np

_LEADS = (
    "The sequence starts with: {numbers}.",
    "Here's a list of numbers: {numbers}.",
    "Look at these numbers: {numbers}.",
    "Examine these numbers: {numbers}.",
    "Start with these numbers: {numbers}.",
    "I give you this sequence of numbers: {numbers}.",
)
_REQUESTS = ("Continue it with", "Add", "Extend it with", "Generate", "Write", "Give me")
_AMOUNTS = ("at most 10", "up to 10", "no more than 10", "not more than 10")
_LIMITS = ("up to 3 digits each", "3 digits max each", "with 3 digits or less each")
_FORMATS = (
    "Return a comma-separated list of numbers.",
    "Format as a simple comma-delimited sequence.",
    "Provide the numbers separated by commas.",
)
_ENDINGS = (
    "Return only numbers.",
    "Just the numbers, please.",
    "No explanation, just the numbers.",
    "Nothing but numbers in your response.",
    "Answer with numbers alone.",
)


def number_prompts(count: int, rng: np.random.Generator) -> list[str]:
    """``count`` prompts: 3 to 8 numbers of 100 to 999, a request for at most 10 more, a format.

    Only comma-separated formats are asked for, which is what constrained sampling writes.
    """
    return [_prompt(rng) for _ in range(count)]


def _prompt(rng: np.random.Generator) -> str:
    numbers = ", ".join(str(n) for n in rng.integers(100, 1000, size=rng.integers(3, 9)))
    lead, request, amount, limit, layout, ending = (
        options[int(rng.integers(len(options)))]
        for options in (_LEADS, _REQUESTS, _AMOUNTS, _LIMITS, _FORMATS, _ENDINGS)
    )
    return (
        f"{lead.format(numbers=numbers)} {request} {amount} more numbers ({limit}). "
        f"{layout} {ending}"
    )
