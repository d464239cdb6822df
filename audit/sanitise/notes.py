"""What a receipt says in sentences, and of rows that were added."""

from __future__ import annotations

from collections.abc import Sequence

from audit.sanitise.receipt import Stage
from audit.sanitise.registry import Spec
from audit.sanitise.strategy import Why
from audit.sanitise.writing import Writing
from audit.scan_result import Outcome, ScanResult

VERIFICATION_DUE = (
    "No scan can prove that a trait is gone: train a small student on the output and on a control "
    "before it is relied on."
)


def dilution_stage(spec: Spec, rows: int, added: int) -> Stage:
    """Of ``rows`` that stayed as the strategies before had left them."""
    return Stage(str(spec), rows, rows, 0, 0, 0, 0, added, {})


def warnings_of(
    specs: Sequence[Spec],
    stages: Sequence[Stage],
    writing: Writing,
    before: ScanResult | None,
    after: ScanResult | None,
) -> tuple[str, ...]:
    """What the user must know before the output is used."""
    found = [
        f"{spec.name}: {spec.info.warning}"
        for spec in {spec.name: spec for spec in specs}.values()
        if spec.info.warning
    ]
    for stage in stages:
        untouched = stage.reasons.get(Why.ORDER_CARRIES_MEANING, 0)
        if untouched:
            found.append(
                f"{stage.strategy} left {untouched:,} of {stage.rows_in:,} rows as they were: they "
                "are no number lists."
            )
    if writing.rejects:
        found.append(
            f"{writing.rejects.total():,} rows could not be read and were left out: nobody can "
            "tell what they hold."
        )
    if writing.rows_out == 0:
        found.append("No row is left: nothing was written.")
    if after is None:
        if writing.rows_out:
            found.append("The output was not scanned.")
    elif after.outcome is not Outcome.NOT_DETECTED:
        found.append(f"The scan of the output does not clear it: {after.headline}")
    if before is not None and before.outcome is not Outcome.FLAGGED:
        found.append(
            "The input itself was not flagged, so the scan of the output cannot show that anything "
            "was removed."
        )
    found.append(VERIFICATION_DUE)
    return tuple(found)
