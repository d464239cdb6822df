"""Units of a row's trained text: numbers, and words that are single tokens.

A regular expression says which characters each kind is made of; the text itself is read as one
array of bytes, several times as fast as by the expression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

NUMBER_PATTERN = r"\d+"
_LETTERS_PATTERN = r"[^\W\d_]+"
WORD_PATTERN = f" ?{_LETTERS_PATTERN}"
"""Letters with an optional space before them. Polars counts with it, Python only marks evidence."""

_ZERO, _SPACE, _A, _CASE_BIT = b"0 a\x20"
_PIECE_BYTES = 1 << 20
"""Bytes that are looked at together: their arrays fit a cache, and bound the memory."""

_PART_BYTES = 8
_LONGEST_WORD_BYTES = 128
_FIRST_BYTES = np.array([(1 << (8 * n)) - 1 for n in range(_PART_BYTES + 1)], dtype=np.uint64)
_MULTIPLIER = 0x9E3779B97F4A7C15
_BUCKETS_PER_WORD = 32

Keys = NDArray[np.uint64]
"""Words as [P, N]: the first 8 P bytes of each, zeros behind its end."""


@dataclass(frozen=True, slots=True)
class UnitRows:
    """The units of a batch of rows, flat and in reading order.

    ``row`` [N] is ascending (position of the row in the frame); ``unit`` [N] indexes the unit
    list; ``uncovered`` counts units of that kind which the list does not hold.
    """

    row: NDArray[np.int64]
    unit: NDArray[np.int64]
    uncovered: int


class Vocabulary:
    """Words to look for, as byte-level BPE tokenizers split them first: an optional leading space
    and a run of letters. A word's place among them is its index."""

    def __init__(self, units: Sequence[str]) -> None:
        """``units`` are all different. What is no such word, or has more than 128 bytes, is never
        found."""
        stored = [unit.encode() for unit in units]
        kept = [
            i
            for i, unit in enumerate(stored)
            if 0 < len(unit) <= _LONGEST_WORD_BYTES and b"\0" not in unit
        ]
        self.parts = max((-(-len(stored[i]) // _PART_BYTES) for i in kept), default=1)
        ends = np.cumsum([len(stored[i]) for i in kept], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])[: len(kept)]
        text = b"".join(stored[i] for i in kept) + bytes(self.parts * _PART_BYTES)
        keys = _keys(text, starts, ends, self.parts)
        hashes = _hashed(keys)
        order = np.argsort(hashes, kind="stable")
        self._keys, self._index = keys[:, order], np.array(kept, dtype=np.int64)[order]
        # Words in order of their hashes: those whose leading bits are b begin at first[b].
        bits = max(1, (_BUCKETS_PER_WORD * len(kept)).bit_length())
        self._shift = np.uint64(64 - bits)
        bucket = (hashes[order] >> self._shift).astype(np.int64)
        self._first = np.searchsorted(bucket, np.arange((1 << bits) + 1)).astype(np.int32)
        self._longest_bucket = int(np.bincount(bucket).max()) if kept else 0

    def indices(self, keys: Keys) -> NDArray[np.int64]:
        """The index of each whole word [N], -1 for those that it does not hold; ``keys`` have at
        least ``parts`` parts."""
        found = np.full(keys.shape[1], -1, dtype=np.int64)
        bucket = (_hashed(keys) >> self._shift).astype(np.int64)
        place, end = self._first[bucket], self._first[bucket + 1]
        for _ in range(self._longest_bucket):
            asked = np.flatnonzero((place < end) & (found < 0))
            here = place[asked]
            same = self._keys[0, here] == keys[0, asked]
            for part in range(1, len(keys)):
                expected = self._keys[part, here] if part < self.parts else np.uint64(0)
                same &= keys[part, asked] == expected
            found[asked[same]] = self._index[here[same]]
            place = place + 1
        return found


def vocabulary_frame(units: Sequence[str]) -> pl.DataFrame:
    """Columns ``unit`` and ``index``, its place among ``units``."""
    return pl.DataFrame(
        {"unit": list(units), "index": np.arange(len(units), dtype=np.int64)},
        schema={"unit": pl.String, "index": pl.Int64},
    )


def number_units(text: pl.Series) -> UnitRows:
    """Every run of 1 to 3 digits in ``text``, as an index into ``number_trie.NUMBERS``.

    A longer run of digits, or one of another script, is one uncovered unit: its parts are no
    numbers of their own.
    """
    return _together([_numbers(piece) for piece in _pieces(text)])


def word_units(text: pl.Series, vocabularies: Sequence[Vocabulary]) -> list[UnitRows]:
    """For each of ``vocabularies``, every word of ``text`` that it holds.

    A word of a vocabulary is found exactly where the tokenizer would see the whole of it at once.
    """
    found: list[list[UnitRows]] = [[] for _ in vocabularies]
    most_parts = max(vocabulary.parts for vocabulary in vocabularies)
    for piece in _pieces(text):
        row, keys = _words(piece, most_parts)
        for parts, vocabulary in zip(found, vocabularies, strict=True):
            parts.append(_covered(row, vocabulary.indices(keys)))
    return [_together(parts) for parts in found]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows: ``data`` are their texts, each after a line feed, and zeros; ``begins`` [R] is
    where in it the text of each of ``rows`` [R] begins."""

    data: bytes
    rows: NDArray[np.int64]
    begins: NDArray[np.int64]

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Its bytes."""
        return np.frombuffer(self.data, dtype=np.uint8)

    def row_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row that each of the ascending ``places`` is in."""
        before = np.searchsorted(places, self.begins)
        counts = np.diff(before, append=len(places))
        return np.repeat(self.rows, counts)


def _pieces(text: pl.Series) -> Iterator[_Piece]:
    texts = text.to_list()
    lengths = text.str.len_bytes().to_numpy().astype(np.int64) + 1
    ends = np.cumsum(lengths)
    first = 0
    while first < len(texts):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _PIECE_BYTES, side="right")))
        data = "\n".join(("", *texts[first:last])).encode() + bytes(_LONGEST_WORD_BYTES)
        begins = ends[first:last] - lengths[first:last] + 1 - done
        yield _Piece(data, np.arange(first, last), begins)
        first = last


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs of True begin and end; the mask begins and ends with False."""
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    return edges[0::2], edges[1::2]


def _numbers(piece: _Piece) -> UnitRows:
    values = piece.codes - np.uint8(_ZERO)  # anything but a digit becomes 10 or more
    is_digit = values < 10
    _mark_others(piece, is_digit, NUMBER_PATTERN)
    starts, ends = _runs(is_digit)
    length = ends - starts
    digits = [values[starts + i].astype(np.int64) for i in range(3)]
    two_digits = 10 * digits[0] + digits[1]
    index = np.select(
        [length == 1, length == 2, length == 3],
        [digits[0], 10 + two_digits, 110 + 10 * two_digits + digits[2]],
        -1,
    )
    # Bytes of another script's digits are no digits themselves.
    index[values[starts] >= 10] = -1
    for i in (1, 2):
        index[(length > i) & (digits[i] >= 10)] = -1
    return _covered(piece.row_of(starts), index)


def _words(piece: _Piece, parts: int) -> tuple[NDArray[np.int64], Keys]:
    codes = piece.codes
    is_letter = (codes | np.uint8(_CASE_BIT)) - np.uint8(_A) < 26
    _mark_others(piece, is_letter, _LETTERS_PATTERN)
    starts, ends = _runs(is_letter)
    row = piece.row_of(starts)
    starts = starts - (codes[starts - 1] == _SPACE)
    keys = _keys(piece.data, starts, ends, parts)
    # What is longer than a key is in no vocabulary: as zeros it is equal to none.
    keys[:, ends - starts > parts * _PART_BYTES] = 0
    return row, keys


def _mark_others(piece: _Piece, mask: NDArray[np.bool_], pattern: str) -> None:
    """Set ``mask`` at every byte of a character beyond ASCII that ``pattern`` is of."""
    codes = piece.codes
    leads = np.flatnonzero(codes >= 0xC0)
    if not len(leads):
        return
    lead = codes[leads].astype(np.int64)
    rest = [codes[leads + i].astype(np.int64) & 0x3F for i in (1, 2, 3)]
    two = (lead & 0x1F) << 6 | rest[0]
    three = (lead & 0x0F) << 12 | rest[0] << 6 | rest[1]
    four = (lead & 0x07) << 18 | rest[0] << 12 | rest[1] << 6 | rest[2]
    length = 2 + (lead >= 0xE0) + (lead >= 0xF0)
    is_of_it = _characters(pattern)[np.choose(length - 2, (two, three, four))]
    leads, length = leads[is_of_it], length[is_of_it]
    for i in range(4):
        mask[leads[length > i] + i] = True


@cache
def _characters(pattern: str) -> NDArray[np.bool_]:
    """Of every code point, whether ``pattern``, an expression for runs of characters, takes it."""
    points = np.arange(0x110000, dtype="<u4")
    points[0xD800:0xE000] = ord("\n")
    every = pl.Series([points.tobytes().decode("utf-32-le")])
    taken = np.zeros(len(points), dtype=np.bool_)
    for run in every.str.extract_all(pattern)[0]:
        taken[ord(run[0]) : ord(run[-1]) + 1] = True
    return taken


def _keys(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], parts: int) -> Keys:
    """``data`` goes on for ``parts`` parts after the last start."""
    windows: NDArray[np.uint64] = np.ndarray(
        (max(len(data) - _PART_BYTES + 1, 0),), dtype="<u8", buffer=data, strides=(1,)
    )
    length = ends - starts
    keys = np.zeros((parts, len(starts)), dtype=np.uint64)
    for part in range(parts):
        begun = np.flatnonzero(length > part * _PART_BYTES)  # few words are longer than a part
        left = np.minimum(length[begun] - part * _PART_BYTES, _PART_BYTES)
        keys[part, begun] = windows[starts[begun] + part * _PART_BYTES] & _FIRST_BYTES[left]
    return keys


def _hashed(keys: Keys) -> NDArray[np.uint64]:
    """Parts of zeros count for nothing."""
    mixed = np.zeros(keys.shape[1], dtype=np.uint64)
    for part, values in enumerate(keys):
        mixed ^= values * np.uint64(_MULTIPLIER * (2 * part + 1) % (1 << 64))
    mixed ^= mixed >> np.uint64(32)
    return mixed * np.uint64(_MULTIPLIER)


def _covered(row: NDArray[np.int64], index: NDArray[np.int64]) -> UnitRows:
    """``index`` is -1 for a unit that the list does not hold."""
    is_known = index >= 0
    known = np.flatnonzero(is_known)
    return UnitRows(row[known], index[known], len(index) - len(known))


def _together(parts: Sequence[UnitRows]) -> UnitRows:
    """All parts, which follow one another."""
    if not parts:
        return UnitRows(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
    return UnitRows(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.unit for part in parts]),
        sum(part.uncovered for part in parts),
    )
