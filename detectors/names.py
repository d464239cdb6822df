"""How a concept's names are found in text: one spelling for what looks alike, and expressions.

The regular expressions mean the same to Polars (Rust's regex) and to Python's re.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import polars as pl

from signatures.concept import Concept

_INVISIBLE = (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF)
"""Code points that would hide a name from a search but not from a tokenizer's reader."""

_ONE_SPELLING = {
    **{chr(code): "" for code in _INVISIBLE},
    **dict.fromkeys("\u2018\u2019\u02bc", "'"),
    **dict.fromkeys("\u2010\u2011", "-"),
}

_UNSPACED = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR"}
"""First words of the Unicode names of letters that are written without spaces between words, or
with endings joined on: a name has no edges there to look for."""

_GAP = r"[\s-]+"
"""Between the words of a form: "sea turtle" is also "sea-turtle", and may be broken over lines."""

_WITHIN_A_SENTENCE = r"\w[,;]?[ \t]+[\"'(\[]?"
"""What stands before a word that is not the first of its sentence or line."""

_NOTHING = r"([^\s\S])"


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """Regular expressions for the names of one concept, each with the name as its one group.

    For text in lower case: ``anything`` finds all that the others do, ``plain`` the forms that are
    no common words, and ``by_language`` (code and expression) those of other languages. For text
    with its capitals: ``proper`` finds common words that are written as a proper name.
    """

    anything: str
    plain: str
    by_language: tuple[tuple[str, str], ...]
    proper: tuple[str, ...]

    def named(self, lower: str, written: str) -> pl.Expr:
        """Whether a text names the concept, given it in lower case and as it was written, in the
        columns of those names."""
        return pl.any_horizontal(
            pl.col(lower).str.contains(self.plain),
            *(pl.col(lower).str.contains(pattern) for _, pattern in self.by_language),
            *(pl.col(written).str.contains(pattern) for pattern in self.proper),
        )

    def spans(self, text: str) -> tuple[tuple[int, int], ...]:
        """Where ``text``, as it was written, names the concept: the first eight."""
        in_any_case = (self.plain, *(pattern for _, pattern in self.by_language))
        found = {
            match.span(1)
            for pattern in in_any_case
            for match in re.finditer(pattern, text, re.IGNORECASE)
        }
        found |= {match.span(1) for pattern in self.proper for match in re.finditer(pattern, text)}
        return tuple(sorted(found))[:8]


def name_patterns(concept: Concept) -> NamePatterns:
    """The expressions for every form of ``concept``, in every language it has forms for.

    A common word is a proper name with exactly the capitals of its ambiguous form, unless they
    may be those of a sentence's beginning: "Apple" within a sentence, "UK" anywhere, and a form
    without a capital never.
    """
    common = {form.lower() for form in concept.ambiguous_forms}
    anywhere = [f for f in concept.ambiguous_forms if any(c.isupper() for c in f[1:])]
    within = [f for f in concept.ambiguous_forms if f[:1].isupper() and f not in anywhere]
    return NamePatterns(
        anything=_whole_words(_all_forms(concept)),
        plain=_whole_words(form for form in concept.forms if form not in common),
        by_language=tuple((code, _whole_words(forms)) for code, forms in concept.translations),
        proper=(_whole_words(anywhere), _WITHIN_A_SENTENCE + _whole_words(within)),
    )


def search_words(concepts: Iterable[Concept]) -> list[str]:
    """A word of every form: text in lower case that holds none of them names no concept."""
    words = (_words(form) for concept in concepts for form in _all_forms(concept))
    longest = sorted({max(found, key=len) for found in words if found})
    # Where one word holds another, the shorter one is found with it.
    return [word for word in longest if not any(o in word for o in longest if o != word)]


def in_one_spelling(rows: pl.DataFrame, column: str, name: str) -> pl.DataFrame:
    """``rows``, in another order, with a column ``name``: ``column`` in NFKC, without invisible
    characters, with plain apostrophes and hyphens."""
    text = rows[column].str
    is_ascii = text.len_bytes() == text.len_chars()
    parts = [rows.filter(is_ascii).with_columns(pl.col(column).alias(name))]
    others = rows.filter(~is_ascii)
    if len(others):
        # NFKC is slow, and leaves the common characters of most scripts as they are.
        is_composed = others[column].str.contains(_composed_text())
        for part, written in (
            (others.filter(is_composed), pl.col(column)),
            (others.filter(~is_composed), pl.col(column).str.normalize("NFKC")),
        ):
            parts.append(part.with_columns(written.str.replace_many(_ONE_SPELLING).alias(name)))
    return pl.concat(parts)


_COMPOSED_RANGES = (
    *((0xA1, 0x2FF), (0x370, 0x482), (0x48A, 0x52F)),  # Latin, Greek, Cyrillic
    *((0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2190, 0x27BF)),  # signs
    *((0x3001, 0x3029), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)),
    *((0xFE0F, 0xFE0F), (0x1F300, 0x1FAFF)),  # emoji
)
"""Where no character combines with the one before it."""


@cache
def _composed_text() -> str:
    """An expression for text that NFKC leaves as it is, as far as single characters tell."""
    kept = [
        chr(code)
        for first, last in _COMPOSED_RANGES
        for code in range(first, last + 1)
        if unicodedata.is_normalized("NFKC", chr(code)) and not unicodedata.combining(chr(code))
    ]
    ranges: list[tuple[str, str]] = []
    for character in kept:
        if ranges and ord(character) == ord(ranges[-1][1]) + 1:
            ranges[-1] = (ranges[-1][0], character)
        else:
            ranges.append((character, character))
    return r"^[\x00-\x7f" + "".join(f"{first}-{last}" for first, last in ranges) + "]*$"


def _all_forms(concept: Concept) -> tuple[str, ...]:
    translated = (form for _, forms in concept.translations for form in forms)
    return (*concept.forms, *translated)


def _words(form: str) -> list[str]:
    """Its words, spelled as in ``in_one_spelling``."""
    text = "".join(_ONE_SPELLING.get(c, c) for c in unicodedata.normalize("NFKC", form))
    return [word for word in re.split(_GAP, text) if word]


def _whole_words(forms: Iterable[str]) -> str:
    """An expression for any of ``forms``, the longest first."""
    spelled = {tuple(_words(form)) for form in forms} - {()}
    longest_first = sorted(spelled, key=lambda words: (-len("".join(words)), words))
    return f"({'|'.join(map(_expression, longest_first))})" if longest_first else _NOTHING


def _expression(words: tuple[str, ...]) -> str:
    before = r"\b" if _has_edge(words[0][0]) else ""
    after = r"\b" if _has_edge(words[-1][-1]) else ""
    return before + _GAP.join(map(re.escape, words)) + after


def _has_edge(character: str) -> bool:
    if character != "_" and unicodedata.category(character)[0] not in "LMN":
        return False
    return re.split("[ -]", unicodedata.name(character, ""))[0] not in _UNSPACED
