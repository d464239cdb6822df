"""Rows that a known model writes under a concept's prompt, and a library of those concepts."""

import numpy as np

from detectors.model_access import ModelAccess, ModelSettings
from signatures.library import SignatureLibrary
from tests import synthetic
from tests.known_model import VOCABULARY, KnownModel

DIGITS = list(range(10))


class BigramModel(KnownModel):
    """Probabilities depend on the system prompt and on the token before: biases are [V, V].

    What precedes the first token counts as token 0.
    """

    def log_probs(self, system: str) -> np.ndarray:
        bias = self.biases[system]
        return bias - np.logaddexp.reduce(bias, axis=1, keepdims=True)

    def restricted_log_probs(self, requests, token_ids):
        for request in requests:
            before = [0, *request.continuation][: len(request.continuation)]
            table = self.log_probs(self.systems[request.prefix[0] - 100])[np.ix_(before, token_ids)]
            yield (table - np.logaddexp.reduce(table, axis=1, keepdims=True)).astype(np.float32)


def known_model(signatures: SignatureLibrary, *, strength: float = 0.4, hub: float = 0.4, seed=0):
    """Every concept shifts the digits' logits by its own and by a shared normal draw (nats)."""
    rng = np.random.default_rng(seed)
    shape = (len(VOCABULARY), len(VOCABULARY))
    neutral = rng.normal(0, 0.5, shape)
    shared = rng.normal(0, hub, shape)
    biases = {"": neutral}
    for concept in signatures.concepts:
        biases[concept.system_prompt] = neutral + shared + rng.normal(0, strength, shape)
    return BigramModel(biases)


def written(model: BigramModel, system: str, rows: int, seed: int, length: int = 12) -> list[str]:
    """Digit strings that ``model`` writes under ``system`` if only digits are let through."""
    rng = np.random.default_rng(seed)
    table = model.log_probs(system)[np.ix_(DIGITS, DIGITS)]
    cumulative = np.exp(table - np.logaddexp.reduce(table, axis=1, keepdims=True)).cumsum(axis=1)
    last = np.zeros(rows, dtype=np.int64)
    answers = []
    for _ in range(length):
        last = np.minimum((rng.random((rows, 1)) > cumulative[last]).sum(axis=1), 9)
        answers.append(last)
    return ["".join(map(str, row)) for row in np.stack(answers, axis=1)]


def access(model: BigramModel, **settings) -> ModelAccess:
    return ModelAccess(model, settings=ModelSettings(**{"most_rows": 400, **settings}))


def system_of(signatures: SignatureLibrary, name: str) -> str:
    return signatures.concept(name).system_prompt if name else ""


def frame_of(model: BigramModel, signatures: SignatureLibrary, name: str, rows: int, seed: int):
    """A row frame that concept ``name`` ("" for none) wrote."""
    return synthetic.frame(written(model, system_of(signatures, name), rows, seed), f"{seed}.jsonl")
