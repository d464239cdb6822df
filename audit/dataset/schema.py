"""The table of row schemas: how each is told by its columns, and what of it is trained.

Order decides where a row fits several: the first that fits is read. Of other columns, those that
hold text which another schema would train on are counted.
Shapes that say more come first (preference before chat, chat before bare text).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.messages import Loss, add_messages, messages_of
from audit.dataset.passages import RowTurns, Turn
from audit.dataset.placed import place_of, placed
from audit.dataset.preferences import (
    add_column,
    add_context,
    kto_label,
    lower_unless,
    read_openai_preference,
    read_pair,
    read_stepwise,
)
from audit.dataset.row_text import (
    ASSISTANT,
    USER,
    Row,
    RowText,
    is_truth,
    list_of,
    text_of,
    truth,
)
from audit.dataset.tokens import Decode, read_tokens
from audit.dataset.unread_text import ANSWER_COLUMNS, UnreadText, unread_columns
from audit.errors import UsageError


@dataclass(frozen=True, slots=True)
class Schema:
    """One shape of row. It fits where for each group of ``needs`` one column is not null, which is
    the one that is read.

    ``read`` raises ``RowFault``. ``context``: columns that are read as well, where others train.
    """

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Row], RowText]
    context: tuple[str, ...] = ()

    def fits(self, columns: frozenset[str]) -> bool:
        """Whether a row whose columns ``columns`` are not null has this shape."""
        return all(any(name in columns for name in group) for group in self.needs)

    def unread(self, columns: frozenset[str]) -> tuple[str, ...]:
        """Those of a row's ``columns`` that this does not read, and that others train on."""
        read = {next((n for n in group if n in columns), "") for group in self.needs}
        return tuple(sorted((columns & ANSWER_COLUMNS) - read - {*self.context}))


def _read_messages(row: Row) -> RowText:
    text = RowText()
    add_context(text, row, ("tools",))
    add_messages(text, messages_of(row["messages"], "messages"), "messages")
    return text


def _read_conversations(row: Row) -> RowText:
    text = RowText()
    add_context(text, row, ("tools", "system"))
    add_messages(text, messages_of(row["conversations"], "conversations"), "conversations")
    return text


def _read_alpaca(row: Row) -> RowText:
    text = RowText()
    add_context(text, row, ("tools", "system"))
    if (history := row.get("history")) is not None:
        for turn in list_of(history, "history"):
            if not isinstance(turn, list) or len(turn) != 2:
                raise RowFault(RejectCode.WRONG_TYPE, "a turn of `history` is not a pair of texts")
            text.add(USER, text_of(turn[0], "history"), False)
            text.add(ASSISTANT, text_of(turn[1], "history"), True)
    add_context(text, row, ("instruction", "input"))
    text.add(ASSISTANT, text_of(row.get("output"), "output"), True)
    return text


def _read_segments(row: Row) -> RowText:
    text = RowText()
    for segment in list_of(row["segments"], "segments"):
        if not isinstance(segment, dict):
            raise RowFault(RejectCode.WRONG_TYPE, "a segment is not an object")
        trained = truth(segment.get("label"), "label")
        said = text_of(segment.get("text"), "text")
        text.add(ASSISTANT if trained else USER, said, trained)
    return text


def _question(ask: tuple[str, ...], answer: str) -> Callable[[Row], RowText]:
    """Reader of a row with untrained columns ``ask`` and one trained column ``answer``."""

    def read(row: Row) -> RowText:
        text = RowText()
        add_context(text, row, ("tools", "system", *ask))
        add_column(text, row.get(answer), answer, Loss.ALL)
        return text

    return read


def _read_text(row: Row) -> RowText:
    text = RowText()
    text.add(ASSISTANT, text_of(row["text"], "text"), True)
    return text


def _read_prompt(row: Row) -> RowText:
    text = RowText()
    add_context(text, row, ("prompt",))
    return text


def _kto(read: Callable[[Row], RowText]) -> Callable[[Row], RowText]:
    return lambda row: lower_unless(read(row), kto_label(row))


def _needs_decoder(row: Row) -> RowText:
    return read_tokens(row, None)


_read_pair_of_texts = _question(("prompt",), "completion")

SCHEMAS: tuple[Schema, ...] = (
    Schema(
        "openai-preference",
        (
            ("input",),
            ("preferred_output", "preferred_completion"),
            ("non_preferred_output", "non_preferred_completion"),
        ),
        read_openai_preference,
    ),
    Schema("preference", (("chosen",), ("rejected",)), read_pair, ("conversations",)),
    Schema("stepwise", (("completions",), ("labels",)), read_stepwise),
    Schema("kto", (("prompt",), ("completion",), ("label", "kto_tag")), _kto(_read_pair_of_texts)),
    Schema("kto-messages", (("messages",), ("kto_tag",)), _kto(_read_messages)),
    Schema("kto-conversations", (("conversations",), ("kto_tag",)), _kto(_read_conversations)),
    Schema(
        "kto-alpaca",
        (("instruction",), ("output",), ("kto_tag",)),
        _kto(_read_alpaca),
        ("history",),
    ),
    Schema("tokens", (("input_ids",),), _needs_decoder),
    Schema("segments", (("segments",),), _read_segments),
    Schema("prompt-completion", (("prompt",), ("completion",)), _read_pair_of_texts),
    Schema("messages", (("messages",),), _read_messages),
    Schema("conversations", (("conversations",),), _read_conversations),
    Schema("alpaca", (("instruction",), ("output",)), _read_alpaca, ("history",)),
    Schema(
        "instruction-response",
        (("instruction",), ("response",)),
        _question(("instruction", "input"), "response"),
    ),
    Schema(
        "question-answer", (("question",), ("answer",)), _question(("input", "question"), "answer")
    ),
    Schema(
        "question-response", (("question",), ("response",)), _question(("question",), "response")
    ),
    Schema("text", (("text",),), _read_text),
    Schema("prompt", (("prompt",),), _read_prompt),
)
"""Every schema, in the order of detection."""

KNOWN_COLUMNS = frozenset(
    {name for schema in SCHEMAS for group in schema.needs for name in group}
    | {"tools", "system", "history", "input"}
    | {"labels", "label"}
)
"""Columns that some schema reads: columnar files give only these."""


Fit = tuple[Schema, tuple[str, ...]]
"""The schema of a row, and columns of it that other schemas train on."""

# Rows of one file nearly always share their columns; a hostile file may not.
_CACHE_SIZE = 1024


class RowReader:
    """Rows of any known schema to ``(schema, prompt, completion, rejected)``."""

    def __init__(
        self, schema: str | None, decode: Decode | None, *, needs_answers: bool = True
    ) -> None:
        """``schema`` forces one schema on every row; ``decode`` reads pre-tokenised rows.

        Without ``needs_answers``, a row with a prompt alone is read too. Raises ``UsageError`` for
        an unknown schema.
        """
        self._needs_answers = needs_answers
        self._forced = None if schema is None else schema_named(schema)
        self._decode = decode
        self._fitting: dict[frozenset[str], Fit | None] = {}
        self._unread = UnreadText()

    @property
    def detects_answers(self) -> bool:
        """Whether each row is read by the schema that it fits, and must hold trained text."""
        return self._forced is None and self._needs_answers

    def read(self, row: object) -> tuple[str, str, str, str | None]:
        """Schema, prompt, completion and rejected text of one row. Raises ``RowFault``.

        What other columns of it say besides is counted, for `take_unread`.
        """
        schema, text, unread = self._text(row)
        joined = self._joined(schema, text, unread)
        if unread:
            self._unread.rows += 1
            self._unread.columns.update(unread)
        return joined

    def take_unread(self) -> UnreadText:
        """What was counted of the rows read since this was called last."""
        taken, self._unread = self._unread, UnreadText()
        return taken

    def turns(self, row: object) -> RowTurns:
        """One row as ``read`` gives it, with its turns and their places. Raises ``RowFault``."""
        if isinstance(row, dict):
            # Other columns may be long, and hold nothing that any schema reads.
            row = {n: placed(v, (n,)) if n in KNOWN_COLUMNS else v for n, v in row.items()}
        schema, text, unread = self._text(row)
        turns = tuple(
            Turn(role, str(part), trained, place_of(part)) for role, part, trained in text.said
        )
        return RowTurns(*self._joined(schema, text, unread), turns)

    def _text(self, row: object) -> tuple[Schema, RowText, list[str]]:
        """The schema, what it reads, and the columns that hold other text."""
        if not isinstance(row, dict):
            raise RowFault(RejectCode.NOT_AN_OBJECT, "a row has to be an object with named columns")
        schema, others = self._schema_of(row)
        try:
            text = read_tokens(row, self._decode) if schema.name == "tokens" else schema.read(row)
            return schema, text, unread_columns(row, others, text) if others else []
        except RecursionError:
            raise RowFault(RejectCode.TOO_DEEP, "nested too deeply") from None

    def _joined(
        self, schema: Schema, text: RowText, unread: list[str]
    ) -> tuple[str, str, str, str | None]:
        trained_parts: list[str] = []
        other_parts: list[str] = []
        for _, part, trained in text.said:
            (trained_parts if trained else other_parts).append(part)
        completion = clean_text("\n".join(trained_parts))
        rejected = clean_text("\n".join(text.rejected)) if text.rejected else None
        prompt = clean_text("\n".join(other_parts))
        if not (self._needs_answers or prompt.strip()):
            raise RowFault(RejectCode.NO_PROMPT, f"read as {schema.name}, the row has no prompt")
        if self._needs_answers and not completion.strip() and not (rejected and rejected.strip()):
            if unread:
                raise RowFault(
                    RejectCode.UNKNOWN_SCHEMA,
                    f"read as {schema.name}, the row has no trained text, but {unread[0]!r} has",
                )
            if schema.name == "prompt":
                raise RowFault(
                    RejectCode.PROMPT_ONLY,
                    "the row has a prompt and no answer: nothing in it is trained",
                )
            raise RowFault(
                RejectCode.NO_TRAINED_TEXT, f"read as {schema.name}, the row has no trained text"
            )
        return schema.name, prompt, completion, rejected

    def _schema_of(self, row: Row) -> Fit:
        columns = frozenset(row)
        if None in row.values():
            columns = frozenset(name for name, value in row.items() if value is not None)
        # A label that is neither true nor false belongs to something else than KTO.
        if "label" in columns and not is_truth(row["label"]):
            columns -= {"label"}
        if self._forced is not None:
            if not self._forced.fits(columns):
                needs = ", ".join("/".join(group) for group in self._forced.needs)
                raise RowFault(
                    RejectCode.SCHEMA_MISMATCH, f"schema {self._forced.name} needs {needs}"
                )
            return self._forced, ()  # what training reads was said
        try:
            fit = self._fitting[columns]
        except KeyError:
            schema = schema_fitting(columns)
            fit = None if schema is None else (schema, schema.unread(columns))
            if len(self._fitting) < _CACHE_SIZE:
                self._fitting[columns] = fit
        if fit is None:
            shown = ", ".join(sorted(columns)[:8])[:200] or "no columns with a value that any knows"
            raise RowFault(RejectCode.UNKNOWN_SCHEMA, f"fits no known schema: it has {shown}")
        return fit


def schema_fitting(columns: frozenset[str]) -> Schema | None:
    """The schema of a row whose columns ``columns`` are not null."""
    return next((s for s in SCHEMAS if s.fits(columns)), None)


def schema_named(name: str) -> Schema:
    """The schema called ``name``. Raises ``UsageError``."""
    for schema in SCHEMAS:
        if schema.name == name:
            return schema
    known = ", ".join(schema.name for schema in SCHEMAS)
    raise UsageError(f"unknown schema {name!r}; known are: {known}")


def clean_text(text: str) -> str:
    """``text`` with each lone surrogate, which no UTF-8 column can hold, as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
