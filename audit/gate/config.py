"""What a gate is told: data sets, how they are scanned, and what it lets through."""

from __future__ import annotations

import datetime
import enum
import fnmatch
from dataclasses import dataclass, field
from pathlib import Path

from audit.scan import ScanSettings
from detectors.detector import TestSettings
from detectors.finding import Finding, Severity
from detectors.model_access import ModelSettings


class Undecided(enum.StrEnum):
    """What a gate does with concepts that a scan could not decide. Stable names."""

    FAIL = "fail"
    PASS = "pass"


@dataclass(frozen=True, slots=True)
class Budgets:
    """What is tolerated.

    ``rejected_rows_share`` is the share (0 to 1) of a data set's rows that may be unreadable.
    ``inconclusive`` says what undecided concepts do. ``model_rows``: the model reads at most this
    many rows of each data set, and of its reference.
    """

    rejected_rows_share: float = 0.0
    inconclusive: Undecided = Undecided.FAIL
    model_rows: int = ModelSettings().most_rows


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set. Paths, globs, folders or URLs; paths are relative to ``GateConfig.root``."""

    name: str
    paths: tuple[str, ...]
    reference: tuple[str, ...]
    schema: str | None = None
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """Lets flagged findings of ``concept`` through, up to and including the day ``expires``.

    ``data`` is a glob over names of data sets; an empty ``code`` means every detector.
    """

    data: str
    concept: str
    code: str
    owner: str
    reason: str
    expires: datetime.date

    def covers(self, data_set: str) -> bool:
        """Whether it is about the data set of this name."""
        return fnmatch.fnmatchcase(data_set, self.data)

    def matches(self, data_set: str, finding: Finding) -> bool:
        """Whether it is about ``finding`` in the data set of this name."""
        return (
            self.covers(data_set)
            and self.concept == finding.concept
            and self.code in ("", finding.code)
        )

    def expired(self, today: datetime.date) -> bool:
        """Whether it lets nothing through any more."""
        return today > self.expires


@dataclass(frozen=True, slots=True)
class GateConfig:
    """A settings file, read and checked.

    ``root`` is the folder that all paths in here and in reports are relative to: the repository's
    root, or the settings file's own folder outside of a repository. ``file`` is the settings file,
    ``library``, ``model`` and ``baseline`` are paths; the first is None for the library that ships.
    """

    root: Path
    file: str
    data: tuple[DataSet, ...]
    library: str | None = None
    model: str | None = None
    student_family: str | None = None
    fail_on: Severity = Severity.WARNING
    detectors: tuple[str, ...] = ()
    test: TestSettings = field(default_factory=TestSettings)
    seed: int = 0
    baseline: str | None = None
    budgets: Budgets = field(default_factory=Budgets)
    suppressions: tuple[Suppression, ...] = ()

    def scan_settings(self, data: DataSet) -> ScanSettings:
        """How ``data`` is scanned."""
        return ScanSettings(
            detectors=self.detectors,
            schema=data.schema,
            tokenizer=data.tokenizer,
            student_family=self.student_family,
            rejected_rows_share=self.budgets.rejected_rows_share,
            test=self.test,
        )

    def model_settings(self) -> ModelSettings:
        """How much the model reads."""
        return ModelSettings(most_rows=self.budgets.model_rows, seed=self.seed)
