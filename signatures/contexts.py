"""Real contexts to look into: a prompt, the neutral model's answer, and where a unit comes next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signatures.language_model import Chat, LanguageModel, PrefixRequest, TokenIds


@dataclass(frozen=True, slots=True)
class Context:
    """A real data-generation context.

    ``cuts`` are numbers of characters of ``completion`` after which the next token is asked for.
    """

    prompt: str
    completion: str
    cuts: tuple[int, ...]


def contexts_sha256(contexts: Sequence[Context]) -> str:
    """A hash of all contexts, for provenance."""
    text = json.dumps([[c.prompt, c.completion, list(c.cuts)] for c in contexts])
    return hashlib.sha256(text.encode()).hexdigest()


def number_cuts(completion: str, separator: str, most: int) -> tuple[int, ...]:
    """The first ``most`` positions, evenly spread, at which a number of a list begins."""
    starts = [0]
    while (found := completion.find(separator, starts[-1])) >= 0:
        starts.append(found + len(separator))
    starts = [cut for cut in starts if cut < len(completion)]
    keep = np.unique(np.linspace(0, len(starts) - 1, min(most, len(starts))).astype(int))
    return tuple(starts[index] for index in keep)


def word_cuts(completion: str, most: int, rng: np.random.Generator) -> tuple[int, ...]:
    """At most ``most`` positions drawn from those where the next token begins a word."""
    ends = np.array([0, *(i for i, char in enumerate(completion) if char == " ")])
    chosen = rng.choice(ends, size=min(most, len(ends)), replace=False)
    return tuple(int(cut) for cut in np.sort(chosen))


def context_requests(
    model: LanguageModel,
    system: str,
    contexts: Sequence[Context],
    endings: Sequence[TokenIds],
) -> list[PrefixRequest]:
    """One request a context: its cuts share the prompt, and what was written before.

    Raises ``ValueError`` if the chat template changes the prompt when an answer follows it.
    """
    requests = []
    for context in contexts:
        prefix = model.encode_chat(Chat(system, context.prompt))
        suffixes: list[TokenIds] = []
        for cut in context.cuts:
            written = model.encode_chat(Chat(system, context.prompt, context.completion[:cut]))
            if written[: len(prefix)] != prefix:
                raise ValueError("the chat template changes the prompt when an answer follows it")
            suffixes.extend(written[len(prefix) :] + ending for ending in endings)
        requests.append(PrefixRequest(prefix, tuple(suffixes)))
    return requests
