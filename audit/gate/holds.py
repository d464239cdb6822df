"""Why a scanned data set does not pass a gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from audit.gate.config import GateConfig, Undecided
from audit.gate.result import Hold, HoldKind
from audit.named_scan import NamedScan
from audit.report.summary import ordered, plural, reasons
from audit.scan_result import Outcome
from detectors.finding import Verdict


def holds(
    named: NamedScan, notes: Mapping[tuple[str, str], str], config: GateConfig
) -> tuple[Hold, ...]:
    """Every reason, the worst kind first. ``notes`` say more of findings, by code and concept."""
    found = list(_holds(named, notes, config))
    return tuple(sorted(found, key=lambda hold: _ORDER.index(hold.kind)))


_ORDER = (
    HoldKind.INCOMPLETE,
    HoldKind.NOTHING_SCANNABLE,
    HoldKind.FINDING,
    HoldKind.REJECTED_ROWS,
    HoldKind.UNDECIDED,
)


def undecided_words(named: NamedScan) -> str:
    """What a scan could not decide, in a clause; empty where it decided everything."""
    concepts = named.result.concepts
    undecided = [c for c in concepts if c.verdict is Verdict.INCONCLUSIVE]
    if not concepts:
        return "no concept was tested"
    if not undecided:
        return ""
    return (
        f"{len(undecided):,} of {plural(len(concepts), 'concept')} undecided: {reasons(undecided)}"
    )


def _holds(
    named: NamedScan, notes: Mapping[tuple[str, str], str], config: GateConfig
) -> Iterator[Hold]:
    result, budgets = named.result, config.budgets
    for finding in ordered(named.held(config.fail_on)):
        note = notes.get((finding.code, finding.concept), "")
        yield Hold(
            HoldKind.FINDING,
            f"{finding.concept} flagged by {finding.code} ({finding.severity.value}): "
            f"{finding.message}" + (f"; {note}" if note else ""),
            finding.code,
            finding.concept,
        )
    rows = result.rows_scanned + result.rows_rejected
    if result.rows_rejected > budgets.rejected_rows_share * rows:
        yield Hold(
            HoldKind.REJECTED_ROWS,
            f"{result.rows_rejected:,} of {plural(rows, 'row')} could not be read "
            f"({_most_frequent(result.reject_counts)}); the budget is a share of "
            f"{budgets.rejected_rows_share:g}",
        )
    if result.outcome is Outcome.INCOMPLETE:
        yield Hold(HoldKind.INCOMPLETE, result.headline)
    elif result.outcome is Outcome.NOTHING_SCANNABLE:
        yield Hold(HoldKind.NOTHING_SCANNABLE, result.headline)
    elif budgets.inconclusive is Undecided.FAIL and (words := undecided_words(named)):
        yield Hold(HoldKind.UNDECIDED, words)


def _most_frequent(reject_counts: Mapping[str, int]) -> str:
    listed = sorted(reject_counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(code for code, _ in listed[:3])
