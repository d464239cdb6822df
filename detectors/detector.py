"""What every detector is: a commutative monoid over rows, and a test of its state.

``map(batch) -> state``, ``merge(state, state)``, ``test(state) -> findings``: one machine, many
processes and a cluster run the same code and, as states merge exactly, give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import polars as pl

from detectors.finding import Finding, Severity, Verdict

State = TypeVar("State")

BatchSource = Callable[[], Iterable[pl.DataFrame]]
"""Gives the reference's row frames afresh at every call."""


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What a detector is and what its numbers mean; shown in reports and documentation."""

    code: str
    name: str
    summary: str
    null_hypothesis: str
    score_range: str
    direction: str
    source: str


@dataclass(frozen=True, slots=True)
class TestSettings:
    """How findings are judged. ``false_discovery_rate`` and ``power`` are probabilities.

    ``minimum_rows``: below this many rows on either side a test is inconclusive, because a mean
    of fewer is not near enough to normal. Before a scan may say "not detected" it must be able to
    see ``effect_of_interest``, in standard deviations of one row's score. The default is what
    prompted teachers' sets were measured to show (0.01 to 0.04), which takes tens of thousands of
    rows; a fine-tuned teacher's show 0.14 to 0.18. ``share_of_interest`` is the share of rows
    naming a concept that it must see, and ``teacher_share_of_interest`` how strong a trait a
    model-based test must: 1 is a set written entirely under the concept's own system prompt, and
    fine-tuned teachers' sets were measured to show 0.25 to 0.77.
    ``evidence_rows`` and ``top_tokens`` bound what a finding shows.
    """

    __test__ = False  # not a test class, whatever its name says

    false_discovery_rate: float = 0.05
    power: float = 0.8
    minimum_rows: int = 30
    effect_of_interest: float = 0.02
    share_of_interest: float = 0.01
    teacher_share_of_interest: float = 0.2
    evidence_rows: int = 5
    top_tokens: int = 8

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a probability outside (0, 1) or a count below 1."""
        for name in ("false_discovery_rate", "power", "share_of_interest"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")
        for name in ("minimum_rows", "evidence_rows", "top_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("effect_of_interest", "teacher_share_of_interest"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A concept (or, with an empty name, the whole detector) that could not be tested at all."""

    concept: str
    reason: str


@dataclass(frozen=True, slots=True)
class DetectorResult:
    """Findings whose q-value and verdict `detectors.verdict.settle` still has to fill in."""

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...] = ()


def unsettled(info: DetectorInfo, **fields: Any) -> Finding:
    """A finding of ``info``'s detector, before `detectors.verdict.settle` gives it its verdict.

    ``fields`` are those of `Finding` that ``info`` does not decide.
    """
    return Finding(
        code=info.code,
        detector=info.name,
        verdict=Verdict.INCONCLUSIVE,
        severity=Severity.NOTE,
        null_hypothesis=info.null_hypothesis,
        **fields,
    )


class Detector(Protocol[State]):
    """The protocol of every detector. Its constructor takes (library, settings).

    ``state_types`` are the dataclasses that its states are made of, for `detectors.state_codec`.
    """

    info: DetectorInfo
    state_types: tuple[type, ...]

    def prepare(self, reference: BatchSource | None) -> None:
        """Look at the reference before any row is mapped (for instance for expected shares)."""
        ...

    def identity(self) -> State:
        """The state of no rows: ``merge(identity(), s) == s``."""
        ...

    def map(self, rows: pl.DataFrame) -> State:
        """The state of a row frame that follows ``detectors.rows.ROW_SCHEMA``."""
        ...

    def merge(self, left: State, right: State) -> State:
        """The state of both sets of rows: associative and commutative, to the last bit."""
        ...

    def test(self, data: State, reference: State | None) -> DetectorResult:
        """One finding for every trait of the library, unsettled."""
        ...
