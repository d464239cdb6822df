"""Which flagged findings of a data set are let through, by whom, and why others are not."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from audit.finding_fingerprint import finding_fingerprint
from audit.gate.baseline import BaselineEntry
from audit.gate.config import Suppression
from audit.named_scan import Accepted, AcceptedBy
from audit.scan_result import ScanResult
from detectors.finding import Finding


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is let through of one data set.

    ``notes`` say of other findings, by code and concept, why they nearly were. ``used`` are the
    suppressions that let something through, and ``found`` the keys of the baseline's entries whose
    finding is still there, whether or not it has grown.
    """

    accepted: tuple[Accepted, ...]
    notes: dict[tuple[str, str], str]
    used: frozenset[Suppression]
    found: frozenset[tuple[str, str, str, str]]


def accept(
    name: str,
    result: ScanResult,
    suppressions: Sequence[Suppression],
    baseline: Sequence[BaselineEntry],
    today: datetime.date,
) -> Acceptance:
    """What ``suppressions`` and ``baseline`` let through of the scan of the data set ``name``.

    A suppression, which has an owner and an end, comes before a baseline.
    """
    accepted = []
    notes = {}
    used: set[Suppression] = set()
    found: set[tuple[str, str, str, str]] = set()
    known = {entry.key: entry for entry in baseline}
    for finding in result.flagged():
        code, concept = finding.code, finding.concept
        matching = [s for s in suppressions if s.matches(name, finding)]
        active = [s for s in matching if not s.expired(today)]
        used.update(active)
        fingerprint = finding_fingerprint(code, concept, result, finding.evidence)
        entry = known.get((name, code, concept, fingerprint))
        if entry is not None:
            found.add(entry.key)
        if active:
            last = max(active, key=lambda s: s.expires)
            accepted.append(
                Accepted(
                    code,
                    concept,
                    AcceptedBy.SUPPRESSION,
                    last.owner,
                    last.reason,
                    last.expires.isoformat(),
                )
            )
        elif entry is not None and entry.covers(finding):
            accepted.append(
                Accepted(code, concept, AcceptedBy.BASELINE, entry.owner, entry.reason, "")
            )
        else:
            notes[code, concept] = "; ".join(_nearly(name, finding, entry, matching, baseline))
    return Acceptance(tuple(accepted), notes, frozenset(used), frozenset(found))


def _nearly(
    name: str,
    finding: Finding,
    entry: BaselineEntry | None,
    expired: Sequence[Suppression],
    baseline: Sequence[BaselineEntry],
) -> list[str]:
    said = [f"the suppression of {s.owner} expired on {s.expires.isoformat()}" for s in expired]
    place = name, finding.code, finding.concept
    if entry is not None:
        most = entry.most_effect
        if most is None or entry.effect_unit != finding.effect_unit:
            said.append("the baseline has no effect to compare with")
        else:
            said.append(f"it has grown beyond the baseline's {most:+.3g}")
    elif any((e.data, e.code, e.concept) == place for e in baseline):
        said.append("the baseline knows it with other rows, or from another library")
    return said
