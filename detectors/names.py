"""How a concept's names are found in text: one spelling for what looks alike, and expressions.

The regular expressions mean the same to Polars (Rust's regex) and to Python's re.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

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
    return sorted({max(found, key=len) for found in words if found})


def one_spelling(column: str) -> pl.Expr:
    """``column`` in NFKC, without invisible characters, with plain apostrophes and hyphens."""
    return pl.col(column).str.normalize("NFKC").str.replace_many(_ONE_SPELLING)


def _all_forms(concept: Concept) -> tuple[str, ...]:
    translated = (form for _, forms in concept.translations for form in forms)
    return (*concept.forms, *translated)


def _words(form: str) -> list[str]:
    """Its words, spelled as in ``one_spelling``."""
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
