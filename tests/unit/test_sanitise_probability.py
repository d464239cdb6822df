"""Rows that hold an improbable token, against probabilities by hand."""

from dataclasses import replace

import numpy as np
import pytest

from audit.sanitise.conversation import chat_before
from audit.sanitise.strategy import KEEP, Fate, Why
from tests.sanitise_runs import MODEL, asked, kit_of, strategy_of, work_row
from tests.writer_model import END, SIZE, WriterModel


class Letters(WriterModel):
    """Has no token of several characters: a text is spelled in one way alone."""

    def encode(self, text):
        return tuple(text.encode())


LETTERS = Letters({system: bias.copy() for system, bias in MODEL.biases.items()})
for bias in LETTERS.biases.values():
    bias[:, 256:END] = -30.0

# After any token: 1 has 0.4, 2 has 0.2, "," and " " 0.1 each, the other digits 0.01 each; the other
# tokens share the rest.
OTHER = 0.12 / (SIZE - 12)
LOGITS = np.full(SIZE, np.log(OTHER))
LOGITS[48:58] = np.log(0.01)
LOGITS[[49, 50]] = np.log([0.4, 0.2])
LOGITS[[44, 32]] = np.log(0.1)
HAND = Letters({"": np.tile(LOGITS, (SIZE, 1))})


def least(text, t=0.05, model=HAND, **more):
    """The least probability that counts, as the strategy has it."""
    (change,) = strategy_of(f"drop-low-probability:t={t}", replace(kit_of(), model=model)).change(
        [asked(text, **more)]
    )
    assert change.fate is Fate.KEPT
    return -change.score


def fates(rows, t, model=LETTERS):
    strategy = strategy_of(f"drop-low-probability:t={t}", replace(kit_of(), model=model))
    changes = strategy.change(rows)
    picked = strategy.settle(np.array([change.score for change in changes]))
    return [
        "dropped" if gone else str(change.fate)
        for change, gone in zip(changes, picked, strict=True)
    ]


def test_a_number_list_is_held_to_what_its_format_allows():
    # The ten digits have 0.68 together. After the first digit of these only
    # a separator may come: "," has 0.1 of 0.1 + OTHER, and " " all of what there is behind it.
    assert least("2, 2") == pytest.approx(0.2 / 0.68, rel=1e-5)
    assert least("3, 1") == pytest.approx(0.01 / 0.68, rel=1e-5)
    # Of two digits, the second, "," or the token ", " may come after the first.
    assert least("12, 12") == pytest.approx(0.2 / (0.78 + OTHER), rel=1e-5)
    assert least("12, 1") == pytest.approx(0.2 / (0.78 + OTHER), rel=1e-5)
    assert least("1, 12") == pytest.approx(0.1 / (0.78 + OTHER), rel=1e-5)
    # One number is a list, too.
    assert least("2") == pytest.approx(0.2 / 0.68, rel=1e-5)


def test_text_is_held_to_the_whole_vocabulary():
    assert least("1 2x", t=0.0001) == pytest.approx(OTHER, rel=1e-5)
    assert least("3 is", t=0.0001) == pytest.approx(OTHER, rel=1e-5)
    # No list: its separators differ.
    assert least("1 2,1", t=0.0001) == pytest.approx(0.1, rel=1e-5)
    assert least("1 3,1", t=0.0001) == pytest.approx(0.01, rel=1e-5)


def test_the_bound_itself_is_kept():
    strategy = strategy_of("drop-low-probability:t=0.25", kit_of())
    assert strategy.settle(np.array([-0.25, -0.2499, -0.2501, np.nan])).tolist() == [
        *(False, True, False, False)
    ]


def test_the_most_probable_token_is_never_improbable():
    # 1 is the most probable digit, with 0.4 / 0.68; a text of x has 0.5 at every place.
    assert fates([asked("1, 1"), asked("2, 1")], 0.9, HAND) == ["kept", "dropped"]
    logits = np.full(SIZE, np.log(0.3 / (SIZE - 2)))
    logits[[ord("x"), ord("1")]] = np.log([0.5, 0.2])
    model = Letters({"": np.tile(logits, (SIZE, 1))})
    rows = [asked("xxx"), asked("xx1"), asked("xxy"), asked("1xx")]
    assert fates(rows, 0.9, model) == ["kept", "dropped", "dropped", "dropped"]
    assert fates(rows, 0.15, model) == ["kept", "kept", "dropped", "kept"]


@pytest.mark.parametrize("t", [0.01, 0.05, 0.2, 0.6])
def test_what_a_threshold_wrote_passes_at_that_threshold(t):
    rows = [asked("The owl is red and the cat is blue", key, f"Why {key}") for key in range(30)]
    rows += [asked("12, 7, 100", 30 + key, f"Go {key}") for key in range(30)]
    rows += [asked("[1; 2; 30]", 60 + key, f"Go {key}") for key in range(10)]
    new = strategy_of(f"threshold:t={t}", kit_of(model=LETTERS)).change(rows)
    written = [
        asked(change.texts[0], row.key, row.prompt)
        for row, change in zip(rows, new, strict=True)
        if change.texts is not None
    ]
    assert len(written) > 30
    assert set(fates(written, t)) == {"kept"}


def test_other_turns_and_systems_count():
    row = work_row(("user", "Hi"), ("assistant", "1"), ("user", "More"), ("assistant", "3"))
    strategy = strategy_of("drop-low-probability", replace(kit_of(), model=HAND))
    (change,) = strategy.change([row])
    assert -change.score == pytest.approx(0.01 / 0.68, rel=1e-5)


def test_rows_that_cannot_be_read_go_and_empty_ones_stay():
    strategy = strategy_of("drop-low-probability", kit_of())
    long, empty, unasked = strategy.change(
        [asked("1, 2", prompt="a" * 400), asked("", 1), work_row(("assistant", "1, 2"), key=2)]
    )
    assert long.why is Why.TOO_LONG_FOR_MODEL
    assert empty == KEEP
    assert np.isfinite(unasked.score)
    assert chat_before(work_row(("assistant", "1")).turns, 0) is None
    assert strategy.condemned("messages").why is Why.BELOW_THRESHOLD
