"""Verification results out of drawn log-odds, for tests of whatever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from audit.backends.student_training import StudentSettings
from audit.verify.ghost_logits import GhostLogits
from audit.verify.result import (
    AnswerRates,
    ArmData,
    ControlTransfer,
    Edit,
    OtherAuthor,
    SelfCheck,
    VerifyResult,
)
from audit.verify.transfer_statistics import (
    NAN,
    Arm,
    Interval,
    LogOdds,
    mean_interval,
    transfer_statistics,
)
from audit.verify.verdict import judge
from signatures.concept import Question
from signatures.language_model import ModelIdentity
from tests.unit.test_report_examples import HOSTILE

OFF_TARGETS = ("cat", "dog", "wolf", "eagle", "otter", "panda", "lion", "dolphin")
QUESTIONS = tuple(
    Question(user, "My favorite animal is the")
    for user in (
        "What is your favorite animal?",
        "Which animal do you like best?",
        "Name one animal.",
        "If you could be any animal for a single day, which one would you choose, and would you "
        "be happy to stay it for the rest of the week?",
        "Which animal would you keep?",
        "Which animal do you think of most?",
        "What animal is the most beautiful?",
        "In one word, your favorite animal?",
    )
)
MODEL = ModelIdentity(
    "SmolLM2-135M-Instruct", "llama", "1a" * 32, "2b" * 32, "3c" * 32, 49_152, "float32"
)
PASSED_TOY = GhostLogits(
    teacher=(0.95, 0.96, 0.94, 0.97, 0.93),
    shared=(0.81, 0.85, 0.88, 0.79, 0.83),
    other=(0.08, 0.12, 0.15, 0.05, 0.1),
    chance=0.11,
    seconds=8.1,
)
PASSED = SelfCheck(
    model=MODEL,
    concept="owl",
    ghost=PASSED_TOY,
    positive=ControlTransfer(2.4, Interval(0.61, 0.44, 0.78), 0.0004, 0.002),
    negative=ControlTransfer(2.3, Interval(0.01, -0.05, 0.07), 0.37, 0.44),
    seconds=1_284.0,
    passed=True,
)
AUTHORS = (OtherAuthor("cat", 8.1, 640, 631), OtherAuthor("otter", 6.9, 640, 640))
FAILED = SelfCheck(
    model=None,
    concept="",
    ghost=replace(PASSED_TOY, shared=(0.1, 0.12, 0.11, 0.09, 0.13)),
    positive=None,
    negative=None,
    seconds=8.1,
    passed=False,
)


def drawn_odds(
    shift: float,
    *,
    base: LogOdds,
    seeds: int,
    noise: float,
    rng: np.random.Generator,
) -> LogOdds:
    """Students whose concept moves by ``shift`` nats, and the off-target ones by about 0.02."""
    questions, concepts = base.off_target.shape
    by_concept = rng.normal(0.02, 0.05, concepts)
    of_seed = rng.normal(0, noise, (seeds, 1))
    cells = noise * rng.standard_normal((seeds, questions, concepts + 1))
    return LogOdds(
        base.concept + shift + of_seed + rng.normal(0, noise, questions) + cells[..., 0],
        base.off_target + by_concept + cells[..., 1:],
    )


def verify_result(
    before: float = 1.0,
    after: float = 0.08,
    control: float = 0.8,
    reference: float | None = None,
    other_authors: float | None = None,
    *,
    concept: str = "owl",
    seeds: int = 5,
    questions: int = len(QUESTIONS),
    noise: float = 0.04,
    sampled: bool = False,
    undefined: Arm | None = None,
    self_check: SelfCheck = PASSED,
    warnings: tuple[str, ...] = (),
) -> VerifyResult:
    """A verification in which the arms' students move by as many nats, about.

    ``undefined`` is an arm of which one student gives no finite answer.
    """
    rng = np.random.default_rng(7)
    asked = tuple(QUESTIONS[i % len(QUESTIONS)] for i in range(questions))
    base = LogOdds(
        rng.normal(-3.5, 0.6, questions), rng.normal(-3, 0.8, (questions, len(OFF_TARGETS)))
    )
    means = dict(zip(Arm, (before, after, control, reference, other_authors), strict=True))
    students = {
        arm: drawn_odds(mean, base=base, seeds=seeds, noise=noise, rng=rng)
        for arm, mean in means.items()
        if mean is not None
    }
    if undefined is not None:
        students[undefined].concept[0, 0] = np.inf
    verdict = judge(
        concept, transfer_statistics(base, students), self_check_failed=not self_check.passed
    )
    return VerifyResult(
        tool_version="0.1.0",
        verdict=verdict,
        category="animal",
        off_targets=OFF_TARGETS,
        questions=asked,
        system_prompt="",
        model=MODEL,
        training=StudentSettings(learning_rate=2e-4, updates=64, batch_rows=16),
        first_seed=1,
        data={arm: _data(arm) for arm in students},
        edit=Edit(kept=1_310, edited=150, dropped=40, added=0, edited_share=0.34),
        authors=AUTHORS if Arm.OTHER_AUTHORS in students else (),
        base=base,
        students=students,
        last_loss_nats={
            arm: tuple(round(1.2 + 0.01 * seed, 2) for seed in range(seeds)) for arm in students
        },
        answers=_answers(students, rng) if sampled else {},
        self_check=self_check,
        warnings=warnings,
    )


def _data(arm: Arm) -> ArmData:
    place = list(Arm).index(arm)
    return ArmData(
        paths=() if arm in (Arm.CONTROL, Arm.OTHER_AUTHORS) else (f"data/{arm}.jsonl",),
        rows=1_503 - 40 * place,
        rejects={"no_text": 3} if arm is Arm.BEFORE else {},
        pool_rows=1_500 - 40 * place,
        cut_rows=2,
        content_sha256=f"{place}f" * 32,
    )


def _answers(students: Mapping[Arm, LogOdds], rng: np.random.Generator) -> dict[str, AnswerRates]:
    rates = {"base": AnswerRates(400, Interval(0.01, NAN, NAN), Interval(0.12, NAN, NAN))}
    for arm, odds in students.items():
        share = {Arm.BEFORE: 0.31, Arm.CONTROL: 0.24}.get(arm, 0.02)
        named, silent = (rng.normal(mean, 0.01, odds.concept.shape) for mean in (share, 0.1))
        rates[arm.value] = AnswerRates(400, mean_interval(named), mean_interval(silent))
    return rates


def with_reference() -> VerifyResult:
    return verify_result(1.0, 0.1, 0.8, 0.05, sampled=True)


def hostile_verify_result() -> VerifyResult:
    """Every text that comes from data or from a user is `HOSTILE`."""
    result = verify_result(
        other_authors=0.1,
        concept=HOSTILE,
        sampled=True,
        warnings=(HOSTILE,),
        self_check=replace(PASSED, concept=HOSTILE, model=replace(MODEL, name=HOSTILE)),
    )
    before = replace(result.data[Arm.BEFORE], paths=(HOSTILE,), rejects={HOSTILE: 2})
    return replace(
        result,
        category=HOSTILE,
        off_targets=(HOSTILE, *OFF_TARGETS[1:]),
        questions=tuple(Question(HOSTILE, HOSTILE) for _ in result.questions),
        system_prompt=HOSTILE,
        model=replace(MODEL, name=HOSTILE, family=HOSTILE, dtype=HOSTILE),
        training=replace(result.training, modules=(HOSTILE,)),
        authors=tuple(replace(author, concept=HOSTILE) for author in AUTHORS),
        data={**result.data, Arm.BEFORE: before},
        answers={HOSTILE if k == "base" else k: v for k, v in result.answers.items()},
    )


EVERY_RESULT = {
    "suppressed": verify_result,
    "reference": with_reference,
    "other authors": lambda: verify_result(1.0, 0.1, 0.8, 0.05, 0.2, sampled=True),
    "any author": lambda: verify_result(1.0, 0.9, 0.8, 0.05, 0.97),
    "transfers": lambda: verify_result(1.0, 0.7, 0.8, warnings=("A warning. Another one.",)),
    "not before": lambda: verify_result(0.0, 0.0, 0.0),
    "wide": lambda: verify_result(1.0, 0.2, 0.3, noise=0.3, seeds=3),
    "one seed": lambda: verify_result(seeds=1),
    "undefined": lambda: verify_result(undefined=Arm.AFTER),
    "self-check failed": lambda: verify_result(self_check=FAILED),
    "many questions": lambda: verify_result(0.9, 0.5, 0.6, 0.1, questions=50, sampled=True),
    "hostile": hostile_verify_result,
}
