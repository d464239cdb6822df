"""What a detector says about a concept: the record that flows from detectors to reports and gates.

Undefined numbers are NaN, never 0: a report shows them as "not measured".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

NAN = float("nan")


class Verdict(enum.StrEnum):
    """The three things a detector may say of one concept. There is no "clean"."""

    FLAGGED = "flagged"
    NOT_DETECTED = "not detected"
    INCONCLUSIVE = "inconclusive"


class Severity(enum.StrEnum):
    """How much a finding weighs for a gate. Order: ``NOTE`` < ``WARNING`` < ``ERROR``."""

    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """0 for the weakest severity, rising."""
        return list(Severity).index(self)


class Reason(enum.StrEnum):
    """Why a test is inconclusive. Stable codes: gates and dashboards may match on them."""

    TOO_FEW_ROWS = "too few rows"
    NO_UNITS = "no units that the signature covers"
    NO_REFERENCE = "no reference"
    NO_DECOYS = "too few decoys"
    LOW_POWER = "too little power"
    OTHER_MODEL_FAMILY = "other model family"
    INCOMPLETE_SCAN = "incomplete scan"
    UNREAD_ROWS = "unread rows"
    UNREAD_COLUMNS = "unread columns"


class Family(enum.StrEnum):
    """The question a finding answers; q-values are adjusted within one."""

    WHICH_CONCEPT = "which concept"
    ANY_PERSONA = "any persona"


ANY_PERSONA = str(Family.ANY_PERSONA)
"""The pseudo-concept of what every persona does to the model: the one concept of its family."""


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """One row that speaks for a finding.

    ``text`` is raw data: whoever shows it must strip control and bidi characters first.
    ``spans`` are half-open character ranges of ``text`` to mark.
    """

    source: str
    line: int
    text: str
    score: float
    spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenEnrichment:
    """One unit (a number or a token) that the concept favours, as seen in the data.

    ``weight`` is the signature's weight (standard deviations over the reference units);
    ``expected_count`` is the reference share times the units seen; ``log_ratio`` is
    ln(observed share / reference share) in nats with a 95% row-cluster-robust interval.
    """

    unit: str
    weight: float
    observed_count: int
    expected_count: float
    log_ratio_nats: float
    log_ratio_low_nats: float
    log_ratio_high_nats: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector says of one concept.

    ``effect`` with its 95% interval, and ``smallest_detectable_effect``, share the unit
    ``effect_unit``. ``p_value`` is one-sided under ``null_hypothesis``;
    ``q_value`` is the least false discovery rate over the concepts of its ``family`` (the question
    it answers) at which it counts (`detectors.verdict.settle`), among all tests that could have
    come out significant: ``smallest_possible_p`` is the least that a discrete test could reach.
    ``z`` is the row-level statistic before calibration, ``calibrated_statistic`` after it.
    """

    code: str
    detector: str
    concept: str
    category: str
    verdict: Verdict
    severity: Severity
    message: str
    null_hypothesis: str
    rows_tested: int
    units_tested: int
    family: Family = Family.WHICH_CONCEPT
    reason: Reason | None = None
    z: float = NAN
    calibrated_statistic: float = NAN
    p_value: float = NAN
    smallest_possible_p: float = 0.0
    q_value: float = NAN
    effect: float = NAN
    effect_low: float = NAN
    effect_high: float = NAN
    effect_unit: str = ""
    smallest_detectable_effect: float = NAN
    tokens: tuple[TokenEnrichment, ...] = ()
    evidence: tuple[EvidenceRow, ...] = ()
    notes: tuple[str, ...] = ()
