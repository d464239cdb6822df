"""What can be wrong with one row, with stable codes, and with a whole source."""

from __future__ import annotations

import enum
from collections.abc import Mapping


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


# The only rows of which a scan knows that training puts no loss on them: their columns were read,
# and there is no answer in them, nor in another column that a schema trains on (such a row is
# UNKNOWN_SCHEMA). Of all others it knows less. Some parser may read the line (BAD_JSON, for there
# are wider dialects than Python's; DUPLICATE_KEY, INVALID_UTF8, TOO_DEEP, BAD_CSV) or have the
# memory (LINE_TOO_LONG). A trainer may name its own columns (NOT_AN_OBJECT, UNKNOWN_SCHEMA,
# SCHEMA_MISMATCH) and roles (UNKNOWN_ROLE), write numbers out as text (WRONG_TYPE), or have the
# tokenizer (NEEDS_TOKENIZER, BAD_TOKENS). NO_PROMPT does not come up in a scan.
_NOTHING_TRAINED = frozenset({RejectCode.PROMPT_ONLY, RejectCode.NO_TRAINED_TEXT})


def unread_rows(reject_counts: Mapping[str, int]) -> int:
    """How many of the rows rejected, by code, may hold text that training would see."""
    return sum(n for code, n in reject_counts.items() if code not in _NOTHING_TRAINED)


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
