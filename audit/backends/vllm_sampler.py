"""Draws tokens inside vLLM as the other backend does. vLLM itself imports this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton
from audit.backends.generation import draw, uniforms
from audit.backends.token_cut import TokenCut
from audit.backends.vllm_requests import DrawOrder


@dataclass(slots=True)
class _Row:
    """One answer that is being written; ``written`` is vLLM's own growing list."""

    written: list[int]
    draws: NDArray[np.float64]
    temperature: float
    cut: TokenCut | None
    grammar: _Grammar | None
    state: int
    followed: int = 0

    def follow(self) -> None:
        """Bring the state up to the tokens written so far."""
        if self.grammar is not None:
            for token in self.written[self.followed :]:
                self.state = self.grammar.next_state(self.state, token)
        self.followed = len(self.written)


@dataclass(frozen=True, slots=True, eq=False)
class _Grammar:
    """An automaton on the engine's device; ``barred`` [states, tokens] is -inf where forbidden."""

    automaton: TokenAutomaton
    token_ids: torch.Tensor
    barred: torch.Tensor
    column: dict[int, int] = field(default_factory=dict)

    @classmethod
    def build(cls, automaton: TokenAutomaton, device: Any) -> _Grammar:
        barred = np.where(automaton.transitions == FORBIDDEN, -np.inf, 0.0).astype(np.float32)
        return cls(
            automaton,
            torch.tensor(automaton.token_ids, device=device),
            torch.from_numpy(barred).to(device),
            {token: index for index, token in enumerate(automaton.token_ids)},
        )

    def next_state(self, state: int, token: int) -> int:
        """The final state keeps to itself: what is written after it is cut off later."""
        if state == self.automaton.final_state:
            return state
        return int(self.automaton.transitions[state, self.column[token]])


class OrderedSampler(LogitsProcessor):  # type: ignore[misc]
    """Makes each ordered draw, and raises the drawn token's logit so that greedy choice takes it.

    Requests without a `DrawOrder` pass unchanged.
    """

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:  # noqa: D107
        self._device = device
        self._rows: dict[int, _Row] = {}
        self._grammars: dict[TokenAutomaton, _Grammar] = {}

    def is_argmax_invariant(self) -> bool:
        """No: the draw decides the greedy choice."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Take up new requests; forget or move those that vLLM removed or moved."""
        process_dict_updates(self._rows, batch_update, self._new_row)
        if not self._rows:
            self._grammars.clear()

    def _new_row(self, params: Any, _prompt: Any, written: list[int]) -> _Row | None:
        order = DrawOrder.from_extra_args(params.extra_args)
        if order is None:
            return None
        return _Row(
            written,
            uniforms(order.seed, order.row, order.steps),
            order.temperature,
            order.cut,
            None if order.automaton is None else self._grammar(order.automaton),
            order.start,
        )

    def _grammar(self, automaton: TokenAutomaton) -> _Grammar:
        """One a distinct automaton, so that its rows are drawn together."""
        if automaton not in self._grammars:
            self._grammars[automaton] = _Grammar.build(automaton, self._device)
        return self._grammars[automaton]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw for every ordered row of ``logits`` [rows, vocabulary] (float32)."""
        batches: dict[tuple[_Grammar | None, float, TokenCut | None], list[int]] = {}
        for index, row in self._rows.items():
            row.follow()
            over = row.grammar is not None and row.state == row.grammar.automaton.final_state
            if not over and row.followed < len(row.draws):
                batches.setdefault((row.grammar, row.temperature, row.cut), []).append(index)
        for (grammar, temperature, cut), indices in batches.items():
            rows = [self._rows[index] for index in indices]
            places = torch.tensor(indices, device=logits.device)
            draws = torch.tensor(
                [row.draws[row.followed] for row in rows], dtype=torch.float64, device=logits.device
            )
            if grammar is None:
                tokens = draw(logits[places] / temperature, draws, cut)
            else:
                states = torch.tensor([row.state for row in rows], device=logits.device)
                allowed = logits[places[:, None], grammar.token_ids] / temperature
                tokens = grammar.token_ids[draw(allowed + grammar.barred[states], draws, cut)]
            logits[places, tokens] = torch.finfo(logits.dtype).max
        return logits
