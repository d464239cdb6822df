"""Cuts by hand, and against the rule in plain NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from audit.backends.token_cut import CutKind, TokenCut, bar_tokens
from tests.cut_reference import CUTS, kept

torch = pytest.importorskip("torch", reason="the extra 'models' is not installed")


def left(probabilities: list[float], cut: TokenCut) -> list[int]:
    logits = torch.tensor([probabilities]).log()
    barred = bar_tokens(logits, cut)[0]
    stays = torch.isfinite(barred)
    assert barred[stays].tolist() == logits[0, stays].tolist()
    return [int(column) for column in torch.nonzero(stays)[:, 0]]


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (TokenCut("threshold", 0.0), [0, 1, 2, 3]),
        (TokenCut("threshold", 0.1), [0, 2]),
        (TokenCut("threshold", 0.4), [2]),
        (TokenCut("threshold", 0.9), [2]),  # the best stays, though it is below
        (TokenCut("top-p", 0.1), [2]),
        (TokenCut("top-p", 0.6), [0, 2]),  # 0.5 are too few
        (TokenCut("top-p", 0.95), [0, 2, 3]),
        (TokenCut("top-p", 1.0), [0, 1, 2, 3]),
        (TokenCut("min-p", 0.0), [0, 1, 2, 3]),
        (TokenCut("min-p", 0.15), [0, 2, 3]),  # at least 0.075
        (TokenCut("min-p", 1.0), [2]),
        (TokenCut("greedy"), [2]),
    ],
)
def test_cuts_by_hand(cut: TokenCut, expected: list[int]) -> None:
    assert left([0.375, 0.03125, 0.5, 0.09375], cut) == expected


def test_of_equals_the_first_is_the_more_probable() -> None:
    even = [0.25, 0.25, 0.25, 0.25]
    assert left(even, TokenCut("greedy")) == [0]
    assert left(even, TokenCut("threshold", 0.5)) == [0]
    assert left(even, TokenCut("top-p", 0.5)) == [0, 1]
    assert left(even, TokenCut("min-p", 1.0)) == [0, 1, 2, 3]
    assert left([0.125, 0.5, 0.125, 0.125, 0.125], TokenCut("top-p", 0.75)) == [0, 1, 2]


def test_what_a_grammar_barred_does_not_count() -> None:
    # A token with 0.97 of the whole is barred: the others have 0.6, 0.3 and 0.1 of the rest.
    allowed = [0.0, 0.018, 0.009, 0.003]
    assert left(allowed, TokenCut("threshold", 0.2)) == [1, 2]
    assert left(allowed, TokenCut("top-p", 0.95)) == [1, 2, 3]
    assert left(allowed, TokenCut("min-p", 0.4)) == [1, 2]
    assert left([0.0, 0.0, 1.0, 0.0], TokenCut("top-p", 1.0)) == [2]


@pytest.mark.parametrize("value", [0.001, 0.05, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["threshold", "top-p", "min-p"])
def test_many_rows_follow_the_reference(kind: CutKind, value: float) -> None:
    rng = np.random.default_rng(5)
    logits = torch.from_numpy(rng.normal(0, 3, (40, 300)).astype(np.float32))
    logits[:, 7] = -torch.inf
    mine = torch.isfinite(bar_tokens(logits, TokenCut(kind, value))).numpy()
    shares = logits.softmax(-1).double().numpy()
    for row, stays in zip(shares, mine, strict=True):
        assert not stays[7]
        assert stays.tolist() == (kept(row, TokenCut(kind, value)) & (row > 0)).tolist()


def test_rows_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(6)
    logits = torch.from_numpy(rng.normal(0, [[1], [5], [0.1]], (3, 100)).astype(np.float32))
    for cut in CUTS:
        alone = torch.cat([bar_tokens(row[None], cut) for row in logits])
        assert torch.equal(bar_tokens(logits, cut), alone)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("threshold", -0.1),
        ("threshold", 1.1),
        ("top-p", 0.0),
        ("top-p", 1.5),
        ("min-p", math.nan),
        ("greedy", 0.5),
        ("top-k", 5.0),
    ],
)
def test_impossible_cuts_are_refused(kind: CutKind, value: float) -> None:
    with pytest.raises(ValueError, match=kind):
        TokenCut(kind, value)
