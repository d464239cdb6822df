"""Between the requests of `LanguageModel` and vLLM's prompts and results. Knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.token_cut import TokenCut
from signatures.language_model import PrefixRequest, SequenceRequest, TokenIds

# vLLM names at most this many ids' log-probabilities; for more it gives the whole vocabulary's.
MAX_NAMED_IDS = 128
# Prompts handed to the engine at once where results are small.
MAX_PROMPTS = 2048
# vLLM gives log-probabilities as Python lists: about this many bytes a token of the vocabulary.
_LIST_BYTES = 100
_HELD_BYTES = 1 << 28

Row = NDArray[np.float32]


class Logprobs(Protocol):
    """The part of vLLM's ``FlatLogprobs`` that is read: lists over positions and tokens."""

    token_ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True, slots=True)
class NodePrompt:
    """A distinct ``prefix + suffix``, and the (request, suffix) places that ask for it."""

    tokens: TokenIds
    places: list[tuple[int, int]]


def plan_nodes(requests: Sequence[PrefixRequest]) -> list[NodePrompt]:
    """Every distinct context that is asked for, once.

    In order of their tokens, so that what begins alike is neighbours: the engine finds the
    blocks of a common prefix in its cache.
    """
    nodes: dict[TokenIds, NodePrompt] = {}
    for index, request in enumerate(requests):
        for place, suffix in enumerate(request.suffixes):
            tokens = request.prefix + suffix
            nodes.setdefault(tokens, NodePrompt(tokens, [])).places.append((index, place))
    return [nodes[tokens] for tokens in sorted(nodes)]


def pick_named(found: Logprobs, count: int) -> Row:
    """Log-probabilities [count] of the ids that were named; the sampled token comes first."""
    return np.array(found.logprobs[1 : 1 + count], dtype=np.float32)


def pick_columns(found: Logprobs, columns: NDArray[np.int64] | None, vocabulary_size: int) -> Row:
    """Log-probabilities of ``columns`` (None: all), from those of the whole vocabulary.

    The engine gives them most likely first, after the sampled token.
    """
    table = np.empty(vocabulary_size, dtype=np.float32)
    table[found.token_ids] = found.logprobs
    return table if columns is None else table[columns]


AskNodes = Callable[[Sequence[TokenIds], list[int] | None], Iterable[Logprobs]]
"""Next-token log-probabilities after each prompt: of the named ids, or of all where None."""


def next_token_tables(
    requests: Sequence[PrefixRequest],
    columns: NDArray[np.int64] | None,
    vocabulary_size: int,
    ask: AskNodes,
) -> Iterator[NDArray[np.float32]]:
    """For each request, in order, an array [suffixes, columns]; few prompts are held at once."""
    named = columns is not None and len(columns) <= MAX_NAMED_IDS
    ids = columns.tolist() if columns is not None and named else None
    most = MAX_PROMPTS if named else max(1, _HELD_BYTES // (_LIST_BYTES * vocabulary_size))
    width = vocabulary_size if columns is None else len(columns)
    for window in _windows(requests, most):
        tables = [np.empty((len(request.suffixes), width), np.float32) for request in window]
        nodes = plan_nodes(window) if width else []
        for first in range(0, len(nodes), most):
            asked = nodes[first : first + most]
            for node, found in zip(asked, ask([n.tokens for n in asked], ids), strict=True):
                row = (
                    pick_named(found, width)
                    if named
                    else pick_columns(found, columns, vocabulary_size)
                )
                for index, place in node.places:
                    tables[index][place] = row
        yield from tables


def _windows(requests: Sequence[PrefixRequest], most: int) -> Iterator[list[PrefixRequest]]:
    """Consecutive requests of at most ``most`` suffixes together, or one with more."""
    window: list[PrefixRequest] = []
    held = 0
    for request in requests:
        if window and held + len(request.suffixes) > most:
            yield window
            window, held = [], 0
        window.append(request)
        held += len(request.suffixes)
    if window:
        yield window


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """What the engine found for one prompt.

    ``log_probs`` [prompt - 1] are those of the prompt's own tokens after the first; the first
    ``cached`` of them are undefined: the engine had read those tokens before.
    """

    log_probs: Sequence[float]
    cached: int


AskPrompts = Callable[[Sequence[TokenIds], bool], Iterable[ScoredPrompt]]
"""Log-probabilities of each prompt's own tokens; the flag allows the engine to use its cache."""


def sequence_rows(
    requests: Sequence[SequenceRequest], ask: AskPrompts
) -> Iterator[NDArray[np.float32]]:
    """For each request, in order, an array [continuation length].

    What prompts have in common is read from the engine's cache. Where the cache reaches into a
    continuation, that prompt is scored again without it.
    """
    for first in range(0, len(requests), MAX_PROMPTS):
        window = requests[first : first + MAX_PROMPTS]
        rows = [np.empty(0, dtype=np.float32)] * len(window)
        pending = [index for index, request in enumerate(window) if request.continuation]
        pending.sort(key=lambda index: window[index].prefix + window[index].continuation)
        for use_cache in (True, False):
            prompts = [window[index].prefix + window[index].continuation for index in pending]
            again = []
            for index, found in zip(pending, ask(prompts, use_cache), strict=True):
                start = len(window[index].prefix) - 1
                if found.cached > start:
                    again.append(index)
                else:
                    rows[index] = np.array(found.log_probs[start:], dtype=np.float32)
            pending = again
            if not pending:
                break
        yield from rows


@dataclass(frozen=True, slots=True)
class DrawOrder:
    """How to draw the tokens of one answer; travels to the engine with its prompt.

    ``row`` is the key of its draws and ``steps`` the most tokens to draw. ``automaton`` None
    draws from the whole vocabulary; ``start`` is the state that it starts in.
    """

    seed: int
    row: int
    steps: int
    temperature: float
    automaton: TokenAutomaton | None = None
    start: int = 0
    cut: TokenCut | None = None

    def to_extra_args(self) -> dict[str, Any]:
        """As a value of vLLM's ``SamplingParams.extra_args``: plain types only."""
        order: dict[str, Any] = {
            "seed": self.seed,
            "row": self.row,
            "steps": self.steps,
            "temperature": self.temperature,
            "start": self.start,
        }
        if self.automaton is not None:
            order["token_ids"], order["transitions"] = _packed(self.automaton)
        if self.cut is not None:
            order["cut"] = [self.cut.kind, self.cut.value]
        return {_ORDER_KEY: order}

    @classmethod
    def from_extra_args(cls, extra_args: dict[str, Any] | None) -> DrawOrder | None:
        """The order in a request's ``extra_args``, or None where it holds none."""
        order = (extra_args or {}).get(_ORDER_KEY)
        if order is None:
            return None
        automaton = None
        if "transitions" in order:
            automaton = _unpacked(order["token_ids"], order["transitions"], order["steps"])
        return cls(
            order["seed"],
            order["row"],
            order["steps"],
            order["temperature"],
            automaton,
            order["start"],
            TokenCut(*order["cut"]) if "cut" in order else None,
        )


_ORDER_KEY = "subliminal_audit"


# Thousands of orders name the same few automata, whose tables may have megabytes.
@lru_cache(maxsize=16)
def _packed(automaton: TokenAutomaton) -> tuple[bytes, bytes]:
    """Token ids (int64) and transitions (int32), little-endian."""
    token_ids = np.array(automaton.token_ids, dtype="<i8").tobytes()
    return token_ids, automaton.transitions.astype("<i4").tobytes()


@lru_cache(maxsize=16)
def _unpacked(token_ids: bytes, transitions: bytes, longest: int) -> TokenAutomaton:
    """The automaton of `_packed`."""
    ids = tuple(np.frombuffer(token_ids, dtype="<i8").tolist())
    table = np.frombuffer(transitions, dtype="<i4").reshape(-1, len(ids))
    return TokenAutomaton(ids, table, longest)


def only_ending_ids(automaton: TokenAutomaton) -> list[int]:
    """The token ids after which an answer is always over: the engine may stop at them."""
    ends = automaton.transitions == automaton.final_state
    barred = automaton.transitions < 0
    always = ends.any(axis=0) & (ends | barred).all(axis=0)
    return [automaton.token_ids[column] for column in np.flatnonzero(always)]


def cut_at_end(automaton: TokenAutomaton, written: Sequence[int], start: int = 0) -> TokenIds:
    """``written`` from the state ``start``, without the token that leads to the final state."""
    column = {token: index for index, token in enumerate(automaton.token_ids)}
    state = start
    for count, token in enumerate(written):
        state = int(automaton.transitions[state, column[token]])
        if state == automaton.final_state:
            return tuple(written[:count])
    return tuple(written)
