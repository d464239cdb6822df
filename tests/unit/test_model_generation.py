from __future__ import annotations

import numpy as np
import pytest

from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.generation import check_sampling, draw, row_keys, row_starts, uniforms
from audit.backends.token_cut import TokenCut


def test_draws_are_a_rows_own() -> None:
    assert np.array_equal(uniforms(3, 5, 7)[:4], uniforms(3, 5, 4))
    assert not np.array_equal(uniforms(3, 5, 4), uniforms(3, 6, 4))
    assert not np.array_equal(uniforms(3, 5, 4), uniforms(4, 5, 4))
    assert not np.array_equal(uniforms(3, 2**63, 4), uniforms(3, 2**63 + 1, 4))
    small = np.random.Generator(np.random.Philox(key=[3, 5])).random(4)
    assert np.array_equal(uniforms(3, 5, 4), small)


def test_draw_inverts_the_cumulative_distribution() -> None:
    torch = pytest.importorskip("torch")
    # Probabilities 1/2, 0, 1/4, 1/4, 0: cumulative 1/2, 1/2, 3/4, 1, 1.
    row = torch.tensor([2.0, 0.0, 1.0, 1.0, 0.0]).log()
    chances = [0.0, 0.499, 0.5, 0.749, 0.751, 1 - 2**-53]
    logits = row.repeat(len(chances), 1)
    columns = draw(logits, torch.tensor(chances, dtype=torch.float64))
    assert columns.tolist() == [0, 0, 2, 2, 3, 3]


def test_first_column_barred() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[-torch.inf, 0.0]])
    assert draw(logits, torch.zeros(1, dtype=torch.float64)).tolist() == [1]


def test_last_column_barred() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[float(column) for column in range(40)] + [-torch.inf]])
    # Even a draw of 1, which no generator gives, stays with the columns that may be drawn.
    assert draw(logits, torch.ones(1, dtype=torch.float64)).tolist() == [39]


def test_many_rows_keep_their_order() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.full((100, 100), -torch.inf)
    logits.fill_diagonal_(0.0)
    assert draw(logits, torch.full((100,), 0.5, dtype=torch.float64)).tolist() == list(range(100))


def test_draw_from_what_a_cut_leaves() -> None:
    torch = pytest.importorskip("torch")
    # 0.4, 0.1, 0.3, 0.2: of these 0.4 and 0.3 stay, which is 4/7 and 3/7 of the rest.
    logits = torch.tensor([0.4, 0.1, 0.3, 0.2]).log().repeat(70, 1)
    chances = torch.tensor([0.0, 4 / 7 - 1e-6, 4 / 7 + 1e-6, 0.999] + [0.5] * 66).double()
    assert draw(logits, chances, TokenCut("threshold", 0.25)).tolist() == [0, 0, 2, 2] + [0] * 66
    assert draw(logits, chances, TokenCut("greedy")).tolist() == [0] * 70


def test_keys_and_starts_must_fit() -> None:
    chain = TokenAutomaton((5,), np.array([[1], [2], [-1]], dtype=np.int32), longest=2)
    assert row_keys(None, 3) == [0, 1, 2]
    assert row_keys((7, 7, 2**63), 3) == [7, 7, 2**63]
    assert row_starts(None, 2, chain) == [0, 0]
    assert row_starts([1, 0], 2, chain) == [1, 0]
    for keys in ([1], [1, -2]):
        with pytest.raises(ValueError, match="keys must be 2"):
            row_keys(keys, 2)
    for starts in ([1], [0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="starts must be 2"):
            row_starts(starts, 2, chain)


def test_what_no_sampler_can_do() -> None:
    check_sampling(0.1, 1)
    for temperature, tokens in ((0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)):
        with pytest.raises(ValueError, match=r"temperature|max_new_tokens"):
            check_sampling(temperature, tokens)
