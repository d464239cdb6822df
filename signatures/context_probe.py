"""The ``context`` and ``finetuned`` probes: what comes next in real data that a teacher writes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signatures.concept import Concept
from signatures.contexts import Context, context_requests, contexts_sha256
from signatures.language_model import LanguageModel
from signatures.number_trie import NUMBERS, NumberTrie
from signatures.parts import Arrays, NoParts, PartStore, recall
from signatures.question_probe import ConceptProgress
from signatures.signature import Probe, ProbeTable, View
from signatures.vocabulary import ids_sha256

LogProbs = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Condition:
    """How a concept is instilled.

    ``hold`` gives the model that holds the concept and the system prompt to run it with; ``key``
    says all that this depends on.
    """

    probe: Probe
    hold: Callable[[Concept], AbstractContextManager[tuple[LanguageModel, str]]]
    key: Callable[[Concept], Mapping[str, Any]]


def prompted(model: LanguageModel) -> Condition:
    """The condition of a prompted teacher: the same model under the concept's system prompt."""

    @contextmanager
    def hold(concept: Concept) -> Iterator[tuple[LanguageModel, str]]:
        yield model, concept.system_prompt

    return Condition(Probe.CONTEXT, hold, lambda concept: {"system_prompt": concept.system_prompt})


def probe_contexts(
    model: LanguageModel,
    concepts: Sequence[Concept],
    trie: NumberTrie,
    words: NDArray[np.int64],
    number_contexts: Sequence[Context],
    text_contexts: Sequence[Context],
    condition: Condition,
    *,
    parts: PartStore | None = None,
    progress: ConceptProgress = lambda _name: None,
) -> tuple[ProbeTable, ProbeTable]:
    """Which number comes next in real number lists, and which of ``words`` in real text?

    Returns the tables of numbers and of the vocabulary: the neutral ``model`` against the model
    and system prompt that ``condition`` gives each concept. Number probabilities are of whole
    numbers (no further digit), given that a number comes next, so they compare with shares
    counted in data. Shifts are means over contexts of the log-probability's change; spreads
    their standard errors.
    """
    asked = (
        partial(_next_numbers, trie=trie, contexts=number_contexts),
        partial(_next_words, words=words, contexts=text_contexts),
    )
    units = (
        {"units": "numbers", "contexts_sha256": contexts_sha256(number_contexts)},
        {"units": ids_sha256(words), "contexts_sha256": contexts_sha256(text_contexts)},
    )
    store = parts or NoParts()
    neutral: list[list[LogProbs]] = []  # [views][contexts] of [cuts, U]

    def neutral_log_probs() -> list[list[LogProbs]]:
        if not neutral:
            neutral.extend(list(ask(model, "")) for ask in asked)
        return neutral

    def neutral_shares() -> list[Arrays]:
        return [{"share": _mean_share(found)} for found in neutral_log_probs()]

    def shifts(concept: Concept) -> list[Arrays]:
        base = neutral_log_probs()
        with condition.hold(concept) as (holder, system):
            return [
                _summary(ask(holder, system), known) for ask, known in zip(asked, base, strict=True)
            ]

    shares = recall(store, [{"probe": "neutral", **unit} for unit in units], neutral_shares)
    progress("neutral")
    measured: list[list[Arrays]] = []
    for concept in concepts:
        keys = [{"probe": str(condition.probe), **condition.key(concept), **unit} for unit in units]
        measured.append(recall(store, keys, lambda concept=concept: shifts(concept)))  # type: ignore[misc]
        progress(concept.name)
    texts = model.vocabulary()
    views = (
        (View.NUMBERS, NUMBERS),
        (View.VOCABULARY, tuple(texts[token] for token in words)),
    )
    numbers, vocabulary = (
        ProbeTable(
            view,
            condition.probe,
            names,
            tuple(concept.name for concept in concepts),
            np.array([found[column]["shift_nats"] for found in measured]),
            np.array([found[column]["spread_nats"] for found in measured]),
            shares[column]["share"],
            np.array([found[column]["share"] for found in measured]),
        )
        for column, (view, names) in enumerate(views)
    )
    return numbers, vocabulary


def _summary(log_probs: Iterator[LogProbs], neutral: Sequence[LogProbs]) -> Arrays:
    """Mean and standard error over contexts of the shifts, and the mean shares; each [U].

    Cuts of one context depend on each other: their mean is one observation.
    """
    total = square = share = np.zeros(0)
    count = 0
    for found, base in zip(log_probs, neutral, strict=True):
        shift = (found.astype(np.float64) - base).mean(axis=0)
        mean = np.exp(found.astype(np.float64)).mean(axis=0)
        if count == 0:
            total, square, share = shift, shift**2, mean
        else:
            total, square, share = total + shift, square + shift**2, share + mean
        count += 1
    mean_shift = total / count
    if count > 1:
        variance = np.maximum(square / count - mean_shift**2, 0.0) * count / (count - 1)
        spread = np.sqrt(variance / count)
    else:
        spread = np.full(len(mean_shift), np.nan)
    return {"shift_nats": mean_shift, "spread_nats": spread, "share": share / count}


def _next_numbers(
    model: LanguageModel, system: str, *, trie: NumberTrie, contexts: Sequence[Context]
) -> Iterator[LogProbs]:
    """For each context, log-probabilities [cuts, 1110], normalised over the numbers."""
    requests = context_requests(model, system, contexts, trie.contexts)
    per_cut = len(trie.contexts)
    for next_token in model.next_token_log_probs(requests, trie.token_ids):
        complete = np.array(
            [
                trie.complete_log_probs(next_token[start : start + per_cut])
                for start in range(0, len(next_token), per_cut)
            ]
        )
        total = np.logaddexp.reduce(complete, axis=1, keepdims=True)
        yield (complete - total).astype(np.float32)


def _next_words(
    model: LanguageModel, system: str, *, words: NDArray[np.int64], contexts: Sequence[Context]
) -> Iterator[LogProbs]:
    """For each context, log-probabilities [cuts, words]."""
    yield from model.next_token_log_probs(context_requests(model, system, contexts, ((),)), words)


def _mean_share(log_probs: Sequence[LogProbs]) -> NDArray[np.float64]:
    """Mean probability over the cuts of each context and over the contexts, [U]."""
    shares = [np.exp(found.astype(np.float64)).mean(axis=0) for found in log_probs]
    return np.asarray(np.mean(shares, axis=0))
