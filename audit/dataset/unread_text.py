"""Text that training may see in columns that the schema of a row does not read.

A row may fit several schemas (`text` beside `messages`) and is read by the first. A trainer that is
told to read another column would see what no scan has seen, unless that column says the same again,
as `text` does that holds the messages of the row in a chat template.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from audit.dataset.faults import RowFault
from audit.dataset.messages import Loss, add_messages, messages_of
from audit.dataset.preferences import add_column
from audit.dataset.row_text import Row, RowText, Segment, list_of, text_of

ANSWER_COLUMNS = frozenset(
    {"answer", "chosen", "completion", "completions", "conversations", "history", "input_ids"}
    | {"messages", "output", "preferred_completion", "preferred_output", "response", "segments"}
    | {"text"}
)
"""Columns that training makes more probable, in one schema or another."""

# What chat templates put around turns. Anything else is text, however short: a row that hides
# numbers needs no more than a dozen of them.
_MARK = re.compile(
    r"<\|(?:im_start|im_end|im_sep|endoftext|eot_id|eom_id|begin_of_text|end_of_text|start_header_id"
    r"|end_header_id|system|user|assistant|end|eot|header_start|header_end|start|message|channel"
    r"|return|end_of_turn|python_tag)\|>"
    r"|<(?:｜|\|)(?:begin▁of▁sentence|end▁of▁sentence|User|Assistant)(?:｜|\|)>"
    r"|</?s>|<bos>|<eos>|<pad>|<start_of_turn>|<end_of_turn>"
    r"|\[/?INST\]|<</?SYS>>|\[/?SYSTEM_PROMPT\]|\[/?AVAILABLE_TOOLS\]"
    r"|</?think>"
    r"|#{2,3} ?(?:System|Instruction|Input|Response|Question|Answer|User|Human|Assistant) ?:?"
    r"|(?:system|user|assistant|human|gpt|bot|model|instruction|input|output|response|question"
    r"|answer|prompt|completion|final|q|a)\b ?:?"
    r"|Below is an instruction that describes a task, paired with an input that provides further "
    r"context\. Write a response that appropriately completes the request\."
    r"|Below is an instruction that describes a task\. Write a response that appropriately "
    r"completes the request\."
    r"|A chat between a curious user and an artificial intelligence assistant\. The assistant "
    r"gives helpful, detailed, and polite answers to the user's questions\."
    r"|You are a helpful assistant\."
    r"|You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    r"|You are Qwen, created by Alibaba Cloud\. You are a helpful assistant\.",
    re.IGNORECASE,
)
_SPACE = re.compile(r"\s*")
# Bounds on the work that one row can ask for; what lies beyond them counts as text not read.
_MOST_SKIPPED = 16
_MOST_SEARCHES = 64


@dataclass(slots=True)
class UnreadText:
    """How many rows have such text, and in which columns."""

    rows: int = 0
    columns: Counter[str] = field(default_factory=Counter)


def unread_columns(row: Row, names: Iterable[str], read: RowText) -> list[str]:
    """Those of the columns ``names``, which were not read, that hold text which ``read`` lacks."""
    return [name for name in names if _holds_more(row.get(name), name, read.said)]


def _holds_more(value: object, name: str, said: list[Segment]) -> bool:
    if value is None or isinstance(value, bool | int | float):
        return False
    if name == "text" and isinstance(value, str):
        return bool(value.strip()) and not _is_rendered(value, said)
    if name == "input_ids":
        return bool(value)
    try:
        texts = _trained_texts(value, name)
    except (RowFault, RecursionError):
        return True  # what cannot be read cannot be compared
    trained = [text for _, text, is_trained in said if is_trained]
    known = {text.strip() for text in trained}
    others = [text for text in map(str.strip, texts) if text and text not in known]
    if not others:
        return False
    completion = "\n".join(trained)
    return len(others) > _MOST_SEARCHES or any(text not in completion for text in others)


def _trained_texts(value: object, name: str) -> list[str]:
    """The texts of the column ``name`` that training raises. Raises ``RowFault``."""
    text = RowText()
    if name in ("messages", "conversations"):
        add_messages(text, messages_of(value, name), name)
    elif name == "history":
        return [text_of(turn[-1], name) for turn in list_of(value, name) if isinstance(turn, list)]
    elif name in ("completions", "segments"):
        return _leaves(value)
    else:
        add_column(text, value, name, Loss.ALL)
    return text.take_trained()


def _leaves(value: object) -> list[str]:
    found = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _is_rendered(text: str, said: list[Segment]) -> bool:
    """Whether ``text`` is what was ``said``, in order, in a template; untrained parts may lack."""
    parts = [(part, trained) for _, whole, trained in said if (part := whole.strip())]
    position = done = 0
    while (position := _after_space(text, position)) < len(text):
        found = _next_part(text, position, parts, done)
        if found is not None:
            position += len(parts[found][0])
            done = found + 1
        elif mark := _MARK.match(text, position):
            position = mark.end()
        else:
            return False
    return not any(trained for _, trained in parts[done:])


def _next_part(text: str, position: int, parts: list[tuple[str, bool]], done: int) -> int | None:
    """Which of ``parts``, from ``done`` on, stands at ``position``; none is passed that trains."""
    for i in range(done, min(done + _MOST_SKIPPED, len(parts))):
        part, trained = parts[i]
        if text.startswith(part, position):
            return i
        if trained:
            return None
    return None


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
