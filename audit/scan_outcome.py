"""The verdict on a whole scan, as a value and as a sentence, out of its concepts' verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from audit.dataset.record import BrokenSource
from audit.scan_result import Outcome, SkippedTest
from detectors.compose import MENTION, ConceptVerdict, Gap
from detectors.finding import Finding, Reason, Verdict
from detectors.registry import model_detector_names


def overall(
    rows: int, broken: Sequence[BrokenSource], concepts: Sequence[ConceptVerdict]
) -> Outcome:
    """The outcome of a scan of ``rows`` rows."""
    if rows == 0:
        return Outcome.INCOMPLETE if broken else Outcome.NOTHING_SCANNABLE
    if broken:
        return Outcome.INCOMPLETE
    verdicts = {concept.verdict for concept in concepts}
    if Verdict.FLAGGED in verdicts:
        return Outcome.FLAGGED
    # Where no concept was tested, none was cleared.
    return Outcome.NOT_DETECTED if verdicts == {Verdict.NOT_DETECTED} else Outcome.INCONCLUSIVE


def headline(
    outcome: Outcome,
    rows: int,
    concepts: Sequence[ConceptVerdict],
    findings: Sequence[Finding],
    skipped: Sequence[SkippedTest],
    has_reference: bool,
) -> str:
    """``outcome`` in a sentence or two."""
    flagged = [c.concept for c in concepts if c.verdict is Verdict.FLAGGED]
    named = f"{', '.join(flagged)} flagged" if flagged else "nothing flagged"
    if outcome is Outcome.NOTHING_SCANNABLE:
        return "No row could be read: nothing was scanned."
    if outcome is Outcome.INCOMPLETE:
        return f"A source broke off: {rows:,} rows were scanned, {named}, and the rest is unknown."
    if outcome is Outcome.FLAGGED:
        return f"{named} in {rows:,} rows."
    if outcome is Outcome.NOT_DETECTED:
        return (
            f"None of {len(concepts)} concepts was detected in {rows:,} rows."
            f"{_could_not_have_seen(findings)}"
        )
    quiet = f"Nothing was flagged in {rows:,} rows, but"
    undecided = [c for c in concepts if c.verdict is Verdict.INCONCLUSIVE]
    reasons = {c.reason for c in undecided}
    if skipped and reasons <= {Gap.SKIPPED}:
        first = skipped[0]
        what = first.concept or "everything"
        return f"{quiet} {first.detector} did not test {what}: {first.reason}."
    if reasons == {Gap.NO_HIDDEN_TEST}:
        return f"{quiet} no detector of hidden traits ran."
    if reasons == {Reason.OTHER_MODEL_FAMILY}:
        return f"{quiet} they are of another model family than what they were compared with."
    if reasons == {Reason.UNREAD_ROWS}:
        return f"{quiet} some of the data could not be read: what it holds is unknown."
    if reasons == {Reason.UNREAD_COLUMNS}:
        return f"{quiet} some hold text in columns that were not read: what it says is unknown."
    advice = "" if has_reference else " Give clean rows of the same prompts with --reference."
    if Reason.LOW_POWER in reasons and not {f.detector for f in findings} & set(
        model_detector_names()
    ):
        advice += " Rows read with the model itself (--model) tell more."
    return (
        f"{quiet} {len(undecided)} of {len(concepts)} concepts cannot be ruled out at this size."
        f"{advice}"
    )


def _could_not_have_seen(findings: Sequence[Finding]) -> str:
    """The largest of the smallest detectable effects, for each detector of hidden traits."""
    weakest: dict[tuple[str, str], float] = {}
    for f in findings:
        if f.verdict is Verdict.NOT_DETECTED and f.code != MENTION:
            key = (f.code, f.effect_unit)
            weakest[key] = max(weakest.get(key, 0.0), f.smallest_detectable_effect)
    seen = {key: effect for key, effect in sorted(weakest.items()) if effect > 0}
    parts = [
        f"{effect:.2g} {unit}" + (f" ({code})" if len(seen) > 1 else "")
        for (code, unit), effect in seen.items()
    ]
    return f" Effects under {' or '.join(parts)} could not have been seen." if parts else ""
