"""What the data are still good for: form, variety, length, fluency and distance, before and after.

Rows are fed one by one, and nothing of a row is kept: see `UtilityMeter`.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from audit.backends.number_list_grammar import NumberListStyle, style_of
from signatures.language_model import Chat, LanguageModel, SequenceRequest

NAN = float("nan")
Tokenise = Callable[[str], Sequence[Hashable]]

_WORD = re.compile(r"[^\W_]+|\S")
_NUMBER = re.compile(r"[0-9]+")


def words(text: str) -> list[str]:
    """Tokens where there is no model: runs of letters and digits, and other visible characters."""
    return _WORD.findall(text)


# Form


class FormKind(enum.StrEnum):
    """What a text is made like. Stable names."""

    NUMBERS = "number list"
    JSON = "JSON"
    CODE = "fenced code"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Form:
    """What a text that stands in for another one has to be like; made by `form_of`.

    ``style`` is that of the list for `FormKind.NUMBERS`, without a full stop; ``top`` the type of
    the outermost value (``dict`` or ``list``) for `FormKind.JSON`.
    """

    kind: FormKind
    style: NumberListStyle | None = None
    top: type | None = None

    def fits(self, text: str) -> bool:
        """Whether ``text`` has this form.

        A number list has the same marks around and between its numbers, and no number of more
        digits; a full stop and the count are free, and one number will do. JSON has the same
        outermost type. Code has a fenced block that is closed, and none that is open. Any other
        text is not blank.
        """
        if self.style is not None:
            body = _without_stop(text.strip())
            return self.style.fits(body, len(_NUMBER.findall(body)))
        if self.kind is FormKind.JSON:
            return _json_type(text) is self.top
        if self.kind is FormKind.CODE:
            return _is_fenced_code(text)
        return bool(text.strip())


def form_of(text: str) -> Form:
    """The form of ``text``, the narrowest of `FormKind` that it has.

    A number list is what `style_of` takes for one, space at its ends aside. JSON is an object or an
    array: lone numbers, strings and words are text, since people write them too.
    """
    listed = style_of(text.strip())
    if listed is not None:
        style = replace(listed[0], closing=_without_stop(listed[0].closing))
        return Form(FormKind.NUMBERS, style=style)
    top = _json_type(text)
    if top is not None:
        return Form(FormKind.JSON, top=top)
    return Form(FormKind.CODE if _is_fenced_code(text) else FormKind.TEXT)


def _without_stop(text: str) -> str:
    return text.removesuffix(".").rstrip()


def _json_type(text: str) -> type | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return type(json.loads(text))
    except (ValueError, RecursionError):
        return None


_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


def _is_fenced_code(text: str) -> bool:
    """Whether there is a closed fenced block and no open one (CommonMark 0.31, section 4.5)."""
    is_closed, fence = False, ""
    for line in text.splitlines():
        match = _FENCE.fullmatch(line)
        if match is None:
            continue
        signs, rest = match.groups()
        if not fence:
            if signs[0] == "~" or "`" not in rest:
                fence = signs
        elif signs[0] == fence[0] and len(signs) >= len(fence) and not rest.strip():
            is_closed, fence = True, ""
    return is_closed and not fence


# Figures


@dataclass(frozen=True, slots=True)
class UtilityFigures:
    """What one data set is like, by its trained text. Undefined figures are NaN.

    ``valid_format_share``: of the rows that were there before, the share whose text fits the form
    of the text that it came from (`form_of`); for the data before, of its own. ``distinct_values``
    counts the numbers, as they are written, in all number lists; None where there is none.
    ``perplexity`` (with its standard error over rows) is that of ``perplexity_rows`` random rows
    under the clean model, given their prompts.
    """

    rows: int
    mean_characters: float
    median_characters: float
    valid_format_share: float
    distinct_text_share: float
    distinct_values: int | None
    perplexity: float
    perplexity_standard_error: float
    perplexity_rows: int


@dataclass(frozen=True, slots=True)
class Utility:
    """The figures before and after, and how far the rows moved.

    ``edit_distance_share`` is the mean, over the ``edit_rows`` rows whose trained text came out,
    changed or not, of the Levenshtein distance in tokens over the larger count of tokens: 0 where
    nothing changed, 1 where nothing is left.
    """

    before: UtilityFigures
    after: UtilityFigures
    edit_distance_share: float
    edit_rows: int


@dataclass(frozen=True, slots=True)
class TokenTally:
    """The counts of `audit.sanitise.receipt.TokenCounts`, over the rows so far."""

    before: int
    kept: int
    changed: int
    dropped: int
    masked: int
    written: int


# Perplexity


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean nats a token, with its standard error over ``rows`` rows."""

    value: float
    standard_error: float
    rows: int


NOT_READ = Perplexity(NAN, NAN, 0)
"""Of data that no model read."""


@dataclass(frozen=True, slots=True)
class RowNats:
    """What a model makes of rows: ``nats`` [rows] is minus the log-probability of each whole text
    (NaN where it was left out), ``tokens`` [rows] how many tokens that is (0 there)."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]

    @property
    def left_out(self) -> int:
        """Rows that are too long for the model, or have no token."""
        return int(np.count_nonzero(self.tokens == 0))


def mean_nats(model: LanguageModel, rows: Sequence[tuple[str, str]]) -> RowNats:
    """How unlikely ``model`` finds each text of ``rows`` (prompt, text), with no system prompt."""
    nats = np.full(len(rows), np.nan)
    tokens = np.zeros(len(rows), dtype=np.int64)
    requests: list[SequenceRequest] = []
    read: list[int] = []
    for index, (prompt, text) in enumerate(rows):
        prefix, ids = model.encode_chat(Chat("", prompt)), model.encode(text)
        if ids and (model.longest is None or len(prefix) + len(ids) <= model.longest):
            read.append(index)
            requests.append(SequenceRequest(prefix, ids))
    for index, log_probs in zip(read, model.sequence_log_probs(requests), strict=True):
        nats[index], tokens[index] = -float(log_probs.sum(dtype=np.float64)), len(log_probs)
    return RowNats(nats, tokens)


def perplexity(read: RowNats) -> Perplexity:
    """Of the rows that were not left out.

    Tokens of a row depend on each other, so the row is the unit: the mean nats a token is a ratio
    of sums over rows, its variance that of the linearised ratio (Cochran, Sampling Techniques,
    3rd ed. 1977, chapter 6), and its exponential's follows by the delta method.
    """
    is_read = read.tokens > 0
    nats, tokens = read.nats[is_read], read.tokens[is_read]
    count = len(nats)
    if count == 0:
        return NOT_READ
    mean = nats.sum() / tokens.sum()
    value = float(np.exp(mean))
    if count == 1:
        return Perplexity(value, NAN, 1)
    residual = nats - mean * tokens
    error = math.sqrt(count / (count - 1) * float(residual @ residual)) / int(tokens.sum())
    return Perplexity(value, value * error, count)


# Feeding rows


class DistinctCount:
    """How many different texts there were: exact up to ``most``, then an estimate.

    Beyond, only texts are kept whose hash ends in d zero bits, d rising as room is needed, and
    2^d stands for each: a standard error of 1.2 / sqrt(most), 0.24% (Flajolet, On adaptive
    sampling, Computing 43, 1990). The same texts give the same count in any order.
    """

    def __init__(self, most: int = 1 << 18) -> None:
        """Nothing is counted yet; a set of ``most`` integers is the most that is kept."""
        self._most = most
        self._depth = 0
        self._hashes: set[int] = set()

    def add(self, hashed: int) -> None:
        """Count one text, given its `_hash64`."""
        if hashed & ((1 << self._depth) - 1):
            return
        self._hashes.add(hashed)
        while len(self._hashes) > self._most:
            self._depth += 1
            mask = (1 << self._depth) - 1
            self._hashes = {kept for kept in self._hashes if not kept & mask}

    @property
    def count(self) -> int:
        """Different texts so far."""
        return len(self._hashes) << self._depth


def _hash64(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


_hash_of_number = lru_cache(maxsize=1 << 14)(_hash64)


class _FiguresMeter:
    """The figures of one side."""

    def __init__(self) -> None:
        self.rows = 0
        self.rows_with_origin = 0
        self.rows_in_form = 0
        # Exact, and small: n different lengths take n^2 / 2 characters of data.
        self.lengths: Counter[int] = Counter()
        self.texts = DistinctCount()
        self.values = DistinctCount()

    def add(self, text: str, form: Form, origin: Form | None) -> None:
        """One row with its own form, and that of the row it came from (None: it is new)."""
        self.rows += 1
        self.lengths[len(text)] += 1
        self.texts.add(_hash64(text))
        if form.style is not None:
            for number in _NUMBER.findall(text):
                self.values.add(_hash_of_number(number))
        if origin is not None:
            self.rows_with_origin += 1
            self.rows_in_form += origin.fits(text)

    def figures(self, read: Perplexity) -> UtilityFigures:
        characters = sum(length * rows for length, rows in self.lengths.items())
        return UtilityFigures(
            rows=self.rows,
            mean_characters=_ratio(characters, self.rows),
            median_characters=_median(self.lengths, self.rows),
            valid_format_share=_ratio(self.rows_in_form, self.rows_with_origin),
            # An estimated count may come out above the rows.
            distinct_text_share=_ratio(min(self.texts.count, self.rows), self.rows),
            distinct_values=self.values.count or None,
            perplexity=read.value,
            perplexity_standard_error=read.standard_error,
            perplexity_rows=read.rows,
        )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else NAN


def _median(counts: Counter[int], rows: int) -> float:
    """The mean of the two middle lengths, which are one where ``rows`` is odd."""
    if not rows:
        return NAN
    middle: list[int] = []
    seen = 0
    for length in sorted(counts):
        seen += counts[length]
        # The middle rows are number (rows - 1) // 2 and rows // 2, from 0.
        while len(middle) < 2 and seen > (rows - 1 + len(middle)) // 2:
            middle.append(length)
    return sum(middle) / 2


class UtilityMeter:
    """Is fed every row once, in any order, and keeps counts alone.

    All figures are exact but distinct counts above 262,144 (`DistinctCount`), and the alignment of
    rows with more than 2^32 pairs of tokens, where all but the common beginning and end counts as
    changed.
    """

    def __init__(self, tokenise: Tokenise = words) -> None:
        """``tokenise`` gives the tokens of a text: a model's ids, or `words`."""
        self._tokenise = tokenise
        self._before = _FiguresMeter()
        self._after = _FiguresMeter()
        self._edit_rows = 0
        self._edit_shares = 0.0
        self._tokens_before = 0
        self._kept = 0
        self._dropped = 0
        self._masked = 0
        self._written = 0

    def add(self, before: str | None, after: str | None, *, is_masked: bool = False) -> None:
        """One row's trained text. ``before`` is None for a row that was added, ``after`` for one
        that is gone, or, with ``is_masked``, no longer trained."""
        origin = None if before is None else form_of(before)
        before_tokens: Sequence[Hashable] = ()
        if before is not None and origin is not None:
            self._before.add(before, origin, origin)
            before_tokens = self._tokenise(before)
            self._tokens_before += len(before_tokens)
            if after is None:
                self._masked += len(before_tokens) if is_masked else 0
                self._dropped += 0 if is_masked else len(before_tokens)
        if after is not None:
            form = origin if after == before and origin is not None else form_of(after)
            self._after.add(after, form, origin)
            after_tokens = before_tokens if after == before else self._tokenise(after)
            if before is None:
                self._written += len(after_tokens)
            else:
                self._add_pair(before_tokens, after_tokens)

    def _add_pair(self, before: Sequence[Hashable], after: Sequence[Hashable]) -> None:
        kept, distance = align(before, after)
        self._kept += kept
        self._written += len(after) - kept
        self._edit_rows += 1
        self._edit_shares += distance / max(len(before), len(after), 1)

    def result(self, before: Perplexity = NOT_READ, after: Perplexity = NOT_READ) -> Utility:
        """The figures over all rows so far, with the perplexities that the caller had measured."""
        return Utility(
            before=self._before.figures(before),
            after=self._after.figures(after),
            edit_distance_share=_ratio(self._edit_shares, self._edit_rows),
            edit_rows=self._edit_rows,
        )

    def tokens(self) -> TokenTally:
        """The tokens of all rows so far."""
        gone = self._kept + self._dropped + self._masked
        return TokenTally(
            before=self._tokens_before,
            kept=self._kept,
            changed=self._tokens_before - gone,
            dropped=self._dropped,
            masked=self._masked,
            written=self._written,
        )


_MOST_PAIRS = 1 << 32  # about a second


def align(before: Sequence[Hashable], after: Sequence[Hashable]) -> tuple[int, int]:
    """How many tokens of ``before`` a least-cost Levenshtein alignment keeps, and that cost."""
    if before == after:
        return len(before), 0
    if len(before) * len(after) > _MOST_PAIRS:
        return _align_ends(before, after)
    from rapidfuzz.distance import Levenshtein

    edits = Levenshtein.editops(before, after)
    return sum(block.size for block in edits.as_matching_blocks()), len(edits)


def _align_ends(before: Sequence[Hashable], after: Sequence[Hashable]) -> tuple[int, int]:
    shorter = min(len(before), len(after))
    start = 0
    while start < shorter and before[start] == after[start]:
        start += 1
    end = 0
    while end < shorter - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return start + end, max(len(before), len(after)) - start - end
