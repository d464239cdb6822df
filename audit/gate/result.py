"""What a gate returns: the verdict on every data set, and what was let through."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass

from audit.errors import ExitCode
from audit.gate.baseline import BaselineEntry
from audit.gate.config import GateConfig, Suppression
from audit.named_scan import NamedScan
from audit.scan_result import Outcome
from detectors.finding import Verdict


class GateVerdict(enum.StrEnum):
    """The verdict on one data set, or on all. In the order in which one wins over the next.

    There is no "clean": what passes holds nothing that counts, as far as the scan could see.
    """

    INCOMPLETE = "incomplete"
    NOTHING_SCANNABLE = "nothing scannable"
    HELD = "held"
    PASSES = "passes"
    NOT_SCANNED = "not scanned"

    @property
    def exit_code(self) -> ExitCode:
        """What a gate with this verdict exits with."""
        return {
            GateVerdict.INCOMPLETE: ExitCode.FAILED,
            GateVerdict.NOTHING_SCANNABLE: ExitCode.NOTHING_SCANNABLE,
            GateVerdict.HELD: ExitCode.FINDINGS,
        }.get(self, ExitCode.OK)


class HoldKind(enum.StrEnum):
    """Why a data set does not pass. Stable names."""

    FINDING = "finding"
    UNDECIDED = "undecided"
    REJECTED_ROWS = "rejected rows"
    INCOMPLETE = "incomplete"
    NOTHING_SCANNABLE = "nothing scannable"

    @property
    def verdict(self) -> GateVerdict:
        """What it makes of a data set."""
        return {
            HoldKind.INCOMPLETE: GateVerdict.INCOMPLETE,
            HoldKind.NOTHING_SCANNABLE: GateVerdict.NOTHING_SCANNABLE,
        }.get(self, GateVerdict.HELD)


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason why a data set does not pass; ``code`` and ``concept`` are those of a finding."""

    kind: HoldKind
    message: str
    code: str = ""
    concept: str = ""


@dataclass(frozen=True, slots=True)
class SetDecision:
    """What was decided on one data set.

    ``scan`` is None, and ``not_scanned`` says why, where nothing of it changed.
    """

    name: str
    paths: tuple[str, ...]
    scan: NamedScan | None
    holds: tuple[Hold, ...] = ()
    not_scanned: str = ""

    @property
    def verdict(self) -> GateVerdict:
        """The worst that its holds make of it."""
        if self.scan is None:
            return GateVerdict.NOT_SCANNED
        return _worst([hold.kind.verdict for hold in self.holds] or [GateVerdict.PASSES])

    @property
    def undecided(self) -> int:
        """How many concepts its scan could not decide."""
        concepts = () if self.scan is None else self.scan.result.concepts
        return sum(concept.verdict is Verdict.INCONCLUSIVE for concept in concepts)

    @property
    def is_read(self) -> bool:
        """Whether it was scanned to its end, so that what was not found is not there."""
        return self.scan is not None and self.scan.result.outcome not in (
            Outcome.INCOMPLETE,
            Outcome.NOTHING_SCANNABLE,
        )


@dataclass(frozen=True, slots=True)
class GateResult:
    """One finished gate.

    ``expired`` and ``unused`` are suppressions that let nothing through, the first because their
    last day is over, the second because no scanned data set has such a finding. ``stale`` are
    baseline entries whose finding is gone. ``baseline_missing``: the settings name a baseline file
    that is not there yet. ``today`` is what suppressions were judged by.
    """

    tool_version: str
    config: GateConfig
    today: datetime.date
    changed_since: str | None
    sets: tuple[SetDecision, ...]
    expired: tuple[Suppression, ...]
    unused: tuple[Suppression, ...]
    stale: tuple[BaselineEntry, ...]
    baseline_missing: bool

    @property
    def verdict(self) -> GateVerdict:
        """The worst of all data sets."""
        return _worst([decision.verdict for decision in self.sets])

    @property
    def exit_code(self) -> ExitCode:
        """0 to 3, as documented in ``audit.errors.ExitCode``: of its verdict."""
        return self.verdict.exit_code

    @property
    def scans(self) -> tuple[NamedScan, ...]:
        """The scans of all data sets that were scanned, for reports."""
        return tuple(d.scan for d in self.sets if d.scan is not None)


def _worst(verdicts: list[GateVerdict]) -> GateVerdict:
    return min(verdicts, key=list(GateVerdict).index)
