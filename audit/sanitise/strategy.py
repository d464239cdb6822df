"""What a strategy is: rows in, and for each of them what becomes of it."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from audit.backends.open_model import Writer
from audit.dataset.passages import Turn
from audit.errors import UsageError
from signatures.concept import Concept
from signatures.library import SignatureLibrary

Array = NDArray[np.float64]


class Fate(enum.StrEnum):
    """What became of a row. Stable: receipts name them."""

    KEPT = "kept"
    EDITED = "edited"
    REGENERATED = "regenerated"
    MASKED = "masked"
    DROPPED = "dropped"


class Why(enum.StrEnum):
    """Why a row was dropped, or kept though its strategy changes rows. Stable."""

    NOT_REWRITABLE = "not_rewritable"
    NO_PROMPT = "no_prompt"
    PROMPT_NAMES_CONCEPT = "prompt_names_concept"
    TOO_LONG_FOR_MODEL = "too_long_for_model"
    NOT_FINISHED = "not_finished"
    FORMAT_NOT_KEPT = "format_not_kept"
    BELOW_THRESHOLD = "below_threshold"
    HIGH_SCORE = "high_score"
    NOT_SCORED = "not_scored"
    NO_MASK_IN_SCHEMA = "no_mask_in_schema"
    ORDER_CARRIES_MEANING = "order_carries_meaning"
    NOTHING_TO_REPLACE = "nothing_to_replace"
    NOTHING_TO_SHUFFLE = "nothing_to_shuffle"


@dataclass(frozen=True, slots=True)
class WorkRow:
    """A row as the strategies before have left it.

    ``key`` numbers the rows of all inputs from 0: it decides a row's random draws, whatever it is
    processed together with.
    """

    key: int
    source: str
    line: int
    schema: str
    turns: tuple[Turn, ...]

    @property
    def prompt(self) -> str:
        """The untrained text, as a scan reads it."""
        return "\n".join(turn.text for turn in self.turns if not turn.trained)

    @property
    def trained(self) -> tuple[int, ...]:
        """Which of ``turns`` are trained."""
        return tuple(index for index, turn in enumerate(self.turns) if turn.trained)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the trained turns."""
        return tuple(turn.text for turn in self.turns if turn.trained)

    @property
    def completion(self) -> str:
        """The trained text, as a scan reads it."""
        return "\n".join(self.texts)

    @property
    def is_rewritable(self) -> bool:
        """Whether every trained text can be put back into the row."""
        return all(turn.place is not None for turn in self.turns if turn.trained)

    def with_texts(self, texts: Sequence[str]) -> WorkRow:
        """The row with ``texts`` in place of its trained turns' own, in order."""
        turns = list(self.turns)
        for place, text in zip(self.trained, texts, strict=True):
            turns[place] = replace(turns[place], text=text)
        return replace(self, turns=tuple(turns))


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one row.

    ``texts`` are the new texts of its trained turns, for `Fate.EDITED` and `Fate.REGENERATED`
    alone. ``score`` ranks the row for `Strategy.settle`.
    """

    fate: Fate
    texts: tuple[str, ...] | None = None
    why: Why | None = None
    score: float = float("nan")


KEEP = Change(Fate.KEPT)

SAME_WITNESS = (
    "It takes away what scans with this model look for, be that all of a trait or not: the scan of "
    "the output is no independent judge of it."
)
"""The warning of strategies that pick by the very scores that scans are made of."""


def drop(why: Why) -> Change:
    """The row goes."""
    return Change(Fate.DROPPED, why=why)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number in [low, high], or one of ``choices``; None where it need not be given."""

    name: str
    help: str
    default: float | str | None
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> float | str:
        """The value that a user wrote. Raises ``UsageError``."""
        if self.choices:
            if text not in self.choices:
                raise UsageError(f"{self.name} is one of {', '.join(self.choices)}, not {text!r}")
            return text
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not self.low <= value <= self.high:
            raise UsageError(f"{self.name} is a number in {self.low:g}..{self.high:g}, not {text}")
        return value


@dataclass(frozen=True, slots=True)
class StrategyInfo:
    """What a strategy does, for whom it is, and what it does not promise.

    ``cost`` orders strategies for `auto`: what they take away from the data, and the model time
    that they need, as one rank.
    """

    name: str
    summary: str
    source: str
    needs_model: bool
    cost: int
    parameters: tuple[Parameter, ...] = ()
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Kit:
    """What strategies work with.

    ``concepts`` are those that the user named (perhaps none); ``personas`` are what rows are scored
    under: those, or some traits of the library. ``clean`` are the data that `dilute` adds.
    ``sample`` are random rows of all the data: they decide which words scores look at, so that a
    row's score does not depend on the chunk that it is in.
    """

    model: Writer | None
    concepts: tuple[Concept, ...]
    personas: tuple[Concept, ...]
    library: SignatureLibrary
    seed: int
    clean: tuple[str, ...] = ()
    sample: tuple[WorkRow, ...] = ()

    @property
    def writer(self) -> Writer:
        """The model. Raises ``UsageError`` where none was given."""
        if self.model is None:
            raise UsageError("this strategy works with a model: give --model")
        return self.model

    def draws(self, *parts: object) -> int:
        """A seed in [0, 2^63) of its own for every purpose."""
        text = repr((self.seed, *parts)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1

    def generator(self, row: WorkRow, *parts: object) -> np.random.Generator:
        """The random numbers of one row for one purpose."""
        return np.random.Generator(np.random.Philox(key=[self.draws(*parts), row.key]))


Values = Mapping[str, float | str | None]
"""Parameters by name."""


class Strategy:
    """A strategy that changes nothing; each of `audit.sanitise.strategies` is a subclass.

    ``values`` are its parameters by name, and ``stage`` numbers the strategies of a run.
    """

    info: ClassVar[StrategyInfo]

    def __init__(self, kit: Kit, values: Values, stage: int) -> None:
        """Nothing is read or loaded yet. Raises ``UsageError`` for values that make no sense."""
        self.kit = kit
        self.values = values
        self.stage = stage

    def number(self, name: str) -> float:
        """The parameter ``name``, which is a number with a default."""
        value = self.values[name]
        assert isinstance(value, float), name
        return value

    def change(self, rows: Sequence[WorkRow]) -> list[Change]:
        """What becomes of each row; a row's fate does not depend on the others' (see `settle`)."""
        return [KEEP] * len(rows)

    def settle(self, scores: Array) -> NDArray[np.bool_]:
        """Which rows `condemned` befalls, given the scores [rows] of all (NaN: none)."""
        return np.zeros(len(scores), dtype=bool)

    def condemned(self, schema: str) -> Change:
        """What becomes of a row of ``schema`` that `settle` picked."""
        return drop(Why.HIGH_SCORE)
