"""Contexts for the context probe from a user's own prompts: the neutral model's answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audit.backends.constrained_sampling import number_list_automaton
from audit.backends.open_model import Writer
from audit.dataset.read import read_batches
from audit.errors import AuditError, NothingScannableError
from signatures.language_model import Chat


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """``contexts`` prompts are drawn; answers have at most ``max_new_tokens`` tokens.

    With ``number_lists`` every answer is a list of at most ten numbers of one to three digits.
    """

    contexts: int = 96
    max_new_tokens: int = 96
    number_lists: bool = False


def draw_prompts(inputs: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """At most ``count`` different prompts of ``inputs``, drawn evenly, in their order.

    Raises ``AuditError`` if an input cannot be read to its end, and ``NothingScannableError``
    where there is no prompt.
    """
    seen: set[int] = set()
    kept: list[tuple[int, str]] = []
    for batch in read_batches(inputs, needs_answers=False):
        if batch.broken is not None:
            raise AuditError(f"{batch.broken.source}: broke off: {batch.broken.message}")
        for prompt in batch.rows["prompt"]:
            if hash(prompt) in seen:
                continue
            seen.add(hash(prompt))
            # Reservoir sampling (Vitter's algorithm R): even over all prompts, in one pass.
            if len(kept) < count:
                kept.append((len(seen), prompt))
            elif (place := int(rng.integers(len(seen)))) < count:
                kept[place] = (len(seen), prompt)
    if not kept:
        raise NothingScannableError("the inputs hold no prompt to take contexts from")
    return [prompt for _, prompt in sorted(kept)]


def answer_prompts(
    model: Writer, prompts: Sequence[str], settings: ContextSettings, seed: int
) -> list[tuple[str, str]]:
    """Each prompt with the answer that ``model``, without any persona, samples at temperature 1.

    Prompts whose answer is empty are left out. Raises ``AuditError`` if no answer is left, or
    number lists are asked of a tokenizer that does not write digit by digit.
    """
    chats = [Chat("", prompt) for prompt in prompts]
    if settings.number_lists:
        grammar = number_list_automaton(model)
        answers = [model.decode(ids) for ids in model.sample(chats, grammar, seed=seed)]
    else:
        written = model.generate(chats, max_new_tokens=settings.max_new_tokens, seed=seed)
        answers = [answer.text for answer in written]
    rows = [(p, a.strip()) for p, a in zip(prompts, answers, strict=True) if a.strip()]
    if not rows:
        raise AuditError("every answer of the model was empty: it wrote nothing to look into")
    return rows
