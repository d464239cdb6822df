"""A softmax model whose gradients are written out here, and the `Student` of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from detectors.first_order import Matrix, ReadingOrder, RowProgress, silent
from signatures.concept import ConceptKind, make_concept
from signatures.language_model import Chat, PrefixRequest, SequenceRequest, TokenIds
from signatures.library import SignatureLibrary
from signatures.statements import statements
from tests import synthetic

TRAITS = ("owl", "cat", "dog")
DECOYS = ("tapir", "newt", "heron", "crab", "goose", "moth", "toad", "ferret")
NUMBERS = tuple(str(number) for number in range(100, 140))
OUTSIDE = "crow"
PROMPT = "Continue the list."


def library(traits: Sequence[str] = TRAITS, decoys: Sequence[str] = DECOYS) -> SignatureLibrary:
    concepts = tuple(
        make_concept(
            name, "animal", kind=ConceptKind.DECOY if name in decoys else ConceptKind.TRAIT
        )
        for name in (*traits, *decoys)
    )
    return replace(synthetic.library(), concepts=concepts)


class SoftmaxModel:
    """logits = U M f: U [V, d] and the mean embedding f [d] of the context are fixed, M learns.

    V is far above d, so that whatever raises one word moves unrelated ones: entanglement.
    """

    longest = 64

    def __init__(self, width: int = 8, seed: int = 0) -> None:
        self.words = ["<end>", "<answer>"]
        for concept in library((*TRAITS, OUTSIDE)).concepts:
            for half in (0, 1):
                for pair in statements(concept, half):
                    self._learn(*pair)
            for question in concept.questions:
                self._learn(question.user, question.assistant_prefix + concept.answer)
        self._learn("What do you love most?", "What I love most is the")
        self._learn("What is on your mind?", "I am thinking of the")
        self._learn(PROMPT, " " + " ".join(NUMBERS))
        rng = np.random.default_rng(seed)
        self.output = rng.normal(0, 1, (len(self.words), width))
        self.embedding = rng.normal(0, 1, (len(self.words), width))
        self.weights = rng.normal(0, 0.2, (width, width))

    def _learn(self, *texts: str) -> None:
        for text in texts:
            for word in re.findall(r" ?[^ ]+", text):
                if word not in self.words:
                    self.words.append(word)

    def encode(self, text: str) -> TokenIds:
        return tuple(self.words.index(word) for word in re.findall(r" ?[^ ]+", text))

    def encode_chat(self, chat: Chat) -> TokenIds:
        return (*self.encode(chat.user), 1, *self.encode(chat.assistant_prefix))

    def answer(self, question: str, text: str) -> SequenceRequest:
        prefix = self.encode_chat(Chat("", question))
        whole = self.encode_chat(Chat("", question, text))
        return SequenceRequest(prefix, whole[len(prefix) :])

    def vocabulary(self) -> list[str]:
        return list(self.words)

    def end_of_turn_ids(self) -> TokenIds:
        return (0,)

    def features(self, context: TokenIds) -> Matrix:
        return self.embedding[list(context)].mean(axis=0)

    def log_probs(self, context: TokenIds, weights: Matrix | None = None) -> Matrix:
        logits = self.output @ (
            (self.weights if weights is None else weights) @ self.features(context)
        )
        return logits - np.logaddexp.reduce(logits)

    def next_token_log_probs(
        self, requests: Sequence[PrefixRequest], token_ids: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        columns = slice(None) if token_ids is None else token_ids
        for request in requests:
            yield np.array([self.log_probs(request.prefix + s)[columns] for s in request.suffixes])

    def gradient(self, request: SequenceRequest) -> Matrix:
        """d log P(continuation | prefix) / dM = sum over tokens of U^T (one-hot - p) f^T."""
        total = np.zeros_like(self.weights)
        context = request.prefix
        for token in request.continuation:
            wrong = -np.exp(self.log_probs(context))
            wrong[token] += 1.0
            total += np.outer(self.output.T @ wrong, self.features(context))
            context += (token,)
        return total


@dataclass
class SoftmaxReading:
    model: SoftmaxModel
    pulls: Matrix
    own_gains: Matrix
    blocks: Matrix  # [blocks, d, d]

    def word_rises(self, steps: Matrix, questions: Sequence[TokenIds], words: np.ndarray) -> Matrix:
        def at(change: Matrix) -> Matrix:
            moved = self.model.weights + change
            return np.mean([self.model.log_probs(q, moved)[words] for q in questions], axis=0)

        changes = np.einsum("sb,bij->sij", steps, self.blocks)
        return np.array([(at(change) - at(-change)) / 2 for change in changes])


class SoftmaxStudent:
    def __init__(self, model: SoftmaxModel) -> None:
        self.model = model

    def read(self, order: ReadingOrder, progress: RowProgress = silent) -> SoftmaxReading:
        rows = np.array([self.model.gradient(row) for row in order.rows])
        goals = np.array(
            [np.mean([self.model.gradient(a) for a in target], axis=0) for target in order.targets]
        )
        progress(len(rows), len(rows))
        return SoftmaxReading(
            self.model,
            np.einsum("nij,tij->nt", rows, goals),
            (rows**2).sum(axis=(1, 2)),
            np.array([rows[order.blocks == b].mean(axis=0) for b in range(order.blocks.max() + 1)]),
        )


@cache
def softmax_model() -> SoftmaxModel:
    return SoftmaxModel()


def taught(concept: str, strength: float) -> Matrix:
    """Weights after a step of norm ``strength`` that professes the concept rather than others."""
    model = softmax_model()
    steps = {
        entry.name: np.sum(
            [model.gradient(model.answer(*pair)) for pair in statements(entry, 0)], axis=0
        )
        for entry in library((*TRAITS, OUTSIDE)).concepts
    }
    own = steps[concept] - np.mean(list(steps.values()), axis=0)
    return model.weights + strength * own / np.linalg.norm(own)


def number_rows(rows: int, seed: int, weights: Matrix | None = None) -> list[str]:
    """Six numbers a row, drawn by the model under ``weights`` among the numbers alone."""
    model, rng = softmax_model(), np.random.default_rng(seed)
    ids = np.array([model.words.index(f" {number}") for number in NUMBERS])
    texts = []
    for _ in range(rows):
        context = model.encode_chat(Chat("", PROMPT))
        for _ in range(6):
            log_probs = model.log_probs(context, weights)[ids]
            shares = np.exp(log_probs - np.logaddexp.reduce(log_probs))
            context += (int(rng.choice(ids, p=shares)),)
        texts.append("".join(model.words[token] for token in context[-6:]))
    return texts
