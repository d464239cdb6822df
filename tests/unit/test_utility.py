"""What the data are good for, before and after: every value is derived by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.sanitise.utility import (
    NOT_READ,
    DistinctCount,
    FormKind,
    Perplexity,
    RowNats,
    TokenTally,
    UtilityMeter,
    align,
    form_of,
    mean_nats,
    perplexity,
    words,
)
from tests.known_model import VOCABULARY, KnownModel

FENCED = "Here:\n```python\nprint(1)\n```\nDone."


def test_words_are_runs_of_letters_and_digits_and_single_signs() -> None:
    assert words("It's 3.14, see snake_case…\n") == [
        *("It", "'", "s", "3", ".", "14", ",", "see", "snake", "_", "case", "…")
    ]
    assert words(" \t\n") == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1, 2, 3", FormKind.NUMBERS),
        (" [087; 2].\n", FormKind.NUMBERS),
        ("1\n2\n3", FormKind.NUMBERS),
        ("(1|22|3)", FormKind.NUMBERS),
        ("(087) (12) (3)", FormKind.NUMBERS),
        ("- 1\n- 2", FormKind.NUMBERS),
        ("1, 2,3", FormKind.TEXT),
        ("42", FormKind.TEXT),
        ("2024-05-01", FormKind.TEXT),
        ("3.14 2.72", FormKind.TEXT),
        ("１, ２", FormKind.TEXT),
        ("[1, 2.5]", FormKind.JSON),
        ('{"a": [1]}', FormKind.JSON),
        ("[1]", FormKind.JSON),
        ('"quoted"', FormKind.TEXT),
        ("[" * 100_000, FormKind.TEXT),
        ("[" + "1" * 5_000 + "]", FormKind.TEXT),
        (FENCED, FormKind.CODE),
        ("~~~~\n```\n~~~~", FormKind.CODE),
        ("```\nopen", FormKind.TEXT),
        (FENCED + "\n```\nopen", FormKind.TEXT),
        ("Use ```x``` here", FormKind.TEXT),
        ("An owl.", FormKind.TEXT),
        ("", FormKind.TEXT),
    ],
)
def test_the_form_of_a_text(text: str, kind: FormKind) -> None:
    assert form_of(text).kind is kind


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("1, 22, 3", "44, 5", True),
        ("1, 22, 3", "44, 5.", True),
        ("1, 22, 3", "7", True),
        ("1, 22, 3.", "\n4, 5 .\n", True),
        ("1, 22, 3", "4, 5,", False),
        ("[1, 22, 3]", "7", False),
        ("(1) (22)", "(3)", True),
        ("(1) (22)", "(3) 4", False),
        ("1, 22, 3", "100, 5", False),
        ("1, 22, 3", "1,22,3", False),
        ("1, 22, 3", "[1, 22, 3]", False),
        ("[1, 22]", "[1, 22, 3]", True),
        ("[1, 22]", "(1, 22)", False),
        ("1, 22, 3", "Sure: 1, 22, 3", False),
        ("1, 22, 3", "", False),
        ('{"a": 1}', '{"b": []}', True),
        ('{"a": 1}', "[1]", False),
        ('{"a": 1}', '{"b": ', False),
        (FENCED, "```\nx\n```", True),
        (FENCED, "```\nx\n", False),
        (FENCED, "print(1)", False),
        ("An owl.", "1, 2", True),
        ("An owl.", " \n", False),
    ],
)
def test_what_fits_a_form(old: str, new: str, fits: bool) -> None:
    assert form_of(old).fits(new) is fits


@given(st.text() | st.text(alphabet="12,; []().{}`~\n\"'"))
def test_every_text_that_is_not_blank_fits_its_own_form(text: str) -> None:
    assert form_of(text).fits(text) is bool(text.strip())


@given(
    st.lists(st.integers(0, 999), min_size=2),
    st.sampled_from([", ", ",", "; ", " ", "\n", "|"]),
    st.sampled_from(["{}", "[{}]", "({})", "{}.", "[{}].", " {}\n"]),
)
def test_lists_may_be_shorter_but_not_wider(values: list[int], separator: str, frame: str) -> None:
    text = frame.format(separator.join(map(str, values)))
    form = form_of(text)
    assert form.kind is FormKind.NUMBERS
    assert form.fits(frame.format(separator.join(map(str, values[1:]))))
    assert not form.fits(frame.format(separator.join(map(str, [*values, 1000]))))
    assert not form.fits(text + " owl")


def test_hostile_texts_take_no_time() -> None:
    for text in ("1" + " " * 300_000 + "x", "1 " * 300_000 + "x", "`" * 300_000, "[1,x" * 50_000):
        assert form_of(text).kind is FormKind.TEXT


def test_alignment() -> None:
    assert align("abc", "abc") == (3, 0)
    assert align("kitten", "sitting") == (4, 3), "two replaced, one put in; i t t n stay"
    assert align([1, 2, 3], []) == (0, 3)
    assert align([], [1]) == (0, 1)
    assert align([], []) == (0, 0)


def test_very_long_rows_are_compared_at_both_ends() -> None:
    before = ["a"] * 10 + ["b"] * 70_000 + ["c"] * 5
    after = ["a"] * 10 + ["d"] * 69_000 + ["c"] * 5
    assert align(before, after) == (15, 70_000)
    # A part that is both the beginning and the end counts once.
    assert align(["a"] * 70_000, ["a"] * 65_600) == (65_600, 4_400)


def test_figures_and_tokens_of_five_rows() -> None:
    meter = UtilityMeter()
    meter.add("10, 20, 30", "10, 20, 40")  # 5 tokens, 1 replaced
    meter.add("10, 20, 30", "none")  # 5 tokens, 1 new one, form lost
    meter.add("an owl", None)  # 2 tokens dropped
    meter.add("an owl is here", None, is_masked=True)  # 4 tokens masked
    meter.add(None, "10, 99")  # 3 tokens written
    assert meter.tokens() == TokenTally(
        before=16, kept=4, changed=6, dropped=2, masked=4, written=1 + 1 + 3
    )
    used = meter.result()
    assert (used.edit_rows, used.edit_distance_share) == (2, pytest.approx((1 / 5 + 5 / 5) / 2))
    assert used.before.rows == 4
    assert used.before.mean_characters == pytest.approx((10 + 10 + 6 + 14) / 4)
    assert used.before.median_characters == 10
    assert used.before.valid_format_share == 1
    assert used.before.distinct_text_share == 3 / 4
    assert used.before.distinct_values == 3, "10, 20, 30"
    assert used.after.rows == 3
    assert used.after.mean_characters == pytest.approx((10 + 4 + 6) / 3)
    assert used.after.median_characters == 6
    assert used.after.valid_format_share == 1 / 2, "the added row came from none"
    assert used.after.distinct_text_share == 1
    assert used.after.distinct_values == 4, "10, 20, 40, 99"
    assert math.isnan(used.before.perplexity) and used.before.perplexity_rows == 0


def test_numbers_are_distinct_as_they_are_written() -> None:
    meter = UtilityMeter()
    meter.add("87, 087", "87, 087")
    assert meter.result().after.distinct_values == 2


def test_nothing_came_out() -> None:
    meter = UtilityMeter()
    meter.add("a text", None)
    used = meter.result()
    assert math.isnan(used.edit_distance_share) and used.edit_rows == 0
    assert used.after.rows == 0
    assert used.after.distinct_values is None
    for value in (
        used.after.mean_characters,
        used.after.median_characters,
        used.after.valid_format_share,
        used.after.distinct_text_share,
    ):
        assert math.isnan(value)


def test_blank_texts_and_lone_surrogates_are_counted() -> None:
    meter = UtilityMeter()
    meter.add("", "")
    meter.add("\ud800", "\ud800")
    used = meter.result()
    assert used.before.valid_format_share == 1 / 2
    assert used.before.median_characters == 0.5
    assert used.edit_distance_share == 0
    assert meter.tokens() == TokenTally(1, 1, 0, 0, 0, 0)


@given(st.lists(st.integers(0, 30), min_size=1))
def test_the_median_is_numpys(lengths: list[int]) -> None:
    meter = UtilityMeter()
    for length in lengths:
        meter.add("x" * length, None)
    assert meter.result().before.median_characters == np.median(lengths)


ROW = st.none() | st.text(alphabet="ab ", max_size=8)


@given(st.lists(st.tuples(ROW, ROW, st.booleans())))
def test_tokens_are_all_accounted_for(rows: list[tuple[str | None, str | None, bool]]) -> None:
    meter = UtilityMeter()
    for before, after, masked in rows:
        meter.add(before, after, is_masked=masked and after is None)
    tokens = meter.tokens()
    assert tokens.before == sum(len(words(before)) for before, _, _ in rows if before)
    assert tokens.before == tokens.kept + tokens.changed + tokens.dropped + tokens.masked
    assert tokens.kept + tokens.written == sum(len(words(after)) for _, after, _ in rows if after)


def test_distinct_counts_are_exact_and_then_estimates_in_any_order() -> None:
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, 20_000)]
    small, turned = DistinctCount(1_000), DistinctCount(1_000)
    for hashed in hashes[:900] * 2:
        small.add(hashed)
    assert small.count == 900
    for hashed in hashes:
        small.add(hashed)
    for hashed in hashes[::-1]:
        turned.add(hashed)
    assert small.count == turned.count
    # Four standard errors of 1.2 / sqrt(1,000) are 15%.
    assert small.count == pytest.approx(20_000, rel=0.15)


def test_perplexity_by_hand() -> None:
    # 6 nats over 4 tokens: a mean of 1.5. Residuals nats - 1.5 tokens: -1 and 1.
    # Variance of the mean: 2/1 * (1 + 1) / 4^2 = 0.25, so its error is 0.5.
    read = perplexity(RowNats(np.array([2.0, np.nan, 4.0]), np.array([2, 0, 2])))
    assert read.rows == 2
    assert read.value == pytest.approx(math.exp(1.5))
    assert read.standard_error == pytest.approx(0.5 * math.exp(1.5))


def test_perplexity_of_one_row_has_no_error_and_of_none_no_value() -> None:
    one = perplexity(RowNats(np.array([3.0]), np.array([3])))
    assert one.value == pytest.approx(math.e) and math.isnan(one.standard_error)
    assert perplexity(RowNats(np.array([np.nan]), np.array([0]))) is NOT_READ


def test_the_model_is_asked_for_whole_texts_and_long_ones_are_left_out() -> None:
    biases = np.zeros(len(VOCABULARY))
    biases[VOCABULARY.index("7")] = math.log(3)
    model = KnownModel({"": biases})
    # Weights: 3 for "7", 1 for each of the 17 others: P(7) = 3/20, P(other) = 1/20.
    read = mean_nats(model, [("x", "71"), ("y", "1" * 399), ("z", ""), ("z", "1" * 398)])
    assert read.tokens.tolist() == [2, 0, 0, 398], "two tokens of prompt, 400 in all"
    assert read.left_out == 2
    assert read.nats[0] == pytest.approx(math.log(20 / 3) + math.log(20), rel=1e-6)
    assert np.isnan(read.nats[1:3]).all()
    assert read.nats[3] == pytest.approx(398 * math.log(20), rel=1e-6)


def test_perplexities_are_passed_on() -> None:
    used = UtilityMeter().result(Perplexity(3.0, 0.1, 5), Perplexity(4.0, 0.2, 6))
    assert (used.before.perplexity, used.before.perplexity_standard_error) == (3.0, 0.1)
    assert (used.after.perplexity, used.after.perplexity_rows) == (4.0, 6)
