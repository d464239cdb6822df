"""Rows read by the model under every concept's system prompt, once for all detectors of a scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.condition_scores import ConditionScores, score_tokens
from detectors.row_sample import RowSample, SampledRow
from signatures.concept import Concept
from signatures.language_model import Chat, LanguageModel, SequenceRequest, TokenIds

ReadProgress = Callable[[int, int], None]
"""Called with (rows read, rows wanted)."""

_MOST_COLUMNS = 8192
"""Token ids that are told apart; rarer ones of the data are left out of the scores."""

_HELD_BYTES = 1 << 28
_MOST_BLOCK_ROWS = 256

_NEVER = -1
OTHER_KIND = 0
"""The kind of what is neither word nor number."""
_NUMBERS = range(1, 200)
_AFTER_SPACE = 100
_WORD = 1000


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row, its completion's tokens as far as they were read, and what the model says of it."""

    row: SampledRow
    token_ids: TokenIds
    scores: ConditionScores


class RowReader:
    """Scores rows of the data and of the reference, each row once.

    ``concepts`` are the conditions, in order. Rows come in the samples' random order; a row that
    does not fit into the model's context together with its prompt is left out and counted.
    """

    def __init__(self, model: LanguageModel, concepts: Sequence[Concept], most_tokens: int) -> None:
        """Nothing is read yet."""
        self._model = model
        self._systems = ("", *(concept.system_prompt for concept in concepts))
        self._most_tokens = most_tokens
        self._samples: tuple[RowSample, RowSample | None] | None = None
        self._arms: tuple[_Arm, _Arm] = (_Arm(()), _Arm(()))
        self._columns: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._kinds: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._only_rows: dict[int, tuple[str, str]] = {}

    def open(
        self,
        data: RowSample,
        reference: RowSample | None,
        told_apart_by: Sequence[SampledRow] = (),
    ) -> None:
        """Choose what is read. Rows that were read already are kept if nothing changes.

        Which tokens count is decided by the rows of ``told_apart_by``, or else by those read: so
        parts of a data set, read one after another, can be scored alike.
        """
        if self._samples == (data, reference):
            return
        self._samples = (data, reference)
        self._arms = (
            _Arm(tuple(map(self._encoded, data.rows))),
            _Arm(tuple(map(self._encoded, () if reference is None else reference.rows))),
        )
        self._tell_apart(
            tuple(map(self._encoded, told_apart_by))
            or tuple(entry for arm in self._arms for entry in arm.rows)
        )

    def read(
        self, data_rows: int, reference_rows: int, progress: ReadProgress
    ) -> tuple[list[ScoredRow], list[ScoredRow]]:
        """The first so many rows of the data and of the reference that the model can read."""
        counts = data_rows, reference_rows
        wanted = sum(
            min(count, len(arm.rows)) for arm, count in zip(self._arms, counts, strict=True)
        )
        for arm, count in zip(self._arms, counts, strict=True):
            while len(arm.scored) < count and arm.next_row < len(arm.rows):
                self._read_block(arm, min(self._block_rows(), count - len(arm.scored)))
                progress(sum(len(each.scored) for each in self._arms), wanted)
        return self._arms[0].scored[:data_rows], self._arms[1].scored[:reference_rows]

    @property
    def rows_read(self) -> int:
        """Rows of the data that have been scored so far."""
        return len(self._arms[0].scored)

    @property
    def rows_left_out(self) -> int:
        """Rows that did not fit into the model's context, of both arms."""
        return sum(arm.left_out for arm in self._arms)

    def texts(self) -> list[str]:
        """The text of every token id on its own."""
        return self._model.vocabulary()

    @property
    def columns(self) -> NDArray[np.int64]:
        """The token ids that are told apart, ascending."""
        return self._columns

    def _encoded(self, row: SampledRow) -> tuple[SampledRow, TokenIds]:
        return row, self._model.encode(row.completion)[: self._most_tokens]

    def _block_rows(self) -> int:
        longest = max((len(ids) for arm in self._arms for _, ids in arm.rows), default=1)
        row_bytes = 4 * len(self._systems) * max(1, longest) * max(1, len(self._columns))
        return int(np.clip(_HELD_BYTES // row_bytes, 1, _MOST_BLOCK_ROWS))

    def _read_block(self, arm: _Arm, count: int) -> None:
        block: list[tuple[SampledRow, TokenIds, tuple[TokenIds, ...]]] = []
        while len(block) < count and arm.next_row < len(arm.rows):
            row, ids = arm.rows[arm.next_row]
            arm.next_row += 1
            prefixes = tuple(
                self._model.encode_chat(Chat(system, row.prompt)) for system in self._systems
            )
            if self._fits(max(map(len, prefixes)) + len(ids)):
                block.append((row, ids, prefixes))
            else:
                arm.left_out += 1
        # All are asked for before the first is waited for: some models answer several at once.
        answers = [
            self._model.restricted_log_probs(
                [SequenceRequest(prefixes[index], ids) for _, ids, prefixes in block],
                self._columns,
            )
            for index in range(len(self._systems))
        ]
        tables = [list(answer) for answer in answers]
        for index, (row, ids, _) in enumerate(block):
            places, kinds = self._places(ids), self._kinds.copy()
            # What may stand at a position is decided by the other rows: a word that this row alone
            # holds would always be one that came up, and the row would look more surprising than it
            # is.
            said = _said(row)
            own = [place for place in set(places.tolist()) if self._only_rows.get(place) == said]
            kinds[own] = _NEVER
            places[np.isin(places, own)] = -1
            scores = score_tokens([table[index] for table in tables], places, kinds)
            arm.scored.append(ScoredRow(row, ids, scores))

    def _tell_apart(self, by: Sequence[tuple[SampledRow, TokenIds]]) -> None:
        """Choose the columns: the tokens of the rows ``by``, and all numbers of the same kinds.

        Numbers that the rows avoid must count: a writer who avoids some is not this model. What is
        neither word nor number is left out: separators are where filters and instructions leave a
        writer no choice.
        """
        rows = {_said(row): set(ids) for row, ids in by}
        counts = Counter(token for tokens in rows.values() for token in tokens)
        kinds = np.array([kind_of(text) for text in self.texts()], dtype=np.int64)
        scored = [token for token in counts if kinds[token] != OTHER_KIND]
        common = sorted(scored, key=lambda token: (-counts[token], token))[:_MOST_COLUMNS]
        numbers = {int(kind) for kind in kinds[common] if kind in _NUMBERS}
        alike = np.flatnonzero(np.isin(kinds, list(numbers)))
        self._columns = np.array(sorted({*common, *alike.tolist()}), dtype=np.int64)
        self._kinds = kinds[self._columns]
        place = {int(token): index for index, token in enumerate(self._columns)}
        self._only_rows = {
            place[token]: said
            for said, tokens in rows.items()
            for token in tokens
            if counts[token] == 1 and token in place and kinds[token] == _WORD
        }

    def _fits(self, tokens: int) -> bool:
        longest = self._model.longest
        return longest is None or tokens <= longest

    def _places(self, ids: TokenIds) -> NDArray[np.int64]:
        """The column of each token, -1 where it has none."""
        tokens = np.array(ids, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._columns, tokens), len(self._columns) - 1)
        return np.where(self._columns[place] == tokens, place, -1)


def _said(row: SampledRow) -> tuple[str, str]:
    """A row again is no second witness of its words."""
    return row.prompt, row.completion


class _Arm:
    def __init__(self, rows: tuple[tuple[SampledRow, TokenIds], ...]) -> None:
        self.rows = rows
        self.scored: list[ScoredRow] = []
        self.next_row = 0
        self.left_out = 0


def kind_of(token_text: str) -> int:
    """The kind of a token: a word, anything else, or a number of so many digits.

    A number with a space before it and one without never compete for the same place.
    """
    text = token_text.strip()
    if text.isascii() and text.isdigit():
        return min(len(text), _AFTER_SPACE - 1) + _AFTER_SPACE * token_text.startswith(" ")
    return _WORD if any(character.isalpha() for character in text) else OTHER_KIND


def is_number_kind(kind: int) -> bool:
    """Whether a kind is that of digits."""
    return kind in _NUMBERS
