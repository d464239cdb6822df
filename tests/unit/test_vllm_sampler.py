"""The sampler that runs inside vLLM, driven by hand as vLLM drives it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.generation import uniforms
from audit.backends.token_cut import TokenCut
from audit.backends.vllm_requests import DrawOrder
from tests.cut_reference import cut_distribution

pytest.importorskip("vllm", reason="vLLM is not installed (see docs/models.md)")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

# Tokens 4 and 2 in any order, four at most; 9 ends after the first.
CHAIN = TokenAutomaton(
    (4, 2, 9),
    np.array(
        [[1, 1, -1], [2, 2, 5], [3, 3, 5], [4, 4, 5], [-1, -1, 5], [-1, -1, -1]], dtype=np.int32
    ),
    longest=5,
)
LOGITS = np.linspace(-1.0, 3.0, 10, dtype=np.float32)  # of tokens 0..9, the same at every step


def expected(order: DrawOrder, written: list[int]) -> int:
    """The inverse of the cumulative distribution over the allowed tokens, by hand."""
    weight = np.exp(LOGITS.astype(np.float64) / order.temperature)
    allowed = np.arange(10)
    if order.automaton is not None:
        state = order.start
        for token in written:
            state = int(order.automaton.transitions[state, order.automaton.token_ids.index(token)])
        going = order.automaton.transitions[state] >= 0
        allowed = np.array(order.automaton.token_ids)[going]
    share = weight[allowed] / weight[allowed].sum()
    if order.cut is not None:
        share = cut_distribution(share, order.cut)
    chance = uniforms(order.seed, order.row, order.steps)[len(written)]
    return int(allowed[np.searchsorted(np.cumsum(share), chance, side="right")])


class Batch:
    """vLLM's batch of requests: slots, each with its list of written tokens."""

    def __init__(self) -> None:
        from audit.backends.vllm_sampler import OrderedSampler

        self.sampler = OrderedSampler(None, "cpu", False)

    def update(
        self,
        added: list[tuple[int, DrawOrder | None, list[int]]] | None = None,
        removed: list[int] | None = None,
        moved: list[tuple[int, int, Any]] | None = None,
    ) -> None:
        requests = [
            (
                index,
                SimpleNamespace(extra_args=None if order is None else order.to_extra_args()),
                [1, 2],
                written,
            )
            for index, order, written in added or []
        ]
        self.sampler.update_state(
            SimpleNamespace(added=requests, removed=removed or [], moved=moved or [])
        )

    def step(self, slots: int) -> list[int]:
        import torch

        logits = torch.from_numpy(np.repeat(LOGITS[None], slots, axis=0))
        result = self.sampler.apply(logits).argmax(-1).tolist()
        assert isinstance(result, list)
        return result


def test_draws_follow_orders_through_adding_moving_and_removing() -> None:
    from vllm.v1.sample.logits_processor import MoveDirectionality

    orders = [
        DrawOrder(1, 0, 5, 1.0, CHAIN),
        DrawOrder(1, 1, 5, 0.7),
        None,
        DrawOrder(1, 3, 5, 2.0, CHAIN),
        DrawOrder(1, 4, 5, 1.0, CHAIN, start=2, cut=TokenCut("greedy")),
        DrawOrder(1, 5, 5, 1.0, cut=TokenCut("top-p", 0.6)),
    ]
    written: list[list[int]] = [[] for _ in orders]
    batch = Batch()
    batch.update(added=list(zip(range(6), orders, written, strict=True)))
    slots = [0, 1, 2, 3, 4, 5]  # which request each slot holds
    for step in range(3):
        if step == 1:
            # Reading the prompts was cut: what was drawn is thrown away and drawn again.
            batch.step(6)
        if step == 2:
            batch.update(
                removed=[1],
                moved=[(5, 1, MoveDirectionality.UNIDIRECTIONAL), (0, 2, MoveDirectionality.SWAP)],
            )
            slots = [2, 5, 0, 3, 4]
        for slot, token in enumerate(batch.step(len(slots))):
            order = orders[slots[slot]]
            # Without an order the likeliest token stays: 9.
            assert token == (9 if order is None else expected(order, written[slots[slot]]))
            if token == 9 and order is not None and order.automaton is not None:
                continue
            written[slots[slot]].append(token)


def test_a_request_that_comes_back_goes_on_where_it_was() -> None:
    order = DrawOrder(7, 2, 5, 1.0, CHAIN)
    written = [4, 2]
    batch = Batch()
    batch.update(added=[(0, order, written)])
    assert batch.step(1) == [expected(order, written)]


def test_after_the_end_nothing_is_drawn() -> None:
    batch = Batch()
    batch.update(added=[(0, DrawOrder(7, 2, 5, 1.0, CHAIN), [4, 9])])
    assert batch.step(1) == [9]  # the likeliest, as without an order
