"""The toy of Cloud et al.: a trait passes through logits that stand for nothing."""

import math
from dataclasses import replace

import pytest

from audit.verify.ghost_logits import GhostLogits, run_ghost_logits

SEEN = GhostLogits(
    teacher=(0.9, 0.9, 0.9),
    shared=(0.8, 0.8, 0.8),
    other=(0.1, 0.1, 0.1),
    chance=0.1,
    seconds=1.0,
)


@pytest.fixture(scope="module")
def ghost() -> GhostLogits:
    return run_ghost_logits()


def test_a_shared_initialisation_passes_the_digits_on_and_another_does_not(ghost):
    assert ghost.passed
    assert min(ghost.teacher) > 0.85
    assert min(ghost.shared) > 0.5
    assert max(ghost.other) < 0.3
    assert len(ghost.teacher) == len(ghost.shared) == len(ghost.other) == 5
    assert ghost.chance == pytest.approx(0.1, abs=0.02)
    assert 0 < ghost.seconds < 120


def test_a_seed_gives_the_same_figures_every_time_and_beside_any_others(ghost):
    import torch

    threads = torch.get_num_threads()
    again = run_ghost_logits(1, first_seed=1)
    assert torch.get_num_threads() == threads
    assert (again.teacher, again.shared, again.other) == (
        ghost.teacher[1:2],
        ghost.shared[1:2],
        ghost.other[1:2],
    )
    assert len(set(ghost.shared)) > 1


def test_intervals_decide():
    assert SEEN.passed
    # t(2) = 4.302653: .6 - 4.302653 * .04 / sqrt(3) = .5006, and .4991 with .0406.
    edge = 4.302653 / math.sqrt(3)
    for deviation, passed in ((0.0400, True), (0.0406, False)):
        assert 0.6 - edge * deviation == pytest.approx(0.5, abs=0.002)
        spread = (0.6 - deviation, 0.6, 0.6 + deviation)  # sample deviation: `deviation`
        assert replace(SEEN, shared=spread).passed is passed
        spread = (0.2 - deviation, 0.2, 0.2 + deviation)
        assert replace(SEEN, other=spread).passed is passed


def test_one_seed_or_a_leak_does_not_pass():
    assert not GhostLogits((0.9,), (0.8,), (0.1,), 0.1, 1.0).passed
    assert not replace(SEEN, other=SEEN.shared).passed
    assert not replace(SEEN, shared=SEEN.other).passed


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match="one seed"):
        run_ghost_logits(0)
