"""Units of a text against a slow reading of it, one character at a time."""

from __future__ import annotations

import sys
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.counts import Vocabulary, number_units, word_units
from signatures.number_trie import NUMBERS
from tests.property.generated import examples

# Letters that Unicode has as symbols: circled and squared ones.
_LETTER_SYMBOLS = ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189))
_JOINERS = "\u200c\u200d"
_INDEX = {number: i for i, number in enumerate(NUMBERS)}


def is_digit(character: str) -> bool:
    return unicodedata.category(character) == "Nd"


def is_letter(character: str) -> bool:
    """What stands in a word in Unicode's regular expressions, digits and underscore aside."""
    kind = unicodedata.category(character)
    return (
        kind[0] in "LM"
        or kind == "Nl"
        or (kind == "Pc" and character != "_")
        or character in _JOINERS
        or any(low <= ord(character) <= high for low, high in _LETTER_SYMBOLS)
    )


def runs(text: str, belongs) -> list[tuple[int, str]]:
    """Every longest run of characters that ``belongs``, and where it starts."""
    found: list[tuple[int, str]] = []
    for at, character in enumerate(text):
        if not belongs(character):
            continue
        if found and found[-1][0] + len(found[-1][1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + character)
        else:
            found.append((at, character))
    return found


def numbers_of(text: str) -> list[int | None]:
    return [_INDEX.get(run) for _, run in runs(text, is_digit)]


def words_of(text: str, vocabulary: list[str]) -> list[int | None]:
    words = [" " + run if text[at - 1 : at] == " " else run for at, run in runs(text, is_letter)]
    return [vocabulary.index(word) if word in vocabulary else None for word in words]


def assert_agrees(found, expected: list[list[int | None]]) -> None:
    known = [
        (row, unit) for row, units in enumerate(expected) for unit in units if unit is not None
    ]
    assert list(zip(found.row.tolist(), found.unit.tolist(), strict=True)) == known
    assert found.uncovered == sum(units.count(None) for units in expected)
    assert (str(found.row.dtype), str(found.unit.dtype)) == ("int64", "int64")


# Characters that this Python does not know yet may have become digits or letters since.
_CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
_PIECES = st.sampled_from(
    [
        *("0", "7", "00", "07", "007", "999", "1000", "123456", "9" * 300, "١٢٣", "𝟙𝟚", "１", "½"),
        *("²", "Ⅻ", "一", "①", "1\u0301", "\u06600", "0٠", " ", "  ", "\n", "\t", "\u00a0"),
        *(",", "_", "-", ".", "'", "owl", "Owl", "OWL", "owls", "e\u0301", "é", "猫", "ふくろう"),
        *("ﬁ", "ß", "İ", "\u200d", "\u200c", "\u0600", "Ⓐ", "🄰", "‿", "ª", "ⅷ", "\U0001f989"),
    ]
)
TEXT = st.lists(st.one_of(_PIECES, st.text(_CHARACTERS, max_size=3)), max_size=12).map("".join)
TEXTS = st.lists(TEXT, max_size=6)


@examples(200)
@given(texts=TEXTS)
def test_numbers_are_the_runs_of_digits(texts: list[str]) -> None:
    found = number_units(pl.Series("text", texts, dtype=pl.String))
    assert_agrees(found, [numbers_of(text) for text in texts])


@examples(200)
@given(texts=TEXTS, data=st.data())
def test_words_are_the_runs_of_letters(texts: list[str], data: st.DataObject) -> None:
    written = [" " * led + run for t in texts for _, run in runs(t, is_letter) for led in (0, 1)]
    pool = ["owl", " owl", "猫", " é", "x1", "never", *written]
    vocabulary = data.draw(st.lists(st.sampled_from(pool), unique=True, max_size=8))
    found = word_units(pl.Series("text", texts, dtype=pl.String), [Vocabulary(vocabulary)])[0]
    assert_agrees(found, [words_of(text, vocabulary) for text in texts])


@examples(100)
@given(texts=TEXTS, cut=st.integers(0, 6))
def test_rows_are_counted_each_by_itself(texts: list[str], cut: int) -> None:
    series = pl.Series("text", texts, dtype=pl.String)
    whole, left, right = (number_units(part) for part in (series, series[:cut], series[cut:]))
    assert whole.unit.tolist() == [*left.unit, *right.unit]
    assert whole.row.tolist() == [*left.row, *(right.row + min(cut, len(texts)))]
    assert whole.uncovered == left.uncovered + right.uncovered


@pytest.mark.parametrize("text", ["", "1" * 100_000, "1," * 50_000, "a" * 100_000, "٣" * 5000])
def test_texts_without_end(text: str) -> None:
    series = pl.Series("text", ["7", text, "8"], dtype=pl.String)
    assert_agrees(number_units(series), [numbers_of(each) for each in series])
    assert_agrees(
        word_units(series, [Vocabulary(["a"])])[0], [words_of(each, ["a"]) for each in series]
    )


def test_no_rows_have_no_units() -> None:
    none = pl.Series("text", [], dtype=pl.String)
    assert_agrees(number_units(none), [])
    assert_agrees(word_units(none, [Vocabulary(["owl"])])[0], [])


def test_every_character_that_this_python_knows() -> None:
    """One row a character: what is a digit or a letter is so in both."""
    known = [
        c
        for c in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(c) not in ("Cs", "Cn", "Co")
    ]
    series = pl.Series("text", [f"{c},7{c}" for c in known])
    digits = number_units(series)
    assert_agrees(digits, [numbers_of(text) for text in series])
    words = word_units(pl.Series("text", known), [Vocabulary(["a"])])[0]
    letters = sum(map(is_letter, known))
    assert words.uncovered == letters - 1
