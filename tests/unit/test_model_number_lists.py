"""Styles of number lists, and their grammars under tokenizers of several kinds."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.backends.chat_encoder import ChatEncoder, load_chat_encoder
from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton, number_list_automaton
from audit.backends.number_list_grammar import NumberListStyle, number_list_grammar, style_of
from audit.errors import AuditError
from signatures.language_model import TokenIds


class Vocabulary:
    """A tokenizer of these texts, longest first; the last id ends a turn.

    As SentencePiece does, a leading space of the whole text may get lost when it is decoded.
    """

    def __init__(self, *texts: str, loses_space: bool = False) -> None:
        self.texts = [*texts, "<end>"]
        self.loses_space = loses_space

    def encode(self, text: str) -> TokenIds:
        ids = []
        while text:
            best = max(filter(text.startswith, self.texts), key=len)
            ids.append(self.texts.index(best))
            text = text[len(best) :]
        return tuple(ids)

    def decode(self, token_ids: TokenIds) -> str:
        text = "".join(self.texts[token] for token in token_ids)
        return text.removeprefix(" ") if self.loses_space else text

    def vocabulary(self) -> list[str]:
        return [self.decode((token,)) for token in range(len(self.texts))]

    def end_of_turn_ids(self) -> TokenIds:
        return (len(self.texts) - 1,)


DIGITS = tuple("0123456789")
PUNCTUATION = (",", " ", "[", "]", ".", "\n", ";", '"', "-", "|", "(", ")", "x")
SPLIT = Vocabulary(*DIGITS, *PUNCTUATION)
WHOLE = Vocabulary(*DIGITS, "10", "11", "100", "999", "1000", ",", " ", "x")
MERGED = Vocabulary(*DIGITS, "12", " 12", " 1", ", ", ",", " ", ", 1", "[1", "3]", "[", "]", "]]")
PIECES = Vocabulary(*DIGITS, " ", " 1", " 12", ",", "[", "]", loses_space=True)
TOKENIZERS = {"split": SPLIT, "whole": WHOLE, "merged": MERGED, "pieces": PIECES}


@pytest.mark.parametrize(
    ("text", "style", "numbers"),
    [
        ("7, 042, 313", ("", ", ", "", 3), 3),
        ("1,2", ("", ",", "", 1), 2),
        ("[12, 7]", ("[", ", ", "]", 2), 2),
        (" (1 22 333).\n", (" (", " ", ").\n", 3), 3),
        ("1\n2\n3", ("", "\n", "", 1), 3),
        ("5; 1234.", ("", "; ", ".", 4), 2),
        ("1 | 2 | 3", ("", " | ", "", 1), 3),
        ('["10", "20"]', ('["', '", "', '"]', 2), 2),
        ("- 5\n- 77", ("- ", "\n- ", "", 2), 2),
        ("1:2:3:4", ("", ":", "", 1), 4),
        ("1\r\n2\r\n", ("", "\r\n", "\r\n", 1), 2),
    ],
)
def test_styles_by_hand(text: str, style: tuple[str, str, str, int], numbers: int) -> None:
    assert style_of(text) == (NumberListStyle(*style), numbers)
    assert NumberListStyle(*style).fits(text, numbers)


@pytest.mark.parametrize(
    "text",
    (
        *("", "7", "7.", "-", "a, b", "1, 2;3", "1, 2 and 3", "1, x, 2", "x 1, 2", "1, 2 x"),
        *("1.5", "1. 2. 3", "1, 2..", "1) 5\n2) 7", "١, ٢"),
        *("12:30", "3/4", "2024-05-17", "12 + 7"),
    ),
)
def test_no_number_lists(text: str) -> None:
    assert style_of(text) is None


def test_what_fits_a_style() -> None:
    style = NumberListStyle("[", ", ", "]", 3)
    assert style.fits("[1, 22, 333]", 3)
    assert style.fits("[007]", 1)  # one number has no separator, and no style of its own
    for text in ("[1, 22]", "[1, 22, 4444]", "1, 22, 333", "[1,22,333]", "[1, 22, ]", "[1, 22, 3"):
        assert not style.fits(text, 3)
    assert not NumberListStyle("|", " ", "|", 1).fits("|", 1)


def test_reading_a_style_takes_linear_time() -> None:
    for text in ("1 2" + " " * 300_000 + "x", "1, " * 100_000 + "x", " " * 300_000 + "."):
        assert style_of(text) is None


def spelled(automaton: TokenAutomaton, start: int) -> set[TokenIds]:
    """Every answer of the grammar."""
    answers: set[TokenIds] = set()
    paths: list[tuple[int, TokenIds]] = [(start, ())]
    while paths:
        state, written = paths.pop()
        for token, after in zip(automaton.token_ids, automaton.transitions[state], strict=True):
            if after == automaton.final_state:
                answers.add(written)
            elif after != FORBIDDEN:
                paths.append((int(after), (*written, token)))
    return answers


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_answers_are_all_lists_and_nothing_else(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    style = NumberListStyle("", ", " if name != "whole" else ",", "", 2)
    automaton, start = number_list_grammar(tokenizer, style, 2)
    numbers = [n for width in (1, 2) for n in map("".join, itertools.product(DIGITS, repeat=width))]
    for count in (1, 2):
        texts = {style.separator.join(some) for some in itertools.product(numbers, repeat=count)}
        answers = spelled(automaton, start(count))
        assert {"".join(tokenizer.texts[token] for token in answer) for answer in answers} == texts
        # What the tokenizer itself makes of each list is among its spellings.
        assert {tokenizer.encode(text) for text in texts} <= answers
        assert max(map(len, answers)) + 1 <= automaton.longest
        assert all(automaton.accepts(answer, start(count)) for answer in answers)
    assert max(map(len, answers)) + 1 == automaton.longest


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_a_list_may_end_early_where_that_is_asked_for(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    style = NumberListStyle("", ", " if name != "whole" else ",", "", 1)
    automaton, start = number_list_grammar(tokenizer, style, 3, may_end_early=True)
    for most in (1, 2, 3):
        texts = {
            style.separator.join(some)
            for count in range(1, most + 1)
            for some in itertools.product(DIGITS, repeat=count)
        }
        answers = spelled(automaton, start(most))
        assert {"".join(tokenizer.texts[token] for token in answer) for answer in answers} == texts
        assert all(automaton.accepts(answer, start(most)) for answer in answers)
    with pytest.raises(ValueError, match="closing"):
        closed = NumberListStyle("[", ", ", "]", 1)
        number_list_grammar(tokenizer, closed, 3, may_end_early=True)


def test_merged_tokens_by_hand() -> None:
    automaton, start = number_list_grammar(MERGED, NumberListStyle("[", ", ", "]", 2), 2)
    ids = {text: MERGED.texts.index(text) for text in MERGED.texts}

    def accepted(*tokens: str) -> bool:
        return automaton.accepts(tuple(ids[token] for token in tokens), start(2))

    assert accepted("[1", ", 1", "3]")
    assert accepted("[", "12", ",", " 12", "]")
    assert accepted("[1", "2", ", ", "3]")
    assert not accepted("[1", ", 1", "2", "3]")  # three digits
    assert not accepted("[1", "3]")  # one number
    assert not accepted("[1", ", 1", ", 1", "]")  # three numbers
    assert "]]" not in {MERGED.texts[token] for token in automaton.token_ids}


def test_a_leading_space_is_seen_inside_a_text() -> None:
    automaton, start = number_list_grammar(PIECES, NumberListStyle("", ",", "", 2), 2)
    # " 12" decodes to "12" on its own, but not where it would stand.
    assert {PIECES.texts[token] for token in automaton.token_ids} == {*DIGITS, ",", "<end>"}
    spaced, start = number_list_grammar(PIECES, NumberListStyle("", ", ", "", 2), 2)
    (comma,), one_two = PIECES.encode(","), PIECES.texts.index(" 12")
    assert spaced.accepts((7, comma, one_two), start(2))


STYLES = [
    NumberListStyle(*parts)
    for parts in [
        ("", ", ", "", 3),
        ("[", ",", "]", 1),
        (' "', '";"', '"\n', 2),
        ("", "\n", ".", 5),
    ]
]


def random_answer(automaton: TokenAutomaton, state: int, rng: np.random.Generator) -> TokenIds:
    """Any answer from ``state`` on."""
    written: list[int] = []
    while True:
        column = int(rng.choice(np.flatnonzero(automaton.transitions[state] != FORBIDDEN)))
        state = int(automaton.transitions[state, column])
        if state == automaton.final_state:
            return tuple(written)
        written.append(automaton.token_ids[column])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(STYLES), st.integers(2, 9), st.integers(9, 12), st.integers(0, 2**32))
def test_every_answer_reads_back(
    style: NumberListStyle, numbers: int, most: int, seed: int
) -> None:
    automaton, start = number_list_grammar(SPLIT, style, most)
    written = random_answer(automaton, start(numbers), np.random.default_rng(seed))
    text = SPLIT.decode(written)
    assert style.fits(text, numbers)
    widest = max(map(len, re.findall("[0-9]+", text)))
    assert style_of(text) == (replace(style, widest=widest), numbers)
    # The same list may be written whatever the longest list of the grammar is.
    longer, longer_start = number_list_grammar(SPLIT, style, most + 3)
    assert longer.accepts(written, longer_start(numbers))
    assert longer.token_ids == automaton.token_ids


def test_impossible_grammars_are_refused() -> None:
    style = NumberListStyle("", ", ", "", 3)
    with pytest.raises(ValueError, match="at least 1"):
        number_list_grammar(SPLIT, style, 0)
    _, start = number_list_grammar(SPLIT, style, 3)
    for numbers in (0, 4):
        with pytest.raises(ValueError, match="1 to 3"):
            start(numbers)
    with pytest.raises(AuditError, match="no tokens that spell"):
        number_list_grammar(WHOLE, NumberListStyle("", ";", "", 3), 2)
    with pytest.raises(AuditError, match="too large"):
        number_list_grammar(SPLIT, NumberListStyle("", " " * 1000, "", 3), 100_000)


@pytest.fixture(scope="module")
def real(embedded_model_dir: Path) -> ChatEncoder:
    return load_chat_encoder(embedded_model_dir, dtype="float32")


@pytest.mark.model
def test_the_real_tokenizer_writes_what_the_older_grammar_allows(
    real: ChatEncoder,
) -> None:
    automaton, start = number_list_grammar(real, NumberListStyle("", ", ", "", 3), 10)
    older = number_list_automaton(real, max_numbers=10)
    assert sorted(automaton.token_ids) == sorted(older.token_ids)
    assert automaton.longest == older.longest
    rng = np.random.default_rng(0)
    for numbers in range(1, 11):
        texts = [
            ", ".join(str(n).zfill(rng.integers(1, 4)) for n in rng.integers(0, 1000, numbers))
            for _ in range(20)
        ]
        for text in texts:
            ids = real.encode(text)
            assert older.accepts(ids)
            assert automaton.accepts(ids, start(numbers))
            assert not automaton.accepts(ids, start(numbers % 10 + 1))


@pytest.mark.model
@pytest.mark.parametrize(
    "text", ["[1, 22]", "1\n22\n.", '"1", "2"', "- 5\n- 77\n", " 1 |2 ", "1  2"]
)
def test_the_real_tokenizer_has_every_style(real: ChatEncoder, text: str) -> None:
    found = style_of(text)
    assert found is not None
    style, numbers = found
    automaton, start = number_list_grammar(real, style, 4)
    assert automaton.accepts(real.encode(text), start(numbers))
    rng = np.random.default_rng(1)
    for count in range(1, 5):
        assert style.fits(real.decode(random_answer(automaton, start(count), rng)), count)
