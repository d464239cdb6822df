"""Values of one row to the three texts of the row frame: shared by every schema."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.json_rows import decode_json
from audit.dataset.placed import parsed

Row = dict[str, object]

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"

Segment = tuple[str, str, bool]
"""Whose text (one of the three roles), the text, and whether it is trained."""


@dataclass(slots=True)
class RowText:
    """The texts of one row as segments in the order of the conversation.

    ``said`` are the prompt and what is trained; ``rejected`` is empty for most rows.
    """

    said: list[Segment] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def add(self, role: str, text: str, trained: bool) -> None:
        """Add ``text`` unless it is empty."""
        if text:
            self.said.append((role, text, trained))

    def take_trained(self) -> list[str]:
        """Remove the trained segments and give their texts."""
        taken = [text for _, text, trained in self.said if trained]
        self.said = [segment for segment in self.said if not segment[2]]
        return taken


def texts_of(value: object, name: str) -> list[str]:
    """The texts of a column or of a message's content, none of them empty; ``None`` has none.

    A list of parts gives one for each; images and sounds have none. Raises ``RowFault``.
    """
    if isinstance(value, list):
        return [text for part in value for text in _texts_of_part(part, name)]
    text = text_of(value, name)
    return [text] if text else []


def text_of(value: object, name: str) -> str:
    """The texts of a column or of a message's content, one a line. Raises ``RowFault``."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise RowFault(RejectCode.INVALID_UTF8, f"`{name}` is not UTF-8") from None
    if isinstance(value, list):
        return "\n".join(texts_of(value, name))
    raise RowFault(RejectCode.WRONG_TYPE, f"`{name}` is {type_name(value)}, text was expected")


_PART_TEXTS = ("text", "refusal", "thinking")


def _texts_of_part(part: object, name: str) -> list[str]:
    if isinstance(part, str):
        return [part] if part else []
    if not isinstance(part, dict):
        raise RowFault(RejectCode.WRONG_TYPE, f"a part of `{name}` is {type_name(part)}, not text")
    return [t for key in _PART_TEXTS if isinstance(t := part.get(key), str) and t]


def list_of(value: object, name: str) -> list[object]:
    """A list, also where a CSV cell or a text column holds it as JSON. Raises ``RowFault``."""
    value = unpacked(value, name)
    if not isinstance(value, list):
        raise RowFault(
            RejectCode.WRONG_TYPE, f"`{name}` is {type_name(value)}, a list was expected"
        )
    return value


def object_of(value: object, name: str) -> Row:
    """An object, also where it is stored as JSON text. Raises ``RowFault``."""
    value = unpacked(value, name)
    if not isinstance(value, dict):
        raise RowFault(
            RejectCode.WRONG_TYPE, f"`{name}` is {type_name(value)}, an object was expected"
        )
    return value


def unpacked(value: object, name: str) -> object:
    """``value``, parsed if it is the JSON text of a list or an object. Raises ``RowFault``."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parsed(value, decode_json(str(value)))
        except RowFault as fault:
            raise RowFault(fault.code, f"`{name}` holds text that is {fault.message}") from None
    return value


_TRUTHS: dict[object, bool] = {
    True: True,
    False: False,
    "true": True,
    "false": False,
    "1": True,
    "0": False,
}


def is_truth(value: object) -> bool:
    """Whether ``value`` can only mean true or false: a boolean, 0 or 1, also as text."""
    return _truth_key(value) in _TRUTHS


def truth(value: object, name: str) -> bool:
    """``value`` as a boolean. Raises ``RowFault``."""
    if not is_truth(value):
        raise RowFault(RejectCode.WRONG_TYPE, f"`{name}` is neither true nor false")
    return _TRUTHS[_truth_key(value)]


def _truth_key(value: object) -> object:
    if isinstance(value, str):
        return value.strip().lower()
    return value if isinstance(value, int | float) else None


def _plain(text: object) -> str:
    if isinstance(text, str):  # a subclass, which msgspec does not know
        return str(text)
    raise TypeError("not JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def json_text(value: object) -> str:
    """Compact JSON of a parsed value; text stays as it is. ``""`` for nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return _encoder.encode(value).decode()
    except (TypeError, ValueError, UnicodeError):
        return str(value)


def type_name(value: object) -> str:
    """The name of a JSON type, for messages."""
    if isinstance(value, str):  # or a subclass
        return "text"
    names = {bool: "a boolean", int: "a number", float: "a number"}
    names |= {list: "a list", dict: "an object", type(None): "null", bytes: "binary"}
    return names.get(type(value), f"a {type(value).__name__}")
