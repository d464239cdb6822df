"""What a scan returns: everything that a report, a gate or a program may want to know of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from audit.dataset.record import BrokenSource, Reject, SourceSummary
from audit.errors import ExitCode
from detectors.compose import ConceptVerdict
from detectors.detector import DetectorInfo
from detectors.finding import Finding, Severity, Verdict
from signatures.language_model import ModelIdentity


class Outcome(enum.StrEnum):
    """The verdict on the whole data set, in the order in which one wins over the next.

    ``INCOMPLETE`` keeps any flagged finding: a broken file never hides one.
    """

    NOTHING_SCANNABLE = "nothing scannable"
    INCOMPLETE = "incomplete"
    FLAGGED = "flagged"
    INCONCLUSIVE = "inconclusive"
    NOT_DETECTED = "not detected"


@dataclass(frozen=True, slots=True)
class SkippedTest:
    """A detector, or one concept of it, that could not run, and why."""

    code: str
    detector: str
    concept: str
    reason: str


@dataclass(frozen=True, slots=True)
class LibraryIdentity:
    """Which signatures the scan used."""

    name: str
    path: str
    content_sha256: str
    model_name: str
    model_sha256: str
    concepts: int
    decoys: int


@dataclass(frozen=True, slots=True)
class ScanResult:
    """One finished (or broken-off) scan. All counts are exact, whatever the example lists hold.

    ``rejects`` holds the first few rejected rows; ``reject_counts`` all of them by code, of which
    ``rows_unread`` may hold text that training would see. Of the rows scanned,
    ``rows_with_unread_text`` have such text in columns that were not read, which ``unread_columns``
    counts by name.
    ``reference`` is empty when the scan ran without a reference file; ``baseline`` says what
    the data were compared with. ``concepts`` are the verdicts, each made of the ``findings`` of all
    detectors: a concept is flagged exactly where one of its findings is. ``limits`` are sentences:
    what this scan could not have seen. ``model`` is the one that model-based detectors read rows
    with, if any did.
    """

    tool_version: str
    outcome: Outcome
    headline: str
    sources: tuple[SourceSummary, ...]
    reference: tuple[SourceSummary, ...]
    baseline: str
    rows_scanned: int
    rows_rejected: int
    reject_counts: dict[str, int]
    rejects: tuple[Reject, ...]
    broken: tuple[BrokenSource, ...]
    library: LibraryIdentity
    detectors: tuple[DetectorInfo, ...]
    concepts: tuple[ConceptVerdict, ...]
    findings: tuple[Finding, ...]
    skipped: tuple[SkippedTest, ...]
    limits: tuple[str, ...]
    model: ModelIdentity | None
    false_discovery_rate: float
    rows_unread: int = 0
    rows_with_unread_text: int = 0
    unread_columns: dict[str, int] = field(default_factory=dict)

    def flagged(self, at_least: Severity = Severity.NOTE) -> tuple[Finding, ...]:
        """The flagged findings of severity ``at_least`` or above."""
        return tuple(
            f
            for f in self.findings
            if f.verdict is Verdict.FLAGGED and f.severity.rank >= at_least.rank
        )

    def exit_code(self, fail_on: Severity = Severity.WARNING) -> ExitCode:
        """0 to 3, as documented in ``audit.errors.ExitCode``.

        An incomplete scan is 2 even where something was flagged: its other verdicts may change.
        """
        if self.outcome is Outcome.NOTHING_SCANNABLE:
            return ExitCode.NOTHING_SCANNABLE
        if self.outcome is Outcome.INCOMPLETE:
            return ExitCode.FAILED
        return ExitCode.FINDINGS if self.flagged(fail_on) else ExitCode.OK
