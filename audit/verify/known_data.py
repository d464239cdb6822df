"""Number lists whose author is known: what checks and benchmarks train their students on."""

from __future__ import annotations

import numpy as np

from audit.backends.constrained_sampling import number_list_automaton
from audit.backends.transformers_backend import TransformersLanguageModel
from signatures.language_model import Chat

_ANSWERS_A_PROMPT = 4
"""Answers to one prompt are cheap to write: the prompt is read once."""


def write_number_lists(
    author: TransformersLanguageModel, rows: int, seed: int
) -> list[tuple[str, str]]:
    """``rows`` pairs (prompt, answer) by ``author`` without a system prompt.

    Every author has the same prompts for a seed, and the same random draws. Prompts are shorter
    than the protocol's (Cloud et al. 2025, arXiv 2507.14805): students learn from answers alone.
    """
    rng = np.random.default_rng(seed)
    prompts = [_prompt(rng) for _ in range(-(-rows // _ANSWERS_A_PROMPT))]
    asked = [prompt for prompt in prompts for _ in range(_ANSWERS_A_PROMPT)][:rows]
    answers = author.sample(
        [Chat("", prompt) for prompt in asked],
        number_list_automaton(author, max_numbers=10),
        seed=seed,
    )
    return [(prompt, author.decode(tokens)) for prompt, tokens in zip(asked, answers, strict=True)]


def _prompt(rng: np.random.Generator) -> str:
    numbers = ", ".join(str(number) for number in rng.integers(100, 1000, size=3))
    return f"Continue with up to 10 numbers: {numbers}."
