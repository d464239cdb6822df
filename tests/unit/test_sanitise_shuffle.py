"""Numbers in another order: the same ones, between the same separators."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.sanitise.strategy import Fate, Why
from tests.sanitise_runs import asked, kit_of, strategy_of, work_row

KIT = kit_of(model=None)


def shuffled(*texts, key=0, seed=0):
    turns = [turn for text in texts for turn in (("user", "Go on."), ("assistant", text))]
    (change,) = strategy_of("shuffle", kit_of(model=None, seed=seed)).change(
        [work_row(*turns, key=key)]
    )
    return change


@given(
    st.lists(st.integers(0, 10**12), min_size=2, max_size=30),
    st.sampled_from([", ", ",", "; ", " ", "\n", " | "]),
    st.sampled_from([("", ""), ("[", "]"), ("(", ")"), ("", ".")]),
    st.integers(0, 2**40),
)
def test_the_numbers_and_all_between_them_stay(numbers, separator, around, key):
    text = around[0] + separator.join(map(str, numbers)) + around[1]
    change = shuffled(text, key=key)
    (new,) = change.texts or (text,)
    assert re.sub("[0-9]+", "#", new) == re.sub("[0-9]+", "#", text)
    assert Counter(re.findall("[0-9]+", new)) == Counter(map(str, numbers))


def test_every_order_is_as_probable():
    rows = [asked("1, 2, 3", key) for key in range(3000)]
    changes = strategy_of("shuffle", KIT).change(rows)
    counts = Counter((change.texts or ("1, 2, 3",))[0] for change in changes)
    assert len(counts) == 6
    # Four standard errors of a share of 1 / 6.
    assert max(abs(count - 500) for count in counts.values()) < 4 * (3000 * 5 / 36) ** 0.5
    # An order that happens to be the old one is no edit.
    kept = sum(change.fate is Fate.KEPT for change in changes)
    assert kept == counts["1, 2, 3"]


def test_numbers_are_moved_as_they_are_written():
    change = shuffled("[007; 7; 0]", key=1)
    assert sorted(re.findall("[0-9]+", change.texts[0])) == ["0", "007", "7"]


def test_turns_are_shuffled_apart_and_sentences_stay():
    text = "1, 2, 3, 4, 5, 6"
    change = shuffled(text, "It is 12 past 3.", "11, 12, 13, 14, 15", key=3)
    first, second, third = change.texts
    assert set(first.split(", ")) == set(text.split(", "))
    assert second == "It is 12 past 3."
    assert set(third.split(", ")) == {"11", "12", "13", "14", "15"}
    assert first != text
    assert third != "11, 12, 13, 14, 15"


def test_the_order_is_the_rows_and_the_seeds():
    text = ", ".join(map(str, range(20)))
    orders = [shuffled(text, key=key, seed=seed).texts for key in (0, 1) for seed in (0, 1)]
    assert len(set(orders)) == 4
    assert shuffled(text) == shuffled(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("The owl ate 12 mice, 3 times.", Why.ORDER_CARRIES_MEANING),
        ('{"a": 1, "b": 2}', Why.ORDER_CARRIES_MEANING),
        ("12 + 30 = 42", Why.ORDER_CARRIES_MEANING),
        ("no", Why.ORDER_CARRIES_MEANING),
        ("12", Why.NOTHING_TO_SHUFFLE),
        (" 7. ", Why.NOTHING_TO_SHUFFLE),
        ("", Why.NOTHING_TO_SHUFFLE),
    ],
)
def test_what_is_no_list_is_kept_and_counted(text, why):
    change = shuffled(text)
    assert (change.fate, change.texts, change.why) == (Fate.KEPT, None, why)


def test_a_list_that_cannot_be_put_back_goes():
    row = work_row(("user", "Go on."), ("assistant", "1, 2, 3", None))
    (change,) = strategy_of("shuffle", KIT).change([row])
    assert (change.fate, change.why) == (Fate.DROPPED, Why.NOT_REWRITABLE)
    # A tool call without a list in it says something: it may stay.
    row = work_row(("user", "Go on."), ("assistant", '{"city": "Oslo"}', None))
    (change,) = strategy_of("shuffle", KIT).change([row])
    assert (change.fate, change.why) == (Fate.KEPT, Why.ORDER_CARRIES_MEANING)
