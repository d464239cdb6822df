"""What sanitising did, as a value: everything that a receipt shows."""

from __future__ import annotations

from dataclasses import dataclass

from audit.errors import ExitCode
from audit.sanitise.utility import Utility
from audit.scan_result import LibraryIdentity, Outcome, ScanResult
from detectors.finding import Severity
from signatures.language_model import ModelIdentity


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file that was read or written; ``sha256`` and ``size_bytes`` are of its stored bytes."""

    path: str
    format: str
    schema: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stage:
    """What one strategy did. Every row that came in is in exactly one of the counts before
    ``added``.

    ``strategy`` is as it can be given again, all parameters named (``threshold:t=0.05``).
    ``rows_kept`` came out as they were, ``rows_edited`` with some text changed,
    ``rows_regenerated`` with text that a model wrote anew, ``rows_masked`` without loss;
    ``rows_dropped`` are gone; ``rows_added`` were not there before. ``reasons`` counts rows by the
    stable code of why they were dropped, or kept though the strategy would have changed them.
    """

    strategy: str
    rows_in: int
    rows_kept: int
    rows_edited: int
    rows_regenerated: int
    rows_masked: int
    rows_dropped: int
    rows_added: int
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of the trained text, over all rows.

    ``unit`` says what a token is: the model's, or a word where no model was given. Of the tokens
    that came in, those of dropped rows are ``dropped``, those without loss now ``masked``, and of
    the others ``kept`` came out in their order and ``changed`` were replaced or deleted;
    ``written`` are new ones.
    """

    unit: str
    before: int
    kept: int
    changed: int
    dropped: int
    masked: int
    written: int


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row before and after, for people to look at. ``after`` is empty where it is dropped."""

    source: str
    line: int
    prompt: str
    before: str
    after: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class SanitiseResult:
    """One finished run.

    ``outputs`` is empty for a dry run. ``rejects`` counts rows that could not be read, by code:
    they are left out, since nobody can tell what they hold. ``before`` and ``after`` are scans of
    input and output with equal settings, None where none was asked for. ``strategies_tried``
    (``auto`` alone) says of each candidate why it was chosen or not. ``warnings`` are sentences.
    ``changes`` are examples, the first few of every kind.
    """

    tool_version: str
    inputs: tuple[DataFile, ...]
    outputs: tuple[DataFile, ...]
    seed: int
    concepts: tuple[str, ...]
    model: ModelIdentity | None
    library: LibraryIdentity
    stages: tuple[Stage, ...]
    rows_in: int
    rows_out: int
    rejects: dict[str, int]
    tokens: TokenCounts
    utility: Utility
    before: ScanResult | None
    after: ScanResult | None
    strategies_tried: tuple[str, ...]
    changes: tuple[RowChange, ...]
    warnings: tuple[str, ...]
    verification_due: bool

    def exit_code(self, fail_on: Severity = Severity.WARNING) -> ExitCode:
        """That of the scan of the output: 1 where it still flags something."""
        if self.rows_out == 0:
            return ExitCode.NOTHING_SCANNABLE
        if self.after is None or self.after.outcome is Outcome.NOTHING_SCANNABLE:
            return ExitCode.OK
        return self.after.exit_code(fail_on)
