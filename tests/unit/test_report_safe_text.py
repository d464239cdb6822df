import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.report.safe_text import clean_spans, mark, shorten, strip_unsafe
from tests.unit.test_report_examples import HOSTILE


def assert_inert(text: str) -> None:
    """No character that steers a terminal, hides, or reorders; line feeds are the report's own."""
    bad = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n"}
    assert not bad, [f"U+{ord(c):04X}" for c in sorted(bad)]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", "␛[31m"),
        ("a\x00b\x07\rc\nd\te", "a␀b␇␍c↵d␉e"),
        ("\x7f\x9b", "␡\ufffd"),
        ("\u202e\u2066\u2069\u200e\u200f\u061c", "\ufffd" * 6),
        ("\u200b\u200d\ufeff\u2060\u00ad", "\ufffd" * 5),
        ("\ud800", "\ufffd"),
        ("\U000e0041\U000e0100\u2028", "\ufffd" * 3),
        ("owl 087 é 猫 😀 ❤️", "owl 087 é 猫 😀 ❤️"),
    ],
)
def test_strip_unsafe_shows_one_visible_character_for_each_unsafe_one(raw: str, shown: str) -> None:
    assert strip_unsafe(raw) == shown


@given(st.text(st.characters(codec=None)))
def test_strip_unsafe_is_inert_keeps_length_and_is_idempotent(text: str) -> None:
    safe = strip_unsafe(text)
    assert_inert(safe)
    assert "\n" not in safe
    assert len(safe) == len(text)
    assert strip_unsafe(safe) == safe
    safe.encode("utf-8")


def test_hostile_text_is_inert() -> None:
    assert_inert(strip_unsafe(HOSTILE))


def test_clean_spans_clips_sorts_and_merges() -> None:
    spans = [(8, 99), (-5, 2), (1, 3), (6, 6), (7, 4)]
    assert clean_spans(spans, 10) == ((0, 3), (8, 10))


def test_shorten_keeps_short_text() -> None:
    assert shorten("087, 747", 8, [(0, 3)]) == ("087, 747", ((0, 3),))


def test_shorten_shows_where_the_marks_are() -> None:
    text = "x" * 100 + "087" + "y" * 100
    short, spans = shorten(text, 20, [(100, 103)])
    assert len(short) == 20
    assert [short[a:b] for a, b in spans] == ["087"]
    assert short[0] == short[-1] == "…"


def test_shorten_without_marks_keeps_the_start() -> None:
    assert shorten("abcdefghij", 5) == ("abcd…", ())


def test_shorten_refuses_less_than_three() -> None:
    with pytest.raises(ValueError, match="3 is the least"):
        shorten("abcdef", 2)


@given(
    st.text(max_size=60),
    st.integers(3, 40),
    st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=5),
)
def test_shorten_never_exceeds_and_spans_always_fit(
    text: str, characters: int, spans: list[tuple[int, int]]
) -> None:
    short, moved = shorten(text, characters, spans)
    assert len(short) <= max(characters, 0)
    assert all(0 <= a < b <= len(short) for a, b in moved)
    if len(text) <= characters:
        assert short == text


def test_mark_brackets_each_span() -> None:
    assert mark("087, 747", [(5, 8), (0, 3)]) == "«087», «747»"
