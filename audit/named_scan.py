"""The scan of one data set of several, and what of it a pipeline lets through."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from audit.scan_result import ScanResult
from detectors.finding import Finding, Severity


class AcceptedBy(enum.StrEnum):
    """Who let a flagged finding through. Stable names."""

    BASELINE = "baseline"
    SUPPRESSION = "suppression"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A flagged finding that a pipeline lets through, and why.

    ``expires`` is the last day on which it does (YYYY-MM-DD), or empty for a baseline, which ends
    when the data change.
    """

    code: str
    concept: str
    by: AcceptedBy
    owner: str
    reason: str
    expires: str


@dataclass(frozen=True, slots=True)
class NamedScan:
    """``name`` is what people call the data set; ``accepted`` are flagged findings of it.

    ``over_budget`` says in a line that more rows were rejected than a pipeline lets through.
    """

    name: str
    result: ScanResult
    accepted: tuple[Accepted, ...] = ()
    over_budget: str = ""

    def acceptance(self, finding: Finding) -> Accepted | None:
        """Why ``finding`` is let through, or None where it counts."""
        key = finding.code, finding.concept
        return next((a for a in self.accepted if (a.code, a.concept) == key), None)

    def held(self, at_least: Severity = Severity.NOTE) -> tuple[Finding, ...]:
        """The flagged findings of severity ``at_least`` or above that count."""
        return tuple(f for f in self.result.flagged(at_least) if self.acceptance(f) is None)
