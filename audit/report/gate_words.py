"""What every rendering says of a gate in the same words.

Texts that come from data or settings are returned as they are: renderings make them safe.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from audit.gate.config import Suppression, Undecided
from audit.gate.holds import undecided_words
from audit.gate.result import GateResult, GateVerdict
from audit.report.acceptance import accepted_words
from audit.report.summary import plural

SOON_DAYS = 30

MEANING = {
    GateVerdict.INCOMPLETE: "Something was not read: verdicts may change. This is not a pass.",
    GateVerdict.NOTHING_SCANNABLE: "A data set has no row that could be read. This is not a pass.",
    GateVerdict.HELD: "Something counts that nobody has let through.",
    GateVerdict.PASSES: (
        "Nothing that counts was found, as far as these scans could see. "
        "That is no proof that nothing is hidden."
    ),
    GateVerdict.NOT_SCANNED: "Nothing of it changed, so nothing was scanned.",
}


def verdict_words(result: GateResult) -> str:
    """The verdict in capitals; an undecided pass says so, and what is held beside what broke."""
    words = result.verdict.value.upper()
    held = any(h.kind.verdict is GateVerdict.HELD for d in result.sets for h in d.holds)
    if result.verdict in (GateVerdict.INCOMPLETE, GateVerdict.NOTHING_SCANNABLE) and held:
        return f"{words}, AND HELD"
    if result.verdict is GateVerdict.PASSES and undecided(result):
        nothing = all(d.undecided == len(d.scan.result.concepts) for d in result.sets if d.scan)
        return f"{words}, NOTHING DECIDED" if nothing else f"{words}, UNDECIDED IN PART"
    return words


def headline(result: GateResult) -> str:
    """How many data sets pass, and how many findings were let through."""
    total = plural(len(result.sets), "data set")
    parts = []
    for verdict, words in (
        (GateVerdict.INCOMPLETE, "incomplete"),
        (GateVerdict.NOTHING_SCANNABLE, "without anything to scan"),
        (GateVerdict.HELD, "held"),
        (GateVerdict.PASSES, "passed"),
        (GateVerdict.NOT_SCANNED, "unchanged and not scanned"),
    ):
        count = sum(d.verdict is verdict for d in result.sets)
        if count:
            parts.append(f"{count:,} {words}")
    accepted = sum(len(scan.accepted) for scan in result.scans)
    through = f" {plural(accepted, 'flagged finding')} let through." if accepted else ""
    return f"Of {total}: {', '.join(parts)}.{through}"


def undecided(result: GateResult) -> list[tuple[str, str]]:
    """(data set, what its scan could not decide), whether or not that holds it."""
    said = [(d.name, undecided_words(d.scan)) for d in result.sets if d.scan and d.is_read]
    return [(name, words) for name, words in said if words]


def undecided_advice(result: GateResult) -> str:
    """What to do about undecided concepts."""
    more = (
        "More rows" if result.config.model else "More rows, or rows read with the model itself,"
    ) + " decide more."
    if result.config.budgets.inconclusive is Undecided.PASS:
        return f'{more} The settings let them pass (inconclusive = "pass").'
    return f'{more} To let them pass all the same, set inconclusive = "pass" in the budgets.'


def suppression_words(suppression: Suppression) -> str:
    """Which suppression it is."""
    code = f" {suppression.code}" if suppression.code else ""
    return (
        f"{suppression.concept}{code} in {suppression.data}, by {suppression.owner} until "
        f"{suppression.expires}: {suppression.reason}"
    )


def expiring(result: GateResult) -> list[tuple[Suppression, int]]:
    """Suppressions that end within 30 days, and how many days are left after today."""
    left = [(s, (s.expires - result.today).days) for s in result.config.suppressions]
    return [(s, days) for s, days in left if 0 <= days <= SOON_DAYS]


def below(result: GateResult) -> list[tuple[str, str]]:
    """(data set, finding) of what is flagged below the failing severity and not let through."""
    return [
        (scan.name, f"{f.concept} flagged by {f.code} ({f.severity.value})")
        for scan in result.scans
        for f in scan.held()
        if f.severity.rank < result.config.fail_on.rank
    ]


def everything(result: GateResult) -> list[tuple[str, list[str]]]:
    """(heading, lines): what holds, what was not decided, what is let through and what is over.

    Headings without a line are left out.
    """
    return [(title, lines) for title, lines in _everything(result) if lines]


def _everything(result: GateResult) -> Iterable[tuple[str, list[str]]]:
    config = result.config
    for decision in result.sets:
        yield (
            f"{decision.name}: {decision.verdict.value}",
            [hold.message for hold in decision.holds],
        )
    not_decided = [f"{name}: {what}" for name, what in undecided(result)]
    yield "Not decided", not_decided and [*not_decided, undecided_advice(result)]
    yield (
        "Let through",
        [
            f"{scan.name}: {accepted.concept} flagged by {accepted.code}, "
            f"{accepted_words(accepted)}"
            for scan in result.scans
            for accepted in scan.accepted
        ],
    )
    yield (
        f"Flagged below {config.fail_on.value}, which does not count",
        [f"{name}: {words}" for name, words in below(result)],
    )
    yield "Ends soon", [f"{_days(days)}: {suppression_words(s)}" for s, days in expiring(result)]
    yield (
        "Suppressions that have expired and let nothing through",
        [suppression_words(s) for s in result.expired],
    )
    yield (
        "Suppressions without a finding: remove them",
        [suppression_words(s) for s in result.unused],
    )
    yield (
        "Baseline entries whose finding is gone: write the baseline anew",
        [f"{e.data}: {e.concept} flagged by {e.code}" for e in result.stale],
    )
    if result.baseline_missing:
        yield "Baseline", [f"{config.baseline} is not there yet: audit baseline writes it"]
    yield "Not scanned", [f"{d.name}: {d.not_scanned}" for d in result.sets if d.not_scanned]


def _days(days: int) -> str:
    return "today is the last day" if days == 0 else f"in {plural(days, 'day')}"


def today_words(today: datetime.date) -> str:
    """What suppressions were judged by."""
    return f"suppressions as of {today.isoformat()}"
