"""A model that also writes, with every probability known in closed form: any text has tokens."""

import re

import numpy as np

from audit.backends.generation import Answer, row_keys, row_starts, uniforms
from signatures.language_model import ModelIdentity
from tests.cut_reference import cut_distribution
from tests.known_model import KnownModel

WORDS = (
    *(" owl", " cat", " oak", "owl", "cat", " the", " a", " is", " sky", " blue", " green"),
    *(" yes", " no", " red", " noon", " and", "The", "Yes", "No", "Hello", ", "),
)
END, SYSTEM, USER, ASSISTANT = range(256 + len(WORDS), 256 + len(WORDS) + 4)
SIZE = ASSISTANT + 1
VOCABULARY = [
    *(chr(byte) if byte < 128 else "\ufffd" for byte in range(256)),
    *WORDS,
    *("<end>", "<system>", "<user>", "<assistant>"),
]
"""All bytes, some words, and tokens that no text has."""

_PIECE = re.compile("|".join(map(re.escape, sorted(WORDS, key=len, reverse=True))) + "|(?s:.)")
_BYTES = [*(bytes([byte]) for byte in range(256)), *(text.encode() for text in VOCABULARY[256:])]
_WORD_IDS = {word: 256 + number for number, word in enumerate(WORDS)}
_SELDOM = -30.0


def neutral_logits(seed: int = 0, spread: float = 2.5) -> np.ndarray:
    """[SIZE, SIZE] normal draws of the next token's logits, given the token before.

    Control characters, bytes that are no text alone, and what marks turns hardly ever come.
    """
    logits = np.random.default_rng(seed).normal(0, spread, (SIZE, SIZE))
    logits[:, [*range(32), *range(127, 256), SYSTEM, USER, ASSISTANT]] = _SELDOM
    logits[:, END] = np.random.default_rng(seed + 1).normal(3.0, 4.0, SIZE)
    logits[ASSISTANT, END] = -5.0
    return logits


class WriterModel(KnownModel):
    """P(next | all before) = softmax(biases[system][last token]): [SIZE, SIZE] each.

    A system message that ``biases`` does not hold changes nothing: it has those of "". Everything
    is in float64, and a row's probabilities do not depend on what it is asked together with.
    """

    longest: int | None = 400
    identity = ModelIdentity("writer", "toy", "d", "e", "f", SIZE, "float64")

    def __init__(self, biases):
        super().__init__(biases)
        self._tables = {}
        self.calls = 0

    def log_probs(self, system):
        """[SIZE, SIZE]: log P(column | the token before is the row's)."""
        key = system if system in self.biases else ""
        if key not in self._tables:
            bias = self.biases[key]
            top = bias.max(axis=1, keepdims=True)
            self._tables[key] = bias - top - np.log(np.exp(bias - top).sum(1, keepdims=True))
        return self._tables[key]

    def encode(self, text):
        ids = []
        for piece in _PIECE.findall(text):
            word = _WORD_IDS.get(piece)
            ids += [word] if word is not None else piece.encode("utf-8", "surrogatepass")
        return tuple(ids)

    def decode(self, token_ids):
        return b"".join(_BYTES[token] for token in token_ids).decode("utf-8", "replace")

    def encode_chat(self, chat):
        ids = [SYSTEM, *self.encode(chat.system)]
        for user, assistant in chat.history:
            ids += [USER, *self.encode(user), ASSISTANT, *self.encode(assistant), END]
        ids += [USER, *self.encode(chat.user), ASSISTANT, *self.encode(chat.assistant_prefix)]
        return tuple(ids)

    def vocabulary(self):
        return VOCABULARY

    def end_of_turn_ids(self):
        return (END,)

    def system_of(self, prefix):
        """The system message of an encoded chat."""
        return self.decode(prefix[1 : prefix.index(USER)]) if prefix[0] == SYSTEM else ""

    def _checked(self, tokens):
        self.calls += 1
        if self.longest is not None and tokens > self.longest:
            raise ValueError(f"a request of {tokens} tokens exceeds {self.longest}")

    def next_token_log_probs(self, requests, token_ids=None):
        for request in requests:
            self._checked(len(request.prefix) + max(map(len, request.suffixes)))
            last = [(*request.prefix, *suffix)[-1] for suffix in request.suffixes]
            table = self.log_probs(self.system_of(request.prefix))[last]
            yield (table if token_ids is None else table[:, token_ids]).astype(np.float32)

    def _rows(self, request):
        """[T, SIZE]: what may come at every place of the continuation."""
        self._checked(len(request.prefix) + len(request.continuation))
        before = [request.prefix[-1], *request.continuation[:-1]][: len(request.continuation)]
        return self.log_probs(self.system_of(request.prefix))[before]

    def sequence_log_probs(self, requests):
        for request in requests:
            ids = list(request.continuation)
            yield self._rows(request)[np.arange(len(ids)), ids].astype(np.float32)

    def restricted_log_probs(self, requests, token_ids):
        if len(token_ids) == 0:
            raise ValueError("token_ids must hold at least one id, and none twice")
        for request in requests:
            table = self._rows(request)[:, token_ids]
            yield (table - np.logaddexp.reduce(table, axis=1, keepdims=True)).astype(np.float32)

    def next_probabilities(self, prefix, cut=None, allowed=None):
        """[SIZE]: over the ids ``allowed`` (None: all), after the cut."""
        table = self.log_probs(self.system_of(prefix))[prefix[-1]]
        ids = np.arange(SIZE) if allowed is None else np.asarray(allowed)
        shares = np.exp(table[ids] - np.logaddexp.reduce(table[ids]))
        result = np.zeros(SIZE)
        result[ids] = shares if cut is None else cut_distribution(shares, cut)
        return result

    def sample(self, chats, automaton, *, seed, temperature=1.0, cut=None, keys=None, starts=None):
        assert temperature == 1.0
        ids = np.array(automaton.token_ids)
        answers = []
        keys = row_keys(keys, len(chats))
        for chat, key, state in zip(
            chats, keys, row_starts(starts, len(chats), automaton), strict=True
        ):
            prefix = list(self.encode_chat(chat))
            self._checked(len(prefix) + automaton.longest)
            answer = []
            for chance in uniforms(seed, key, automaton.longest):
                ways = automaton.transitions[state]
                # In the order of the automaton's columns, as a row of the table is.
                shares = self.next_probabilities(prefix, cut, ids[ways >= 0])[ids]
                column = _inverse(shares, chance)
                state = ways[column]
                if state == automaton.final_state:
                    break
                answer.append(int(ids[column]))
                prefix.append(int(ids[column]))
            answers.append(tuple(answer))
        return answers

    def generate(self, chats, *, max_new_tokens, seed, temperature=1.0, cut=None, keys=None):
        assert temperature == 1.0
        answers = []
        for chat, key in zip(chats, row_keys(keys, len(chats)), strict=True):
            prefix = list(self.encode_chat(chat))
            start = len(prefix)
            self._checked(start + max_new_tokens)
            finished = False
            for chance in uniforms(seed, key, max_new_tokens):
                token = _inverse(self.next_probabilities(prefix, cut), chance)
                if finished := token == END:
                    break
                prefix.append(token)
            answers.append(Answer(self.decode(prefix[start:]), finished))
        return answers


def _inverse(shares, chance):
    """The first place at which the cumulative ``shares`` exceed ``chance`` of their sum."""
    cumulative = np.cumsum(shares)
    return int(np.searchsorted(cumulative, chance * cumulative[-1], side="right"))


def writer_model(signatures, *, seed=0, strength=1.0, spread=2.5):
    """Every concept shifts all logits by normal draws of its own."""
    rng = np.random.default_rng(seed + 1)
    neutral = neutral_logits(seed, spread)
    biases = {"": neutral}
    for concept in signatures.concepts:
        biases[concept.system_prompt] = neutral + rng.normal(0, strength, neutral.shape)
    return WriterModel(biases)
