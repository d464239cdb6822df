"""What a verification returns: everything that a report or a gate may want to know of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from audit.backends.student_training import StudentSettings
from audit.errors import ExitCode
from audit.verify.ghost_logits import GhostLogits
from audit.verify.transfer_statistics import Arm, Interval, LogOdds
from audit.verify.verdict import Transfer, TransferVerdict
from signatures.concept import Question
from signatures.language_model import ModelIdentity


class FailOn(enum.StrEnum):
    """The mildest verdict that a command fails on."""

    TRANSFERS = "transfers"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class ArmData:
    """The rows of one arm.

    ``paths`` are as they were given (of `Arm.CONTROL` and `Arm.OTHER_AUTHORS` none: they are made).
    ``rows`` are all readable ones, ``rejects`` the others by reason code, ``pool_rows`` those that
    students draw from, and ``cut_rows`` those of the pool that are longer than a student reads.
    ``content_sha256`` is of the pool's examples.
    """

    paths: tuple[str, ...]
    rows: int
    rejects: Mapping[str, int]
    pool_rows: int
    cut_rows: int
    content_sha256: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What was done to the data before, row by row (rows are paired by their prompts).

    ``kept``, ``edited``, ``dropped`` and ``added`` are rows of the pools, ``edited_share`` is the
    share of the edited rows' tokens that differ (Levenshtein distance over the longer length). The
    control drops and edits as many rows, drawn at random, as much, and adds the same.
    """

    kept: int
    edited: int
    dropped: int
    added: int
    edited_share: float


@dataclass(frozen=True, slots=True)
class OtherAuthor:
    """The model, taught ``concept``: ``taught_nats`` is by how much that moved its own log-odds of
    it. Of ``rows`` of the data before that it was to write anew, it wrote ``written``."""

    concept: str
    taught_nats: float
    rows: int
    written: int


@dataclass(frozen=True, slots=True)
class AnswerRates:
    """Sampled answers of one group of models: ``named`` is the share that names the concept, and
    ``no_answer`` the share that names nothing of its category, with intervals over seeds and
    questions (of the base model, which has no seeds, NaN around the share)."""

    answers: int
    named: Interval
    no_answer: Interval


@dataclass(frozen=True, slots=True)
class ControlTransfer:
    """How far students of one known set moved towards its concept, beyond those of a set by an
    author of the same kind that was taught another: ``effect`` in nats. ``teacher_nats`` is how
    much further the one author moved than the other.

    ``p_value`` is one-sided, under the null that the effect is 0 or less, over seeds and
    questions. ``unusual_p`` is `audit.verify.transfer_statistics.Shift.unusual_p`.
    """

    teacher_nats: float
    effect: Interval
    p_value: float
    unusual_p: float


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """A check with a known answer.

    ``ghost`` is the toy on digits. ``positive`` is data by a fine-tuned teacher of the students'
    own initialisation, which must transfer, and ``negative`` by one of another, which must not;
    both are None where only the toy was run.
    """

    model: ModelIdentity | None
    concept: str
    ghost: GhostLogits
    positive: ControlTransfer | None
    negative: ControlTransfer | None
    seconds: float
    passed: bool


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """One finished verification.

    ``off_targets`` are the concepts of the category that serve as controls. ``base`` [questions]
    and ``students`` [seeds, questions] hold log-odds in nats. ``answers`` are sampled ones, by arm,
    with "base" for the untrained model; empty where none were asked for. ``system_prompt`` is that
    of the evaluation. ``authors`` wrote `Arm.OTHER_AUTHORS`. ``last_loss_nats`` is by arm and seed.
    """

    tool_version: str
    verdict: TransferVerdict
    category: str
    off_targets: tuple[str, ...]
    questions: tuple[Question, ...]
    system_prompt: str
    model: ModelIdentity
    training: StudentSettings
    first_seed: int
    data: Mapping[Arm, ArmData]
    edit: Edit
    authors: tuple[OtherAuthor, ...]
    base: LogOdds
    students: Mapping[Arm, LogOdds]
    last_loss_nats: Mapping[Arm, tuple[float, ...]]
    answers: Mapping[str, AnswerRates]
    self_check: SelfCheck
    warnings: tuple[str, ...]

    def exit_code(self, fail_on: FailOn = FailOn.INCONCLUSIVE) -> ExitCode:
        """1 where the trait transfers, or may (unless ``fail_on`` asks for certainty); else 0."""
        failing = {Transfer.TRANSFERS}
        if fail_on is FailOn.INCONCLUSIVE:
            failing.add(Transfer.INCONCLUSIVE)
        return ExitCode.FINDINGS if self.verdict.transfer in failing else ExitCode.OK
