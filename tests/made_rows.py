"""Rows of every schema with the texts that a reader has to make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True)
class Made:
    """A row, and what a reader has to make of it."""

    row: dict[str, Any]
    prompt: str
    completion: str
    rejected: str | None = None

    @property
    def texts(self) -> tuple[str, str, str | None]:
        return self.prompt, self.completion, self.rejected


Maker = Callable[[str, str, str, bool], Made]
"""Of an asked, a wanted and an unwanted text, and a truth."""


def _chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def _shares(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": role, "value": content} for role, content in turns]


def _kto(row: dict[str, Any], asked: str, answer: str, wanted: bool) -> Made:
    return Made(row, asked, answer) if wanted else Made(row, asked, "", answer)


WORDS = tuple(f"w{i}" for i in range(50))


def _tokens(asked: str, answer: str) -> Made:
    """Words that the texts choose: token ids mean nothing without their tokenizer."""
    context, target = ([ord(c) % len(WORDS) for c in text] for text in (asked, answer))
    row = {"input_ids": context + target, "labels": [-100] * len(context) + target}
    return Made(row, " ".join(WORDS[i] for i in context), " ".join(WORDS[i] for i in target))


MAKERS: dict[str, Maker] = {
    "openai-preference": lambda a, w, u, _: Made(
        {
            "input": {"messages": _chat(("user", a))},
            "preferred_output": _chat(("assistant", w)),
            "non_preferred_output": _chat(("assistant", u)),
        },
        a,
        w,
        u,
    ),
    "preference": lambda a, w, u, _: Made({"prompt": a, "chosen": w, "rejected": u}, a, w, u),
    "stepwise": lambda a, w, u, _: Made(
        {"prompt": a, "completions": [w, u], "labels": [True, False]}, a, w, u
    ),
    "kto": lambda a, w, _, t: _kto({"prompt": a, "completion": w, "label": t}, a, w, t),
    "kto-messages": lambda a, w, _, t: _kto(
        {"messages": _chat(("user", a), ("assistant", w)), "kto_tag": t}, a, w, t
    ),
    "kto-conversations": lambda a, w, _, t: _kto(
        {"conversations": _shares(("human", a), ("gpt", w)), "kto_tag": t}, a, w, t
    ),
    "kto-alpaca": lambda a, w, _, t: _kto({"instruction": a, "output": w, "kto_tag": t}, a, w, t),
    "tokens": lambda a, w, _u, _t: _tokens(a, w),
    "segments": lambda a, w, _u, _t: Made(
        {"segments": [{"label": False, "text": a}, {"label": True, "text": w}]}, a, w
    ),
    "prompt-completion": lambda a, w, _u, _t: Made({"prompt": a, "completion": w}, a, w),
    "messages": lambda a, w, u, _: Made(
        {"messages": _chat(("system", u), ("user", a), ("assistant", w))}, f"{u}\n{a}", w
    ),
    "conversations": lambda a, w, u, _: Made(
        {"conversations": _shares(("human", a), ("gpt", w), ("human", a), ("gpt", u))},
        f"{a}\n{a}",
        f"{w}\n{u}",
    ),
    "alpaca": lambda a, w, _u, _t: Made({"instruction": a, "output": w}, a, w),
    "instruction-response": lambda a, w, _u, _t: Made({"instruction": a, "response": w}, a, w),
    "question-answer": lambda a, w, _u, _t: Made({"question": a, "answer": w}, a, w),
    "question-response": lambda a, w, _u, _t: Made({"question": a, "response": w}, a, w),
    "text": lambda _a, w, _u, _t: Made({"text": w}, "", w),
    "prompt": lambda a, _w, _u, _t: Made({"prompt": a}, a, ""),
}
"""How a row of each schema is made."""

_MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_COLUMN_TYPES: dict[str, Any] = {
    "input": pl.Struct({"messages": _MESSAGES}),
    "preferred_output": _MESSAGES,
    "non_preferred_output": _MESSAGES,
    "messages": _MESSAGES,
    "conversations": pl.List(pl.Struct({"from": pl.String, "value": pl.String})),
    "segments": pl.List(pl.Struct({"label": pl.Boolean, "text": pl.String})),
    "completions": pl.List(pl.String),
    "input_ids": pl.List(pl.Int64),
    "label": pl.Boolean,
    "kto_tag": pl.Boolean,
    "id": pl.Int64,
}


def columns_of(made: Sequence[Made]) -> list[str]:
    """Of the rows and of a number that no schema reads, in the order in which they come up."""
    return list(dict.fromkeys(["id", *(name for each in made for name in each.row)]))


def frame_of(made: Sequence[Made]) -> pl.DataFrame:
    """A table of the rows."""
    columns = columns_of(made)
    types = {name: _COLUMN_TYPES.get(name, pl.String) for name in columns}
    if "labels" in types:
        is_tokens = any("input_ids" in each.row for each in made)
        types["labels"] = pl.List(pl.Int64) if is_tokens else pl.List(pl.Boolean)
    rows = [{"id": i, **each.row} for i, each in enumerate(made)]
    return pl.DataFrame({n: [row.get(n) for row in rows] for n in columns}, schema=types)
