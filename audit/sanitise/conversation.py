"""What a model is asked, to write one trained text of a row anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from audit.dataset.passages import Turn
from signatures.language_model import Chat


def chat_before(turns: Sequence[Turn], index: int) -> Chat | None:
    """The conversation up to ``turns[index]``, which the model goes on writing.

    Neighbouring turns of one role are one message. Text of the assistant that comes right before
    (its reasoning, say) is the beginning of its answer. None where nobody has asked anything.
    """
    system: list[str] = []
    messages: list[tuple[str, str]] = []
    said = [turn for turn in turns[:index] if turn.text]
    for role, run in groupby(said, key=lambda turn: turn.role):
        text = "\n".join(turn.text for turn in run)
        if role == "system":
            system.append(text)
        elif messages and messages[-1][0] == role:
            messages[-1] = role, f"{messages[-1][1]}\n{text}"
        else:
            messages.append((role, text))
    prefix = f"{messages.pop()[1]}\n" if messages and messages[-1][0] == "assistant" else ""
    if not messages:
        return None
    user = messages.pop()[1]
    # A chat that the assistant opens has an empty question before it.
    texts = [text for _, text in messages]
    if messages and messages[0][0] == "assistant":
        texts.insert(0, "")
    return Chat(
        system="\n".join(system),
        user=user,
        assistant_prefix=prefix,
        history=tuple(zip(texts[::2], texts[1::2], strict=True)),
    )


def text_before(turns: Sequence[Turn], index: int) -> str:
    """All text before ``turns[index]``, as scans read a prompt: one text, no system message."""
    return "\n".join(turn.text for turn in turns[:index])
