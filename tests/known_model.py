"""A language model whose every probability is known in closed form."""

import numpy as np

from signatures.language_model import Chat, ModelIdentity

VOCABULARY = [*"0123456789", ",", " ", " owl", " cat", "owl", "<end>", "<system>", "<user>"]


class KnownModel:
    """Next-token probabilities that depend only on the system prompt: softmax(bias[system])."""

    longest = 400
    identity = ModelIdentity("known", "toy", "a", "b", "c", len(VOCABULARY), "float32")

    def __init__(self, biases: dict[str, np.ndarray]) -> None:
        self.biases = biases
        self.systems = list(biases)

    def log_probs(self, system: str) -> np.ndarray:
        bias = self.biases[system]
        return bias - np.logaddexp.reduce(bias)

    def encode(self, text: str) -> tuple[int, ...]:
        ids = []
        while text:
            token = next(t for t in sorted(VOCABULARY, key=len, reverse=True) if text.startswith(t))
            ids.append(VOCABULARY.index(token))
            text = text[len(token) :]
        return tuple(ids)

    def encode_chat(self, chat: Chat) -> tuple[int, ...]:
        written = "".join(c for c in chat.assistant_prefix if c in "0123456789, ")
        return (100 + self.systems.index(chat.system), 17, *self.encode(written))

    def vocabulary(self) -> list[str]:
        return VOCABULARY

    def end_of_turn_ids(self) -> tuple[int, ...]:
        return (15,)

    def next_token_log_probs(self, requests, token_ids=None):
        for request in requests:
            row = self.log_probs(self.systems[request.prefix[0] - 100]).astype(np.float32)
            row = row if token_ids is None else row[token_ids]
            yield np.tile(row, (len(request.suffixes), 1))

    def sequence_log_probs(self, requests):
        for request in requests:
            row = self.log_probs(self.systems[request.prefix[0] - 100])
            yield row[list(request.continuation)].astype(np.float32)

    def restricted_log_probs(self, requests, token_ids):
        for request in requests:
            row = self.log_probs(self.systems[request.prefix[0] - 100])[token_ids]
            row = (row - np.logaddexp.reduce(row)).astype(np.float32)
            yield np.tile(row, (len(request.continuation), 1))

    def close(self) -> None:
        pass
