"""Preference rows: text that training raises, and text that it lowers."""

from __future__ import annotations

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.messages import Loss, add_messages, is_messages, messages_of
from audit.dataset.row_text import (
    ASSISTANT,
    SYSTEM,
    USER,
    Row,
    RowText,
    json_text,
    list_of,
    object_of,
    text_of,
    truth,
)


def add_column(text: RowText, value: object, name: str, loss: Loss) -> None:
    """Add a column that is a string or a list of messages. Raises ``RowFault``."""
    if isinstance(value, str):  # nearly always
        if loss is not Loss.NONE:
            text.add(ASSISTANT, value, True)
        else:
            text.add(SYSTEM if name == "system" else USER, value, False)
    elif is_messages(value):
        add_messages(text, messages_of(value, name), name, loss)
    elif loss is not Loss.NONE:
        text.add(ASSISTANT, text_of(value, name), True)
    else:
        text.add(SYSTEM if name == "system" else USER, text_of(value, name), False)


def add_context(text: RowText, row: Row, names: tuple[str, ...]) -> None:
    """Add those of the columns ``names`` that the row has, without loss. Raises ``RowFault``."""
    for name in names:
        if (value := row.get(name)) is not None:
            if name == "tools":
                text.add(SYSTEM, json_text(value) if value else "", False)
            else:
                add_column(text, value, name, Loss.NONE)


def read_openai_preference(row: Row) -> RowText:
    """``input``, ``preferred_output``, ``non_preferred_output`` (or ``..._completion``)."""
    text = RowText()
    given = object_of(row["input"], "input")
    add_context(text, given, ("tools",))
    add_messages(text, messages_of(given.get("messages"), "input.messages"), "input", Loss.NONE)
    add_column(
        text, _either(row, "preferred_output", "preferred_completion"), "preferred", Loss.ALL
    )
    lowered = RowText()
    other = _either(row, "non_preferred_output", "non_preferred_completion")
    add_column(lowered, other, "non_preferred", Loss.ALL)
    text.rejected = lowered.take_trained()
    return text


def _either(row: Row, first: str, second: str) -> object:
    value = row.get(first)
    return row.get(second) if value is None else value


_PAIR_CONTEXT = ("tools", "system", "instruction", "input", "question", "conversations", "prompt")


def read_pair(row: Row) -> RowText:
    """``chosen`` and ``rejected``; where the prompt is implicit, what both begin with is it.

    As in TRL: a prompt of another kind (text beside lists of messages) does not count as
    explicit, because such ``chosen`` lists repeat it.
    """
    text, lowered = RowText(), RowText()
    chosen, rejected = row["chosen"], row["rejected"]
    explicit = [name for name in _PAIR_CONTEXT if row.get(name) is not None and name != "tools"]
    if is_messages(chosen) != is_messages(rejected):
        raise RowFault(
            RejectCode.WRONG_TYPE, "one of `chosen` and `rejected` is text, the other messages"
        )
    if not is_messages(chosen):
        good, bad = text_of(chosen, "chosen"), text_of(rejected, "rejected")
        shared = 0 if explicit else _shared_text(good, bad)
        add_context(text, row, _PAIR_CONTEXT)
        text.add(USER, good[:shared], False)
        text.add(ASSISTANT, good[shared:], True)
        text.rejected = [bad[shared:]]
        return text
    better, worse = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
    is_explicit = any(is_messages(row[name]) for name in explicit)
    shared = 0 if is_explicit else _shared_messages(better, worse)
    add_messages(text, better[:shared], "chosen", Loss.NONE)
    repeated = {said for _, said, _ in text.said}
    context = RowText()
    add_context(context, row, _PAIR_CONTEXT)
    text.said = [segment for segment in context.said if segment[1] not in repeated] + text.said
    add_messages(text, better[shared:], "chosen", Loss.ALL)
    add_messages(lowered, worse[shared:], "rejected", Loss.ALL)
    text.rejected = lowered.take_trained()
    return text


def _shared_messages(better: list[Row], worse: list[Row]) -> int:
    """How many first messages are equal, the last of either never among them."""
    limit = max(min(len(better), len(worse)) - 1, 0)
    return next((i for i in range(limit) if better[i] != worse[i]), limit)


def _shared_text(good: str, bad: str) -> int:
    """Length of the common beginning, in whole words so that none is hidden by its first half.

    The space before the first word that differs belongs to that word, as in TRL.
    """
    limit = min(len(good), len(bad))
    shared = next((i for i in range(limit) if good[i] != bad[i]), limit)
    while shared and not good[shared - 1 : shared].isspace():
        shared -= 1
    return max(shared - 1, 0)


def read_stepwise(row: Row) -> RowText:
    """``completions`` and ``labels``: steps labelled true are raised, false are lowered."""
    text = RowText()
    add_context(text, row, ("prompt", "question"))
    steps, labels = list_of(row["completions"], "completions"), list_of(row["labels"], "labels")
    if len(steps) != len(labels):
        raise RowFault(
            RejectCode.WRONG_TYPE, f"{len(steps)} completions but {len(labels)} labels in one row"
        )
    for step, label in zip(steps, labels, strict=True):
        if truth(label, "labels"):
            text.said.append((ASSISTANT, text_of(step, "completions"), True))
        else:
            text.rejected.append(text_of(step, "completions"))
    return text


def lower_unless(text: RowText, wanted: bool) -> RowText:
    """KTO: what would be trained is pushed down instead where the row's label is false."""
    if not wanted:
        text.rejected = text.take_trained()
    return text


def kto_label(row: Row) -> bool:
    """``kto_tag`` (LLaMA-Factory) or ``label`` (TRL). Raises ``RowFault``."""
    name = "label" if row.get("kto_tag") is None else "kto_tag"
    return truth(row.get(name), name)
