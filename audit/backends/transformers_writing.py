"""Writes many answers at once with a transformers network: one forward pass a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from audit.backends.attention import KeyValueStore, PrefixCache
from audit.backends.batching import group_by_prefix
from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton
from audit.backends.generation import draw, uniforms
from audit.backends.memory import in_smaller_batches
from audit.backends.token_cut import TokenCut
from audit.backends.transformers_network import (
    Head,
    causal_mask,
    head_logits,
    head_rows,
    prefix_cache,
)
from signatures.language_model import TokenIds

# Rows that are written together, and positions [rows, prompt + answer] that they may take.
_MAX_ROWS = 256
_MAX_POSITIONS = 1 << 15


class Rule(Protocol):
    """Which tokens may be drawn, and when an answer is over."""

    steps: int

    def choose(self, hidden: Any, states: Any, draws: Any) -> tuple[Any, Any, Any]:
        """Draw a token a row from hidden states [rows, hidden] with ``draws`` [rows].

        Returns tokens [rows], the states after them [rows], and whether the answers go on [rows].
        """
        ...


class GrammarRule:
    """The tokens that an automaton allows; only their logits are computed."""

    def __init__(  # noqa: D107
        self, network: Any, automaton: TokenAutomaton, temperature: float, cut: TokenCut | None
    ) -> None:
        import torch

        device = network.device
        self.steps = automaton.longest
        self._token_ids = torch.tensor(automaton.token_ids, device=device)
        self._transitions = torch.from_numpy(automaton.transitions).long().to(device)
        self._barred = torch.where(self._transitions == FORBIDDEN, -torch.inf, 0.0)
        self._final_state = automaton.final_state
        self._head = head_rows(network, self._token_ids)
        self._temperature = temperature
        self._cut = cut

    def choose(self, hidden: Any, states: Any, draws: Any) -> tuple[Any, Any, Any]:
        """See `Rule`."""
        logits = head_logits(hidden, self._head) / self._temperature + self._barred[states]
        columns = draw(logits, draws, self._cut)
        states = self._transitions[states, columns]
        return self._token_ids[columns], states, states != self._final_state


class FreeRule:
    """The whole vocabulary, until one of ``ends`` or ``steps`` tokens are written."""

    def __init__(  # noqa: D107
        self, head: Head, ends: TokenIds, steps: int, temperature: float, cut: TokenCut | None
    ) -> None:
        import torch

        self.steps = steps
        self._head = head
        self._ends = torch.tensor(ends, dtype=torch.long, device=head[0].device)
        self._temperature = temperature
        self._cut = cut

    def choose(self, hidden: Any, states: Any, draws: Any) -> tuple[Any, Any, Any]:
        """See `Rule`."""
        import torch

        tokens = draw(head_logits(hidden, self._head) / self._temperature, draws, self._cut)
        return tokens, states, ~torch.isin(tokens, self._ends)


def write_answers(
    network: Any,
    prompts: Sequence[TokenIds],
    rule: Rule,
    *,
    seed: int,
    keys: Sequence[int],
    starts: Sequence[int],
    max_batch_tokens: int,
    max_rows: int = _MAX_ROWS,
) -> list[TokenIds]:
    """One answer a prompt, in order, without the token that ended it.

    An answer that nothing ended has ``rule.steps`` tokens. Row i starts in ``starts[i]`` and
    draws with `uniforms` of (seed, ``keys[i]``). What prompts begin with, and equal prompts, are
    read once. ``max_batch_tokens`` bounds the tokens of one pass over prompts.
    """
    results: list[TokenIds] = [()] * len(prompts)
    # Rows that are written together are worth more than prompt tokens that are not read again.
    for group in group_by_prefix(prompts, min_saved_tokens=math.inf):
        prefix = prefix_cache(network, prompts[group.members[0]][: group.shared])
        # Sorting by length makes equal prompts neighbours and padding small.
        order = sorted(group.members, key=lambda row: (len(prompts[row]), prompts[row]))
        positions = len(prompts[order[-1]]) + rule.steps
        batch_rows = max(1, min(max_rows, _MAX_POSITIONS // positions))

        def write(rows: list[int], prefix: PrefixCache = prefix) -> list[TokenIds]:
            return _write_batch(
                network,
                [prompts[row] for row in rows],
                np.stack([uniforms(seed, keys[row], rule.steps) for row in rows]),
                [starts[row] for row in rows],
                prefix,
                rule,
                max_batch_tokens,
            )

        for first in range(0, len(order), batch_rows):
            batch = order[first : first + batch_rows]
            for rows, answers in in_smaller_batches(
                write, batch, lambda row: _too_long(len(prompts[row]), rule.steps)
            ):
                for row, answer in zip(rows, answers, strict=True):
                    results[row] = answer
    return results


def _too_long(prompt: int, steps: int) -> str:
    return (
        f"memory ran out on a single answer of up to {steps} tokens to a prompt of {prompt}: "
        "shorten them, use bfloat16, or free memory"
    )


def _write_batch(
    network: Any,
    prompts: list[TokenIds],
    draws: NDArray[np.float64],
    starts: list[int],
    prefix: PrefixCache,
    rule: Rule,
    max_batch_tokens: int,
) -> list[TokenIds]:
    """Answers to ``prompts`` that all begin with ``prefix``; draws [rows, steps], starts [rows]."""
    import torch

    device = network.device
    with torch.inference_mode():
        unique = list(dict.fromkeys(prompts))
        place = {prompt: row for row, prompt in enumerate(unique)}
        source = torch.tensor([place[prompt] for prompt in prompts], device=device)
        count = len(prompts)
        # Rows of the store: first every prompt once, then the repetitions.
        seen: set[TokenIds] = set()
        lead: list[int] = []
        rest: list[int] = []
        for row, prompt in enumerate(prompts):
            (rest if prompt in seen else lead).append(row)
            seen.add(prompt)
        owner = torch.tensor(lead + rest, device=device)  # [rows] store row -> prompt row
        source = source[owner]

        shared = prefix.length
        longest_prompt = max(len(prompt) for prompt in unique)
        store = KeyValueStore(count, longest_prompt + rule.steps, prefix)
        hidden = _read_prompts(network, unique, store, shared, max_batch_tokens)[source]
        if rest:
            targets = torch.arange(len(lead), count, device=device)
            store.copy_rows(source[len(lead) :], targets, shared, longest_prompt)

        lengths = torch.tensor([len(prompt) for prompt in unique], device=device)[source]
        columns = torch.arange(longest_prompt + rule.steps, device=device)
        # [rows, positions] prompts are padded on the right; answers start after the longest
        visible = (columns[None] < lengths[:, None]) | (columns[None] >= longest_prompt)
        chances = torch.from_numpy(draws).to(device)[owner]
        states = torch.tensor(starts, device=device)[owner]
        written = torch.full((count, rule.steps), -1, dtype=torch.long, device=device)

        for step in range(rule.steps):
            chosen, states, going = rule.choose(hidden, states, chances[:, step])
            written[owner[going], step] = chosen[going]
            alive = int(going.sum())
            if not alive or step == rule.steps - 1:
                break
            if alive < count:
                # Rows that go on move from the tail into the places of finished ones.
                holes = torch.nonzero(~going[:alive])[:, 0]
                movers = torch.nonzero(going[alive:])[:, 0] + alive
                store.copy_rows(movers, holes, shared, longest_prompt + step)
                for tensor in (lengths, owner, chances, states, chosen, visible):
                    tensor[holes] = tensor[movers]
                lengths, owner, chances = lengths[:alive], owner[:alive], chances[:alive]
                states, chosen, visible = states[:alive], chosen[:alive], visible[:alive]
                count = alive
            position = longest_prompt + step
            hidden = network.base_model(
                input_ids=chosen[:, None],
                attention_mask=visible[:, None, None, : position + 1],
                position_ids=(lengths + step)[:, None],
                past_key_values=store.window(0, count, position),
                use_cache=True,
            ).last_hidden_state[:, 0]
        answers = written.cpu().numpy()
    return [tuple(int(token) for token in answer[answer >= 0]) for answer in answers]


def _read_prompts(
    network: Any, prompts: list[TokenIds], store: KeyValueStore, shared: int, max_batch_tokens: int
) -> Any:
    """Read prompts (sorted by length) into the store's first rows; [prompts, hidden]."""
    import torch

    device = network.device
    last: list[Any] = []
    first = 0
    while first < len(prompts):
        stop = first + 1
        while (
            stop < len(prompts)
            and (stop + 1 - first) * (len(prompts[stop]) - shared) <= max_batch_tokens
        ):
            stop += 1
        own = [prompt[shared:] for prompt in prompts[first:stop]]
        width = max(len(ids) for ids in own)
        tokens = torch.tensor([ids + (0,) * (width - len(ids)) for ids in own], device=device)
        hidden = network.base_model(
            input_ids=tokens,
            attention_mask=causal_mask(width, shared, device),
            position_ids=torch.arange(shared, shared + width, device=device)[None],
            past_key_values=store.window(first, stop, shared),
            use_cache=True,
        ).last_hidden_state
        ends = torch.tensor([len(ids) - 1 for ids in own], device=device)
        last.append(hidden[torch.arange(len(own), device=device), ends])
        first = stop
    return torch.cat(last)
