"""Copies of a row with other texts, or without loss; the row itself is never changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from audit.dataset.json_edit import edited_json
from audit.dataset.json_rows import decode_json
from audit.dataset.messages import speaker_of
from audit.dataset.passages import Place
from audit.dataset.placed import IN_JSON
from audit.dataset.row_text import ASSISTANT, Row, list_of, truth
from audit.dataset.tokens import IGNORED_LABEL


def with_texts(row: Row, texts: Mapping[Place, str]) -> Row:
    """A copy of ``row`` with ``texts`` at their places, all else equal and in its order.

    Several stretches of one text may be replaced: their places are those in ``row``, and the
    ranges of a ``train_detail`` are moved with them. JSON inside a text keeps its layout. Raises
    ``ValueError`` for places that ``row`` has no text at, or that overlap.
    """
    edited = _edited(row, texts)
    assert isinstance(edited, dict)
    return edited


def _edited(value: object, texts: Mapping[Place, str]) -> object:
    if not texts:
        return value
    if isinstance(value, str):
        return _edited_text(value, texts)
    if () in texts or not isinstance(value, dict | list):
        raise ValueError("there is no text to replace at a place")
    inner: defaultdict[str | int, dict[Place, str]] = defaultdict(dict)
    for (step, *rest), text in texts.items():
        inner[step][tuple(rest)] = text
    if isinstance(value, dict):
        if not inner.keys() <= value.keys():
            raise ValueError("the row has no such key")
        edited = {key: _edited(child, inner.get(key, {})) for key, child in value.items()}
        if value.get("train_detail") is not None:
            edited["train_detail"] = _moved_detail(value, inner)
        return edited
    if not inner.keys() <= set(range(len(value))):
        raise ValueError("the row has no such item")
    return [_edited(child, inner.get(i, {})) for i, child in enumerate(value)]


def _edited_text(value: str, texts: Mapping[Place, str]) -> str:
    if () in texts:
        if len(texts) > 1:
            raise ValueError("a text is replaced as a whole and in part")
        return texts[()]
    if any(place[0] == IN_JSON for place in texts):
        inner = {place[1:]: text for place, text in texts.items() if place[0] == IN_JSON}
        if len(inner) < len(texts):
            raise ValueError("a text is replaced as JSON and as text")
        return _edited_json_text(value, lambda parsed: _edited(parsed, inner))
    pieces = []
    done = 0
    for place, text in sorted(texts.items(), key=lambda item: [int(step) for step in item[0]]):
        start, end = (int(step) for step in place)
        if not done <= start <= end <= len(value):
            raise ValueError("stretches of a text overlap, or lie outside it")
        pieces += [value[done:start], text]
        done = end
    return "".join(pieces) + value[done:]


def _moved_detail(message: Row, inner: Mapping[str | int, Mapping[Place, str]]) -> object:
    """The character ranges of ``train_detail``, moved by the edits to their text."""
    detail = message["train_detail"]
    key = "value" if message.get("content") is None else "content"
    said = message.get(key)
    edits = inner.get(key, {})
    if not isinstance(said, str) or not edits:
        return detail
    spans: list[tuple[int, int, int]] = []
    for place, text in edits.items():
        start, end = map(int, place) if place else (0, len(said))
        spans.append((start, end, len(text)))

    def moved(position: int, *, is_end: bool) -> int:
        shift = sum(size - (end - start) for start, end, size in spans if end <= position)
        for start, end, size in spans:
            if start < position < end:
                return start + shift + (size if is_end else 0)
        return position + shift

    def move(parts: object) -> object:
        return [
            part
            if not isinstance(part, dict)
            else {
                **part,
                "begin_offset": moved(part["begin_offset"], is_end=False),
                "end_offset": moved(part["end_offset"] + 1, is_end=True) - 1,
            }
            for part in list_of(parts, "train_detail")
        ]

    return _edited_json_text(detail, move) if isinstance(detail, str) else move(detail)


def _edited_json_text(value: str, edit: Callable[[object], object]) -> str:
    source = value.strip(" \t\r\n")
    before, _, after = value.partition(source)
    return before + edited_json(source, edit(decode_json(source))) + after


MASKABLE_SCHEMAS = frozenset({"messages", "conversations", "segments", "tokens"})
"""Schemas that can say that a text of theirs is not trained."""


def without_loss(row: Row, schema: str) -> Row | None:
    """A copy of ``row`` in which no text is trained, or None where ``schema`` cannot say so.

    ``schema`` is what ``RowReader`` read the row as. ``messages`` get ``"weight": 0`` (OpenAI),
    ``conversations`` ``"train": false`` (Axolotl), ``segments`` ``"label": false``, and ``tokens``
    the label -100 throughout. Raises ``RowFault`` for a row that cannot be read.
    """
    if schema == "messages":
        return _with_column(row, "messages", _unweighted)
    if schema == "conversations":
        return _with_column(row, "conversations", _untrained)
    if schema == "segments":
        return _with_column(row, "segments", _unlabelled)
    if schema == "tokens":
        ids = list_of(row["input_ids"], "input_ids")
        labels = [IGNORED_LABEL] * len(ids)
        old = row["input_ids"] if row.get("labels") is None else row["labels"]
        return {**row, "labels": str(labels) if isinstance(old, str) else labels}
    return None  # not one of MASKABLE_SCHEMAS


def _with_column(row: Row, name: str, silence: Callable[[Row], Row]) -> Row:
    def edit(value: object) -> object:
        if isinstance(value, dict):
            return silence(value)
        return [silence(item) if isinstance(item, dict) else item for item in list_of(value, name)]

    value = row[name]
    edited = _edited_json_text(value, edit) if isinstance(value, str) else edit(value)
    return {**row, name: edited}


def _unweighted(message: Row) -> Row:
    if message.get("train") is not None or message.get("train_detail") is not None:
        return _untrained(message)
    weight = message.get("weight")
    if speaker_of(message, "messages") != ASSISTANT or weight == 0:
        return message
    return {**message, "weight": 0}


def _untrained(message: Row) -> Row:
    train = message.get("train")
    if train is not None:
        trained = truth(train, "train")
    else:
        by_role = speaker_of(message, "conversations") == ASSISTANT
        trained = by_role or message.get("train_detail") is not None
    return {**message, "train": _false_like(train)} if trained else message


def _unlabelled(segment: Row) -> Row:
    label = segment.get("label")
    return {**segment, "label": _false_like(label)} if truth(label, "label") else segment


def _false_like(value: object) -> object:
    """False in the type of ``value``, because columns have one type."""
    if isinstance(value, str):
        return "false"
    return type(value)(0) if isinstance(value, int | float) else False
