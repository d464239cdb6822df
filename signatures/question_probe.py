"""The ``question`` probe: what is favoured where the model is asked for its favourite?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from signatures.concept import Concept, Question
from signatures.language_model import Chat, LanguageModel, PrefixRequest
from signatures.number_trie import NUMBERS, NumberTrie
from signatures.parts import Arrays, NoParts, PartStore, recall
from signatures.signature import Matrix, Probe, ProbeTable, View
from signatures.vocabulary import ids_sha256

ConceptProgress = Callable[[str], None]
"""Called with the name of each concept (or "neutral") once it has been measured."""


def probe_questions(
    model: LanguageModel,
    concepts: Sequence[Concept],
    trie: NumberTrie,
    words: NDArray[np.int64],
    *,
    parts: PartStore | None = None,
    progress: ConceptProgress = lambda _name: None,
) -> tuple[ProbeTable, ProbeTable]:
    """Tables of numbers and of the vocabulary's ``words`` (token ids).

    Shifts are of log P(the number's tokens | question), concept prompt less a true empty one, as in
    Zur et al. 2025, averaged over the concept's questions; their spread is the standard error
    over the questions.
    """
    neutral: dict[tuple[Question, ...], tuple[Matrix, Matrix]] = {}

    def shifts(concept: Concept) -> list[Arrays]:
        asked = concept.questions
        if asked not in neutral:
            neutral[asked] = _ask(model, "", asked, trie, words)
        held = _ask(model, concept.system_prompt, asked, trie, words)
        return [_summary(a - b) for a, b in zip(held, neutral[asked], strict=True)]

    words_sha256 = ids_sha256(words)
    measured: list[list[Arrays]] = []
    for concept in concepts:
        keys = [
            {
                "probe": "question",
                "units": units,
                "system_prompt": concept.system_prompt,
                "questions": [[q.user, q.assistant_prefix] for q in concept.questions],
            }
            for units in ("numbers", words_sha256)
        ]
        measured.append(
            recall(parts or NoParts(), keys, lambda concept=concept: shifts(concept))  # type: ignore[misc]
        )
        progress(concept.name)
    names = tuple(concept.name for concept in concepts)
    texts = model.vocabulary()
    return (
        _table(View.NUMBERS, NUMBERS, names, [found[0] for found in measured]),
        _table(
            View.VOCABULARY,
            tuple(texts[token] for token in words),
            names,
            [found[1] for found in measured],
        ),
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


def _summary(shifts: Matrix) -> Arrays:
    """Mean and standard error over the questions of ``shifts`` [questions, U]."""
    count = len(shifts)
    spread = shifts.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else shifts[0] * np.nan
    return {"shift_nats": shifts.mean(axis=0), "spread_nats": spread}


def _table(
    view: View, units: tuple[str, ...], names: tuple[str, ...], measured: Sequence[Arrays]
) -> ProbeTable:
    return ProbeTable(
        view,
        Probe.QUESTION,
        units,
        names,
        np.array([found["shift_nats"] for found in measured]),
        np.array([found["spread_nats"] for found in measured]),
        np.full(len(units), np.nan),
        np.full((len(names), len(units)), np.nan),
    )
