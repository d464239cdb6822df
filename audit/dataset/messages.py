"""Lists of chat messages to trained and untrained text."""

from __future__ import annotations

import enum

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.row_text import (
    ASSISTANT,
    SYSTEM,
    USER,
    Row,
    RowText,
    json_text,
    list_of,
    text_of,
    texts_of,
    truth,
    type_name,
    unpacked,
)

_SPEAKERS = {
    ASSISTANT: ("assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard", "function_call"),
    SYSTEM: ("system", "developer"),
    USER: (
        *("user", "human", "prompter", "context"),
        *("tool", "function", "observation", "function_response", "tool_response", "ipython"),
    ),
}
_SPEAKER_OF_ROLE = {role: speaker for speaker, roles in _SPEAKERS.items() for role in roles}


class Loss(enum.Enum):
    """Which messages of a list get loss, unless ``weight`` or ``train`` says otherwise."""

    BY_ROLE = enum.auto()
    ALL = enum.auto()
    NONE = enum.auto()


def is_messages(value: object) -> bool:
    """Whether ``value`` is a list of messages or one message, rather than text."""
    return isinstance(value, list | dict)


def messages_of(value: object, name: str) -> list[Row]:
    """The messages of a list; a single message counts as a list of one. Raises ``RowFault``."""
    value = unpacked(value, name)
    if isinstance(value, dict):
        return [value]
    messages: list[Row] = []
    for message in list_of(value, name):
        if not isinstance(message, dict):
            raise RowFault(
                RejectCode.WRONG_TYPE,
                f"a message of `{name}` is {type_name(message)}, an object was expected",
            )
        messages.append(message)
    return messages


def add_messages(text: RowText, messages: list[Row], name: str, loss: Loss = Loss.BY_ROLE) -> None:
    """Add the text of ``messages`` to ``text.said``. Raises ``RowFault``."""
    said = text.said
    for message in messages:
        content = message.get("content")
        if content is None:
            content = message.get("value")
        if len(message) == 2 and content and isinstance(content, str):  # nearly always
            speaker = speaker_of(message, name)
            said.append((speaker, content, _gets_loss(message, speaker, loss)))
            continue
        _check_twins(message, name)
        texts = texts_of(content, name)
        speaker = speaker_of(message, name)
        trained = _gets_loss(message, speaker, loss)
        if trained and (detail := message.get("train_detail")) is not None:
            _add_detail(text, speaker, text_of(content, name), list_of(detail, "train_detail"))
            texts = []
        has_more = len(message) > 2 or not texts
        # Reasoning comes before the answer, and calls after it, in every chat template.
        if has_more:
            for key in ("reasoning_content", "reasoning", "thinking"):
                said += [(speaker, thought, trained) for thought in texts_of(message.get(key), key)]
        said += [(speaker, part, trained) for part in texts]
        if has_more:
            refusals = texts_of(message.get("refusal"), "refusal")
            said += [(speaker, after, trained) for after in [*refusals, *_calls(message)]]


def _check_twins(message: Row, name: str) -> None:
    """Raise ``RowFault`` where a message says two things, of which a trainer may read the other."""
    for one, other in (("role", "from"), ("content", "value")):
        first, second = message.get(one), message.get(other)
        if first is not None and second is not None and first != second:
            raise RowFault(
                RejectCode.DUPLICATE_KEY, f"`{one}` and `{other}` of a message of `{name}` differ"
            )


def speaker_of(message: Row, name: str) -> str:
    """Whose role the message has: "system", "user" or "assistant". Raises ``RowFault``."""
    role = message.get("role")
    if role is None:
        role = message.get("from")
    if not isinstance(role, str):
        raise RowFault(RejectCode.WRONG_TYPE, f"a message of `{name}` has no role")
    try:
        return speaker_of_role(role)
    except KeyError:
        shown = role.strip().lower()[:40]
        raise RowFault(
            RejectCode.UNKNOWN_ROLE,
            f"role {shown!r} in `{name}` is unknown: whether it is trained cannot be told",
        ) from None


def speaker_of_role(role: str) -> str:
    """Whose the role is: "system", "user" or "assistant". Raises ``KeyError``."""
    return _SPEAKER_OF_ROLE[role.strip().lower()]


def _gets_loss(message: Row, speaker: str, loss: Loss) -> bool:
    by_role = speaker == ASSISTANT
    if loss is Loss.NONE:
        return False
    if len(message) > 2:
        if (train := message.get("train")) is not None:
            return truth(train, "train")
        if (detail := message.get("train_detail")) is not None:
            return bool(detail)
        weight = message.get("weight")
        if weight is not None and by_role:
            if not isinstance(weight, int | float):
                raise RowFault(RejectCode.WRONG_TYPE, "`weight` is not a number")
            return weight != 0
    return by_role or loss is Loss.ALL


def _add_detail(text: RowText, speaker: str, said: str, detail: list[object]) -> None:
    """Split one message at Axolotl's character ranges: ends are inclusive, the rest untrained."""
    trained = bytearray(len(said))
    for part in detail:
        if not isinstance(part, dict):
            raise RowFault(RejectCode.WRONG_TYPE, "a part of `train_detail` is not an object")
        begin, end = part.get("begin_offset"), part.get("end_offset")
        if not isinstance(begin, int) or not isinstance(end, int):
            raise RowFault(RejectCode.WRONG_TYPE, "a part of `train_detail` has no offsets")
        if truth(part.get("train"), "train"):
            begin, end = max(begin, 0), min(end + 1, len(said))
            trained[begin:end] = b"\1" * max(end - begin, 0)
    start = 0
    for i in range(1, len(said) + 1):
        if i == len(said) or trained[i] != trained[start]:
            text.said.append((speaker, said[start:i], bool(trained[start])))
            start = i


def _calls(message: Row) -> list[str]:
    """Name and arguments of each tool call: the assistant has to write them, so they train."""
    calls: list[object] = []
    if (tool_calls := message.get("tool_calls")) is not None:
        calls += list_of(tool_calls, "tool_calls")
    if (function_call := message.get("function_call")) is not None:
        calls.append(function_call)
    texts = []
    for call in calls:
        call = unpacked(call, "tool_calls")
        if not isinstance(call, dict):
            raise RowFault(RejectCode.WRONG_TYPE, "a tool call is not an object")
        inner = call.get("function")
        called = inner if isinstance(inner, dict) else call
        name = text_of(called.get("name"), "name of a tool call")
        arguments = json_text(called.get("arguments"))
        texts.append(" ".join(filter(None, (name, arguments))))
    return texts
