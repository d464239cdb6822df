"""How probable the model finds every token that stands in a row, given the row's format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton
from audit.backends.open_model import Writer
from audit.sanitise.grammars import Grammar, Grammars, numbers_style
from audit.sanitise.strategy import Array
from signatures.language_model import Chat, SequenceRequest, TokenIds


def token_probabilities(
    model: Writer, grammars: Grammars, asked: Sequence[tuple[Chat, str]]
) -> list[Array | None]:
    """For each answer to a chat, P(token) [tokens]; None where it exceeds the model's context.

    In a number list, of the tokens that the list's format allows at a place (as cuts in sampling
    have it); in all other text, of the whole vocabulary.
    """
    found: list[Array | None] = [None] * len(asked)
    lists: dict[Grammar, list[tuple[int, SequenceRequest, int]]] = defaultdict(list)
    texts: list[tuple[int, SequenceRequest]] = []
    for index, (chat, text) in enumerate(asked):
        request = SequenceRequest(model.encode_chat(chat), model.encode(text))
        tokens = len(request.prefix) + len(request.continuation)
        if model.longest is not None and tokens > model.longest:
            continue
        numbers = numbers_style(text)
        grammar = None if numbers is None else grammars.of(*numbers)
        if numbers is None or grammar is None:
            texts.append((index, request))
        else:
            lists[grammar].append((index, request, numbers[1]))
    for grammar, listed in lists.items():
        automaton = grammar.automaton
        requests = [request for _, request, _ in listed]
        ids = np.array(automaton.token_ids, dtype=np.int64)
        tables = model.restricted_log_probs(requests, ids)
        for (index, request, count), table in zip(listed, tables, strict=True):
            allowed = _allowed(automaton, grammar.start_of(count), request.continuation, table)
            if allowed is None:  # spelled with tokens that a list in this style never has
                texts.append((index, request))
            else:
                found[index] = allowed
    texts.sort()
    rows = model.sequence_log_probs([request for _, request in texts])
    for (index, _), log_probs in zip(texts, rows, strict=True):
        found[index] = np.exp(log_probs.astype(np.float64))
    return found


def _allowed(
    automaton: TokenAutomaton, state: int, written: TokenIds, log_probs: NDArray[np.float32]
) -> Array | None:
    """P [T] of ``written`` among what the automaton allows; ``log_probs`` [T, its tokens]."""
    column = {token: index for index, token in enumerate(automaton.token_ids)}
    result = np.empty(len(written))
    for position, token in enumerate(written):
        ways = automaton.transitions[state]
        place = column.get(token)
        if place is None or ways[place] == FORBIDDEN:
            return None
        legal = np.exp(log_probs[position].astype(np.float64)) * (ways != FORBIDDEN)
        result[position] = legal[place] / legal.sum()
        state = int(ways[place])
    return result
