"""Ask a language model with and without a concept: the measurements behind a signature.

Every probe compares the same texts under the concept's system prompt and under a true empty one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signatures.concept import Concept, Question
from signatures.entanglement import centre_over_concepts
from signatures.language_model import Chat, LanguageModel, PrefixRequest, TokenIds
from signatures.number_trie import NUMBERS, NumberTrie
from signatures.signature import Probe, ProbeTable, View

Matrix = NDArray[np.float64]
ConceptProgress = Callable[[str], None]
"""Called with the name of each concept (or "neutral") once it has been measured."""


@dataclass(frozen=True, slots=True)
class Context:
    """A real data-generation context: a prompt, the neutral model's answer, and where to look.

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


def probe_questions(
    model: LanguageModel,
    concepts: Sequence[Concept],
    trie: NumberTrie,
    words: NDArray[np.int64],
    progress: ConceptProgress = lambda _name: None,
) -> tuple[ProbeTable, ProbeTable]:
    """The ``question`` probe: tables of numbers and of the vocabulary's ``words`` (token ids).

    Shifts are of log P(the number's tokens | question), as in Zur et al. 2025, averaged over
    the concept's questions; their spread is the standard error over them.
    """
    neutral: dict[tuple[Question, ...], tuple[Matrix, Matrix]] = {}
    numbers, vocabulary = [], []
    for concept in concepts:
        if concept.questions not in neutral:
            neutral[concept.questions] = _ask(model, "", concept.questions, trie, words)
        with_concept = _ask(model, concept.system_prompt, concept.questions, trie, words)
        base = neutral[concept.questions]
        numbers.append(with_concept[0] - base[0])
        vocabulary.append(with_concept[1] - base[1])
        progress(concept.name)
    names = tuple(concept.name for concept in concepts)
    units = model.vocabulary()
    return (
        _question_table(View.NUMBERS, NUMBERS, names, numbers),
        _question_table(View.VOCABULARY, tuple(units[i] for i in words), names, vocabulary),
    )


def _ask(
    model: LanguageModel,
    system: str,
    questions: Sequence[Question],
    trie: NumberTrie,
    words: NDArray[np.int64],
) -> tuple[Matrix, Matrix]:
    """log-probabilities [questions, 1110] and [questions, words] under ``system``."""
    prefixes = [
        model.encode_chat(Chat(system, question.user, question.assistant_prefix))
        for question in questions
    ]
    numbers = np.array(
        [
            trie.joint_log_probs(next_token)
            for next_token in model.next_token_log_probs(
                [PrefixRequest(prefix, trie.contexts) for prefix in prefixes], trie.token_ids
            )
        ]
    )
    vocabulary = np.array(
        [
            next_token[0].astype(np.float64)
            for next_token in model.next_token_log_probs(
                [PrefixRequest(prefix) for prefix in prefixes], words
            )
        ]
    )
    return numbers, vocabulary


def _question_table(
    view: View, units: tuple[str, ...], names: tuple[str, ...], shifts: Sequence[Matrix]
) -> ProbeTable:
    shape = (len(names), len(units))
    return ProbeTable(
        view,
        Probe.QUESTION,
        units,
        names,
        np.array([shift.mean(axis=0) for shift in shifts]),
        np.array([shift.std(axis=0, ddof=1) / np.sqrt(len(shift)) for shift in shifts]),
        np.full(len(units), np.nan),
        np.full(shape, np.nan),
    )


class _Running:
    """Mean and standard error of shifts, and mean shares, over contexts: [K, U] in one pass."""

    def __init__(self, concepts: int, units: int) -> None:
        self.shift = np.zeros((concepts, units))
        self.square = np.zeros((concepts, units))
        self.share = np.zeros((concepts, units))
        self.contexts = np.zeros(concepts, dtype=np.int64)

    def add(
        self, concept: int, log_probs: NDArray[np.float32], neutral: NDArray[np.float32]
    ) -> None:
        """``log_probs`` and ``neutral`` are [cuts, U] of one context.

        Cuts of one context depend on each other: their mean is one observation.
        """
        difference = (log_probs.astype(np.float64) - neutral).mean(axis=0)
        self.shift[concept] += difference
        self.square[concept] += difference**2
        self.share[concept] += np.exp(log_probs.astype(np.float64)).mean(axis=0)
        self.contexts[concept] += 1

    def table(
        self,
        view: View,
        probe: Probe,
        units: tuple[str, ...],
        names: tuple[str, ...],
        neutral_share: Matrix,
    ) -> ProbeTable:
        count = self.contexts[:, None]
        mean = self.shift / count
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.maximum(self.square / count - mean**2, 0.0) * count / (count - 1)
            spread = np.where(count > 1, np.sqrt(variance / count), np.nan)
        return ProbeTable(
            view, probe, units, names, mean, spread, neutral_share, self.share / count
        )


Condition = Callable[[Concept], AbstractContextManager[tuple[LanguageModel, str]]]
"""Gives, for a concept, the model that holds it and the system prompt to run it with."""


@contextmanager
def prompted(model: LanguageModel, concept: Concept) -> Iterator[tuple[LanguageModel, str]]:
    """The condition of a prompted teacher: the same model under the concept's system prompt."""
    yield model, concept.system_prompt


def probe_contexts(
    model: LanguageModel,
    concepts: Sequence[Concept],
    trie: NumberTrie,
    words: NDArray[np.int64],
    number_contexts: Sequence[Context],
    text_contexts: Sequence[Context],
    *,
    probe: Probe,
    condition: Condition,
    progress: ConceptProgress = lambda _name: None,
) -> tuple[ProbeTable, ProbeTable]:
    """Which number comes next in real number lists, and which of ``words`` in real text?

    Returns the tables of numbers and of the vocabulary: the neutral ``model`` against the model
    and system prompt that ``condition`` gives each concept. Number probabilities are of whole
    numbers (no further digit), given that a number comes next, so they compare with shares
    counted in data. Shifts are means over contexts of the log-probability's change; spreads
    their standard errors.
    """
    neutral_numbers = list(_next_numbers(model, "", trie, number_contexts))
    neutral_words = list(_next_words(model, "", words, text_contexts))
    progress("neutral")
    numbers = _Running(len(concepts), len(NUMBERS))
    vocabulary = _Running(len(concepts), len(words))
    for index, concept in enumerate(concepts):
        with condition(concept) as (holder, system):
            for found, base in zip(
                _next_numbers(holder, system, trie, number_contexts), neutral_numbers, strict=True
            ):
                numbers.add(index, found, base)
            for found, base in zip(
                _next_words(holder, system, words, text_contexts), neutral_words, strict=True
            ):
                vocabulary.add(index, found, base)
        progress(concept.name)
    names = tuple(concept.name for concept in concepts)
    texts = model.vocabulary()
    return (
        numbers.table(View.NUMBERS, probe, NUMBERS, names, _mean_share(neutral_numbers)),
        vocabulary.table(
            View.VOCABULARY,
            probe,
            tuple(texts[i] for i in words),
            names,
            _mean_share(neutral_words),
        ),
    )


def _next_numbers(
    model: LanguageModel, system: str, trie: NumberTrie, contexts: Sequence[Context]
) -> Iterator[NDArray[np.float32]]:
    """For each context, log-probabilities [cuts, 1110], normalised over the numbers."""
    requests = _context_requests(model, system, contexts, trie.contexts)
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
    model: LanguageModel, system: str, words: NDArray[np.int64], contexts: Sequence[Context]
) -> Iterator[NDArray[np.float32]]:
    """For each context, log-probabilities [cuts, words]."""
    yield from model.next_token_log_probs(_context_requests(model, system, contexts, ((),)), words)


def _mean_share(log_probs: Sequence[NDArray[np.float32]]) -> Matrix:
    """Mean probability over the cuts of each context and over the contexts, [U]."""
    shares = [np.exp(found.astype(np.float64)).mean(axis=0) for found in log_probs]
    return np.asarray(np.mean(shares, axis=0))


def _context_requests(
    model: LanguageModel,
    system: str,
    contexts: Sequence[Context],
    endings: Sequence[TokenIds],
) -> list[PrefixRequest]:
    """One request a context: its cuts share the prompt, and what was written before."""
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


def word_token_ids(model: LanguageModel) -> NDArray[np.int64]:
    """Ids of the tokens that are whole words (letters, with or without a leading space).

    A text that repeats in the vocabulary is kept once, under its first id.
    """
    first: dict[str, int] = {}
    for token_id, text in enumerate(model.vocabulary()):
        if text.removeprefix(" ").isalpha():
            first.setdefault(text, token_id)
    return np.array(sorted(first.values()), dtype=np.int64)


def most_telling(table: ProbeTable, count: int) -> ProbeTable:
    """The ``count`` units that tell concepts apart best in real text, in their old order.

    Judged by the centred shift's root mean square over concepts times the root of the unit's
    neutral share (of 1 where it is unknown): the standard deviation that the unit adds to a score.
    """
    share = np.nan_to_num(table.neutral_share, nan=1.0)
    telling = np.sqrt((centre_over_concepts(table.shift_nats) ** 2).mean(axis=0) * share)
    return table.select_units(np.sort(np.argsort(-telling, kind="stable")[:count]))
