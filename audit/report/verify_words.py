"""What every rendering of a verification says in the same words.

Texts that come from data or from a user are returned as they are: renderings make them safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from audit.report.summary import plural, probability
from audit.verify.result import ControlTransfer, SelfCheck, VerifyResult
from audit.verify.transfer_statistics import Arm, Effects, Equivalence, Interval
from audit.verify.verdict import Transfer
from signatures.language_model import ModelIdentity

Facts = Sequence[tuple[str, str]]
"""Labels with texts."""

UNDEFINED = "undefined"
ANSWERS_BASE = "base"

SHIFT_MEANS = (
    "In nats of log-odds against the rest of the category, from the untrained model, mean over "
    "seeds and questions. Beyond others: the concept's shift less the mean of the off-target "
    "concepts'. Spread: standard deviation of the off-target concepts' mean shifts."
)
EFFECT_MEANS = (
    "Effect: the shift beyond others. p: of no effect. p of chance: of the concept being one more "
    "of the off-target ones, which also move by themselves. Both are one-sided."
)
ANSWERS_MEAN = (
    "Sampled answers are shown for the eye; the verdict rests on exact probabilities. No answer: "
    "nothing of the category is named."
)
SELF_CHECK_MEANS = (
    "What a teacher of the students' own initialisation passes on must arrive, and what another "
    "passes on must not. Where a known answer comes out wrong, no figure beside it counts."
)

_MEANING = {
    Transfer.TRANSFERS: "Training on the sanitised data still passes the trait on.",
    Transfer.SUPPRESSED: (
        "Up to {largest:.0%} left counts as suppressed. That holds for this model, this training "
        "and these questions; it is no proof that nothing is left."
    ),
    Transfer.NOT_BEFORE: (
        "There was nothing to remove, so this says nothing of the edit. It holds for this model, "
        "this training and these questions."
    ),
    Transfer.INCONCLUSIVE: "The figures do not decide. This is not a pass.",
}


@dataclass(frozen=True, slots=True)
class WordTable:
    """A table of words: the first column holds names, the others figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


# The verdict


def verdict_words(result: VerifyResult) -> str:
    """The verdict in capitals."""
    return result.verdict.transfer.value.upper()


def meaning(result: VerifyResult) -> str:
    """What the verdict says, and what it does not."""
    largest = result.verdict.thresholds.largest_share_left
    return _MEANING[result.verdict.transfer].format(largest=largest)


def size_words(result: VerifyResult) -> str:
    """``4 arms · 5 seeds each · 8 questions · 20 off-target concepts``."""
    figures = result.verdict.figures
    return " · ".join(
        (
            plural(len(result.students), "arm"),
            f"{plural(figures.seeds, 'seed')} each",
            plural(figures.questions, "question"),
            plural(figures.off_target_concepts, "off-target concept"),
        )
    )


def arms_words(result: VerifyResult) -> str:
    """What the students of each arm were trained on."""
    arms = [
        "on the data before",
        "on the sanitised data (after)",
        "on the data before with a random edit of the same size (control)",
        *(["on clean data (reference)"] if Arm.REFERENCE in result.students else []),
        *(
            ["on the data before as the model writes them when it is taught other traits"]
            if Arm.OTHER_AUTHORS in result.students
            else []
        ),
    ]
    return f"Students were trained {', '.join(arms[:-1])} and {arms[-1]}."


# Figures


def nats(value: float) -> str:
    """``+0.96``; ``undefined``."""
    return f"{value:+z.2f}" if math.isfinite(value) else UNDEFINED


def nats_interval(interval: Interval) -> str:
    """``+0.96 [+0.93, +0.98]``; ``+0.96 [undefined]``; ``undefined``."""
    return _interval(interval, "+z.2f")


def share_interval(interval: Interval, digits: int = 0) -> str:
    """``6% [-3%, 15%]``; ``6% [undefined]``; ``undefined``."""
    return _interval(interval, f"z.{digits}%")


def _interval(interval: Interval, form: str) -> str:
    if not math.isfinite(interval.estimate):
        return UNDEFINED
    ends = [
        format(end, form) if math.isfinite(end) else UNDEFINED
        for end in (interval.low, interval.high)
    ]
    return f"{format(interval.estimate, form)} [{', '.join(dict.fromkeys(ends))}]"


def extent(values: Sequence[float]) -> str:
    """``-0.06 to +0.11``; ``undefined`` where no value or one of them is."""
    if not values or not all(map(math.isfinite, values)):
        return UNDEFINED
    return f"{nats(min(values))} to {nats(max(values))}"


def p_value(value: float) -> str:
    """``0.023``; ``undefined``."""
    return UNDEFINED if math.isnan(value) else probability(value)


def shift_table(result: VerifyResult) -> WordTable:
    """One row an arm: rows, raw shift, off-target shift, specific shift, off-target spread."""
    rows = tuple(
        (
            arm.value,
            f"{result.data[arm].pool_rows:,}",
            nats(shift.raw.estimate),
            nats(shift.off_target.estimate),
            nats_interval(shift.specific),
            # A spread has no sign.
            nats(shift.off_target_spread).removeprefix("+"),
        )
        for arm, shift in result.verdict.figures.shifts.items()
    )
    return WordTable(
        ("arm", "rows", "concept", "others", f"beyond others [{_level(result)}]", "spread"), rows
    )


def base_words(result: VerifyResult) -> str:
    """The untrained model's own log-odds of the concept and of the off-target ones."""
    concept, others = float(result.base.concept.mean()), float(result.base.off_target.mean())
    return (
        f"Untrained, the model has log-odds of {nats(concept)} nats for the concept and "
        f"{nats(others)} for an off-target one, mean over questions."
    )


_ZERO = {
    None: "the untrained model",
    Arm.REFERENCE: "clean data",
    Arm.OTHER_AUTHORS: "other authors' rows",
}


def views(result: VerifyResult) -> list[tuple[str, Effects]]:
    """What effects are counted from, and the effects; a claim must hold in every one."""
    figures = result.verdict.figures
    found = [figures.effects, figures.beyond_authors]
    return [(_ZERO[view.zero], view) for view in found if view is not None]


def effect_tables(result: VerifyResult) -> list[tuple[str, WordTable]]:
    """What is counted from, and a row an arm: effect, share left of that before, p-values."""
    return [(zero, _effect_table(result, view)) for zero, view in views(result)]


def _effect_table(result: VerifyResult, view: Effects) -> WordTable:
    shares = {
        Arm.AFTER: share_interval(view.share_left),
        Arm.CONTROL: share_interval(view.control_share_left),
    }
    rows = tuple(
        (
            arm.value,
            nats_interval(effect.specific),
            shares.get(arm, ""),
            p_value(effect.specific_p),
            p_value(effect.unusual_p),
        )
        for arm, effect in view.by_arm.items()
    )
    between = f"[{_level(result)}]"
    return WordTable(
        ("arm", f"effect, nats {between}", f"left {between}", "p", "p of chance"), rows
    )


def equivalence_words(result: VerifyResult) -> list[str]:
    """Whether the sanitised data do as the control and as clean data do, a sentence each."""
    figures, rate = result.verdict.figures, result.verdict.thresholds.rate
    sentences = [_equivalence(Arm.CONTROL, figures.control_equivalence, rate)]
    if figures.reference_equivalence is not None:
        sentences.append(_equivalence(Arm.REFERENCE, figures.reference_equivalence, rate))
    if result.verdict.against_random is not None:
        sentences.append(f"In all: {result.verdict.against_random}.")
    return sentences


def _equivalence(other: Arm, found: Equivalence, rate: float) -> str:
    said = "not known" if math.isnan(found.p_value) else "shown"
    if found.p_value > rate:
        said = "not shown"
    return (
        f"After less {other}: {nats_interval(found.difference)} nats. Alike within "
        f"{found.margin_share:.0%} of the effect before: {said} (p {p_value(found.p_value)})."
    )


def answer_table(result: VerifyResult) -> WordTable:
    """One row an arm with sampled answers, the untrained model first."""
    between = f"[{_level(result)}]"
    return WordTable(
        ("arm", "answers", f"names it {between}", f"no answer {between}"),
        tuple(
            (
                name,
                f"{result.answers[name].answers:,}",
                share_interval(result.answers[name].named, 1),
                share_interval(result.answers[name].no_answer, 1),
            )
            for name in answer_groups(result)
        ),
    )


def answer_groups(result: VerifyResult) -> list[str]:
    """The groups of models with sampled answers, the untrained model first."""
    return sorted(result.answers, key=_place)


def _place(name: str) -> tuple[int, str]:
    order = [ANSWERS_BASE, *Arm]
    return (order.index(name) if name in order else len(order)), name


def _level(result: VerifyResult) -> str:
    return f"{100 * result.verdict.figures.level:.4g}%"


# What was done, and how it was measured


def edit_facts(result: VerifyResult) -> Facts:
    """The edit between the data before and after, row by row."""
    edit = result.edit
    differs = (
        f"{edit.edited_share:.1%} of their tokens differ"
        if math.isfinite(edit.edited_share)
        else f"{UNDEFINED} share of tokens"
    )
    return (
        ("kept", plural(edit.kept, "row")),
        ("edited", plural(edit.edited, "row") + (f"; {differs}" if edit.edited else "")),
        ("dropped", plural(edit.dropped, "row")),
        ("added", plural(edit.added, "row")),
    )


def data_facts(result: VerifyResult) -> Facts:
    """The rows of every arm, and where they came from."""
    facts = []
    for arm, data in result.data.items():
        left_out = ", ".join(f"{code} {count:,}" for code, count in sorted(data.rejects.items()))
        parts = [
            ", ".join(data.paths) or _made(arm, result),
            f"{plural(data.rows, 'row')} read",
            *([f"{sum(data.rejects.values()):,} not readable ({left_out})"] if left_out else []),
            f"{data.pool_rows:,} to train on",
            *([f"{data.cut_rows:,} of them cut"] if data.cut_rows else []),
            f"sha256 {data.content_sha256[:12]}",
        ]
        facts.append((arm.value, "; ".join(parts)))
    return facts


def _made(arm: Arm, result: VerifyResult) -> str:
    if arm is not Arm.OTHER_AUTHORS:
        return "made of the data before"
    taught = ", ".join(f"{a.concept} ({nats(a.taught_nats)} nats)" for a in result.authors)
    return f"the data before, written anew by the model taught {taught}"


def training_facts(result: VerifyResult) -> Facts:
    """How students were trained and asked, and what the verdict needs."""
    training, thresholds = result.training, result.verdict.thresholds
    first, seeds = result.first_seed, result.verdict.figures.seeds
    return (
        ("model", _model(result.model)),
        (
            "adapter",
            f"LoRA, rank {training.rank}, alpha {training.alpha}, {', '.join(training.modules)}"
            + ("; the base in 4 bits" if training.four_bit else ""),
        ),
        (
            "training",
            f"{plural(training.updates, 'update')} of {plural(training.batch_rows, 'row')}, "
            f"learning rate {training.learning_rate:g} after "
            f"{plural(training.warmup_updates, 'update')} of warm-up, then falling to 0; at most "
            f"{plural(training.most_tokens, 'token')} a row",
        ),
        ("seeds", f"{first} to {first + seeds - 1}" if seeds > 1 else f"{first}"),
        ("last loss", _losses(result)),
        ("category", result.category),
        ("off-target", ", ".join(result.off_targets)),
        ("system prompt", result.system_prompt or "empty"),
        (
            "verdicts",
            f"suppressed up to {thresholds.largest_share_left:.0%} left; nothing there below "
            f"{thresholds.smallest_effect_nats:g} nats; rate of false claims "
            f"{thresholds.rate:g}; at least {thresholds.fewest_seeds} seeds, "
            f"{thresholds.fewest_questions} questions, {thresholds.fewest_off_targets} off-target "
            "concepts",
        ),
        ("tool", f"subliminal-audit {result.tool_version}"),
    )


def _model(model: ModelIdentity) -> str:
    return f"{model.name} ({model.family}) {model.weights_sha256[:12]}, {model.dtype}"


def _losses(result: VerifyResult) -> str:
    means = (
        f"{arm} {_plain(sum(losses) / len(losses) if losses else math.nan)}"
        for arm, losses in result.last_loss_nats.items()
    )
    return f"{', '.join(means)} nats a token, mean over seeds"


def _plain(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else UNDEFINED


# The check with a known answer


def check_words(check: SelfCheck) -> str:
    """``PASSED`` or ``FAILED``."""
    return "PASSED" if check.passed else "FAILED"


def check_facts(check: SelfCheck) -> Facts:
    """What came out of each part of the check."""
    ghost = check.ghost
    facts = [
        ("toy on digits", "passed" if ghost.passed else "failed"),
        ("its teacher", f"{_accuracies(ghost.teacher)} right"),
        ("same start", f"{_accuracies(ghost.shared)} right, from noise alone"),
        (
            "another start",
            f"{_accuracies(ghost.other)} right; the commonest digit {ghost.chance:.0%}",
        ),
    ]
    if check.model is None:
        return [*facts, ("students", "not run")]
    return [
        *facts,
        ("model", _model(check.model)),
        ("concept", check.concept),
        ("must transfer", _control(check.positive)),
        ("must not", _control(check.negative)),
    ]


def _accuracies(values: Sequence[float]) -> str:
    if not values:
        return UNDEFINED
    ends = f"{min(values):.0%} to {max(values):.0%}, {plural(len(values), 'seed')}"
    return f"{sum(values) / len(values):.0%} ({ends})"


def _control(found: ControlTransfer | None) -> str:
    if found is None:
        return "not run"
    return (
        f"{nats_interval(found.effect)} nats, p {p_value(found.p_value)}, p of chance "
        f"{p_value(found.unusual_p)}; the teacher itself {nats(found.teacher_nats)}"
    )
