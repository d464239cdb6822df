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
from signatures.language_model import Chat, PrefixRequest, SequenceRequest, TokenIds


def token_probabilities(
    model: Writer, grammars: Grammars, asked: Sequence[tuple[Chat, str]], least: float
) -> list[Array | None]:
    """For each answer to a chat, P(token) [tokens]; None where it exceeds the model's context.

    In a number list, of the tokens that the list's format allows at a place (as cuts in sampling
    have it); in all other text, of the whole vocabulary. The most probable token of a place may
    have 1 instead, and has where it is below ``least``: cuts leave it over.
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
    for index, request in texts:
        _spare_best(model, request, found[index], least)
    return found


def _spare_best(
    model: Writer, request: SequenceRequest, probabilities: Array | None, least: float
) -> None:
    """Set ``probabilities`` [T] below ``least`` to 1 where no token was more probable."""
    assert probabilities is not None
    low = np.flatnonzero(probabilities < least)
    # The most probable of V tokens has at least 1 / V: with less, the text is below anyway.
    if not len(low) or probabilities.min() < 1 / model.identity.vocabulary_size:
        return
    written = request.continuation
    ask = PrefixRequest(request.prefix, tuple(written[:position] for position in low))
    (table,) = model.next_token_log_probs([ask])
    is_best = table.argmax(axis=1) == np.array(written)[low]
    probabilities[low[is_best]] = 1.0


def _allowed(
    automaton: TokenAutomaton, state: int, written: TokenIds, log_probs: NDArray[np.float32]
) -> Array | None:
    """P [T] of ``written`` among what the automaton allows, 1 for the most probable of that.

    ``log_probs`` [T, its tokens].
    """
    column = {token: index for index, token in enumerate(automaton.token_ids)}
    result = np.empty(len(written))
    for position, token in enumerate(written):
        ways = automaton.transitions[state]
        place = column.get(token)
        if place is None or ways[place] == FORBIDDEN:
            return None
        legal = np.exp(log_probs[position].astype(np.float64)) * (ways != FORBIDDEN)
        result[position] = 1.0 if place == legal.argmax() else legal[place] / legal.sum()
        state = int(ways[place])
    return result
