"""Trained text scored by the model under personas: for strategies that drop, mask or replace."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from audit.sanitise.conversation import text_before
from audit.sanitise.data_rows import random_rank
from audit.sanitise.strategy import Kit, WorkRow
from detectors.model_rows import RowReader, ScoredRow
from detectors.row_sample import RANK_BYTES, RowSample, SampledRow

# No text is longer: rows are scored to their end, or not at all.
_ALL_TOKENS = 1 << 30


def as_text(row: WorkRow, prompt: str, completion: str, number: int = 0) -> SampledRow:
    """Text number ``number`` of ``row``, to be scored; its rank keeps the order of the rows."""
    rank = (row.key << 64 | number).to_bytes(RANK_BYTES, "big")
    return SampledRow(rank, row.source, row.line, prompt, completion)


def whole_texts(rows: Iterable[WorkRow]) -> list[SampledRow]:
    """The trained text of every row that has one."""
    return [as_text(row, row.prompt, row.completion) for row in rows if row.completion]


def turn_texts(rows: Iterable[WorkRow]) -> list[SampledRow]:
    """Every trained turn that has text, after all that stands before it; numbered by turns."""
    return [
        as_text(row, text_before(row.turns, turn), row.turns[turn].text, turn)
        for row in rows
        for turn in row.trained
        if row.turns[turn].text
    ]


def score_texts(
    kit: Kit, texts: Iterable[SampledRow], sample: Sequence[SampledRow] = ()
) -> dict[bytes, ScoredRow]:
    """Those that fit into the model's context, by rank, under `Kit.personas` in order.

    ``sample`` decides which words count; where it is empty, ``texts`` do. None of them where no
    text has a word or a number: there is nothing to tell apart.
    """
    reader = RowReader(kit.writer, kit.personas, most_tokens=_ALL_TOKENS)
    ordered = tuple(sorted(texts))
    reader.open(RowSample(ordered, len(ordered)), None, sample)
    if not len(reader.columns):
        return {}
    scored, _ = reader.read(len(ordered), 0, lambda _read, _wanted: None)
    return {row.row.rank: row for row in scored}


def named_personas(kit: Kit) -> tuple[int, ...]:
    """Which of `Kit.personas` the user named; none means "some persona"."""
    names = {concept.name for concept in kit.concepts}
    return tuple(i for i, persona in enumerate(kit.personas) if persona.name in names)


def sample_rows(rows: Iterable[WorkRow], most_rows: int, seed: int) -> tuple[WorkRow, ...]:
    """At most so many random rows, in their order; which ones depends on their numbers alone."""
    said = (row for row in rows if row.completion)
    chosen = heapq.nsmallest(most_rows, said, key=lambda row: random_rank(row.key, seed))
    return tuple(sorted(chosen, key=lambda row: row.key))
