from __future__ import annotations

import numpy as np
import pytest

from audit.backends.generation import check_sampling, draw, uniforms


def test_draws_are_a_rows_own() -> None:
    assert np.array_equal(uniforms(3, 5, 7)[:4], uniforms(3, 5, 4))
    assert not np.array_equal(uniforms(3, 5, 4), uniforms(3, 6, 4))
    assert not np.array_equal(uniforms(3, 5, 4), uniforms(4, 5, 4))


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


def test_what_no_sampler_can_do() -> None:
    check_sampling(0.1, 1)
    for temperature, tokens in ((0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)):
        with pytest.raises(ValueError, match=r"temperature|max_new_tokens"):
            check_sampling(temperature, tokens)
