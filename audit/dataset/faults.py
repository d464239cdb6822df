"""What can be wrong with one row, with stable codes, and with a whole source."""

from __future__ import annotations

import enum


class RejectCode(enum.StrEnum):
    """Why a row was not read. Stable: reports and gates name them (see ``docs/inputs.md``)."""

    BAD_JSON = "bad_json"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_OBJECT = "not_an_object"
    INVALID_UTF8 = "invalid_utf8"
    TOO_DEEP = "too_deep"
    LINE_TOO_LONG = "line_too_long"
    BAD_CSV = "bad_csv"
    UNKNOWN_SCHEMA = "unknown_schema"
    SCHEMA_MISMATCH = "schema_mismatch"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_ROLE = "unknown_role"
    PROMPT_ONLY = "prompt_only"
    NO_PROMPT = "no_prompt"
    NO_TRAINED_TEXT = "no_trained_text"
    NEEDS_TOKENIZER = "needs_tokenizer"
    BAD_TOKENS = "bad_tokens"


class RowFault(Exception):
    """One row cannot be read; the rest of the source can. Format readers yield it as a value."""

    def __init__(self, code: RejectCode, message: str) -> None:
        """``message`` is one line that says what is wrong, and what to do if that is not plain."""
        super().__init__(message)
        self.code = code
        self.message = message


class SourceBreak(Exception):
    """The source cannot be read any further. ``line`` is 1-based, 0 where it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        """``message`` goes on from the name of the source: ``breaks off ...``."""
        super().__init__(message)
        self.message = message
        self.line = line
