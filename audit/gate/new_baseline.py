"""A baseline of what a gate has found, and how it differs from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from audit.errors import AuditError, NothingScannableError
from audit.finding_fingerprint import finding_fingerprint
from audit.gate.baseline import BaselineEntry, entry_of
from audit.gate.result import GateResult
from audit.scan_result import Outcome


@dataclass(frozen=True, slots=True)
class NewBaseline:
    """``entries`` are all; ``added`` are those that the old baseline did not have, ``removed``
    those that only the old one had. ``left_out`` are names of flagged findings without a measured
    effect: nobody could tell whether they grow."""

    entries: tuple[BaselineEntry, ...]
    added: tuple[BaselineEntry, ...]
    removed: tuple[BaselineEntry, ...]
    left_out: tuple[str, ...]


def new_baseline(
    result: GateResult, old: Sequence[BaselineEntry], *, owner: str = "", reason: str = ""
) -> NewBaseline:
    """The flagged findings of ``result``, which ran without a baseline, that no suppression covers.

    A finding that ``old`` has too keeps its owner and reason where none is given. Raises
    ``AuditError`` or ``NothingScannableError`` where a data set was not read: a baseline of a part
    would look like one of the whole.
    """
    before = {entry.key: entry for entry in old}
    entries = []
    left_out = []
    for scan in result.scans:
        outcome, said = scan.result.outcome, f"data set '{scan.name}': {scan.result.headline}"
        if outcome is Outcome.INCOMPLETE:
            raise AuditError(f"{said} No baseline was written.")
        if outcome is Outcome.NOTHING_SCANNABLE:
            raise NothingScannableError(f"{said} No baseline was written.")
        for finding in scan.held():
            fingerprint = finding_fingerprint(
                finding.code, finding.concept, scan.result, finding.evidence
            )
            entry = entry_of(scan.name, finding, fingerprint)
            if entry.most_effect is None:
                left_out.append(f"{scan.name}: {finding.concept} flagged by {finding.code}")
                continue
            known = before.get(entry.key, entry)
            entries.append(
                replace(entry, owner=owner or known.owner, reason=reason or known.reason)
            )
    now = {entry.key for entry in entries}
    return NewBaseline(
        tuple(entries),
        tuple(entry for entry in entries if entry.key not in before),
        tuple(entry for entry in old if entry.key not in now),
        tuple(left_out),
    )
