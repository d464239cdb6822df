"""How likely a model's answer names each concept of a category: exact, over all of its forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from signatures.concept import Concept, Question
from signatures.language_model import Chat, LanguageModel, PrefixRequest, TokenIds
from signatures.path_trie import PathTrie, build_path_trie


class CategoryAsker:
    """Asks one category's questions for all of its concepts at once."""

    def __init__(
        self, model: LanguageModel, members: Sequence[Concept], questions: Sequence[Question]
    ) -> None:
        """Raises ``ValueError`` if the tokenizer merges a name with the words before it."""
        self._model = model
        self._questions = questions
        self._tries: list[PathTrie] = []
        self._bounds: list[NDArray[np.int64]] = []
        for question in questions:
            paths = [_form_paths(model, concept, question) for concept in members]
            self._tries.append(build_path_trie([path for group in paths for path in group]))
            self._bounds.append(np.cumsum([0, *(len(group) for group in paths)]))
        self._token_ids = np.unique(np.concatenate([trie.token_ids for trie in self._tries]))

    def log_probs(self, systems: Sequence[str]) -> Iterator[NDArray[np.float64]]:
        """For each system prompt, log P(the answer names it), in nats [questions, members]."""
        requests = [
            PrefixRequest(
                self._model.encode_chat(Chat(system, question.user, question.assistant_prefix)),
                trie.contexts,
            )
            for system in systems
            for question, trie in zip(self._questions, self._tries, strict=True)
        ]
        answers = self._model.next_token_log_probs(requests, self._token_ids)
        for _ in systems:
            named = [
                _named(trie, next(answers)[:, np.searchsorted(self._token_ids, trie.token_ids)], at)
                for trie, at in zip(self._tries, self._bounds, strict=True)
            ]
            yield np.asarray(named)


def _form_paths(model: LanguageModel, concept: Concept, question: Question) -> list[TokenIds]:
    """Token paths of " form" after the answer's beginning: as given, and with capitals.

    A path that goes on from another is part of that one's event, and left out.
    """
    written = question.assistant_prefix
    start = model.encode(written)
    paths = set()
    for text in {concept.answer, *concept.forms, *(form.title() for form in concept.forms)}:
        ids = model.encode(f"{written} {text}")
        if ids[: len(start)] == start and len(ids) > len(start):
            paths.add(ids[len(start) :])
    if not paths:
        raise ValueError(
            f"concept {concept.name!r}: the tokenizer merges its name with the words before it"
        )
    return sorted(path for path in paths if not any(path[:n] in paths for n in range(1, len(path))))


def _named(
    trie: PathTrie, next_token: NDArray[np.float32], bounds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """log P of each concept's forms together: paths [bounds[i], bounds[i + 1]) are concept i's."""
    joint = trie.joint_log_probs(next_token)
    return np.array([np.logaddexp.reduce(joint[start:stop]) for start, stop in pairwise(bounds)])
