"""What every rendering says of a scan in the same words: order, counts, numbers, provenance.

Texts that come from data or from a library are returned as they are: renderings make them safe.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from audit.dataset.record import SourceSummary
from audit.scan_result import Outcome, ScanResult, SkippedTest
from detectors.compose import ConceptVerdict, Gap
from detectors.finding import Finding, Reason, Verdict
from signatures.language_model import ModelIdentity

Item = TypeVar("Item")

UNDEFINED = "–"
_SMALLEST_SHOWN_P = 1e-16
VERDICTS = (Verdict.FLAGGED, Verdict.INCONCLUSIVE, Verdict.NOT_DETECTED)
"""In the order in which every report shows them."""

SIGNS = {
    "▲": "flags it",
    "○": "does not, and could have",
    "?": "cannot say",
    "–": "skipped",
}
"""What one detector says of one concept, in one character."""

_SHORT_REASON = {
    Reason.NO_UNITS: "no units",
    Reason.OTHER_MODEL_FAMILY: "other family",
    Reason.LOW_POWER: "low power",
    Reason.UNREAD_COLUMNS: "unread cols",
    Gap.SKIPPED: "test skipped",
    Gap.NO_HIDDEN_TEST: "no hidden test",
}
"""Reasons that are too long for a column."""

MEANING = {
    Outcome.FLAGGED: "At least one concept stands out beyond what chance and the decoys explain.",
    Outcome.NOT_DETECTED: (
        "No concept of the library stood out. That is no proof that none is hidden: "
        "smaller effects and other concepts could not have been seen."
    ),
    Outcome.INCONCLUSIVE: "The scan could not decide. This is not a pass.",
    Outcome.INCOMPLETE: (
        "A part of the input was not read: verdicts may change. This is not a pass."
    ),
    Outcome.NOTHING_SCANNABLE: "No row could be tested. This is not a pass.",
}


@dataclass(frozen=True, slots=True)
class Overview:
    """The findings of a scan by verdict, each most striking first."""

    flagged: tuple[Finding, ...]
    inconclusive: tuple[Finding, ...]
    not_detected: tuple[Finding, ...]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Flagged first, then inconclusive, then not detected; within each by rising q, then p.

    The order is total, whatever order the findings come in; undefined numbers come last.
    """
    return sorted(
        findings,
        key=lambda f: (
            VERDICTS.index(f.verdict),
            _nan_last(f.q_value),
            _nan_last(f.p_value),
            _nan_last(-f.calibrated_statistic),
            f.code,
            f.concept,
            f.category,
            f.message,
        ),
    )


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def overview(result: ScanResult) -> Overview:
    """The findings of ``result``, ordered and split by verdict.

    What else was found of a flagged concept comes before what was found of others.
    """
    flagged = {(c.family, c.concept) for c in result.concepts if c.verdict is Verdict.FLAGGED}
    findings = sorted(ordered(result.findings), key=lambda f: (f.family, f.concept) not in flagged)
    return Overview(*(tuple(f for f in findings if f.verdict is verdict) for verdict in VERDICTS))


def concepts_by_verdict(result: ScanResult) -> list[list[ConceptVerdict]]:
    """The concepts flagged, inconclusive and not detected, each in the result's order."""
    return [[c for c in result.concepts if c.verdict is verdict] for verdict in VERDICTS]


def cut(items: Sequence[Item], shown: int) -> tuple[Sequence[Item], Sequence[Item]]:
    """The first ``shown`` items, and the rest: two or more, or a line for them saves nothing."""
    if len(items) <= shown + 1:
        return items, ()
    return items[:shown], items[shown:]


def detector_codes(concepts: Iterable[ConceptVerdict]) -> list[str]:
    """The detectors that tested a concept, or should have, by code."""
    return sorted(
        {
            code
            for c in concepts
            for codes in (c.flagged_by, c.not_detected_by, c.inconclusive_by, c.skipped_by)
            for code in codes
        }
    )


def sign(concept: ConceptVerdict, code: str) -> str:
    """What the detector ``code`` says of ``concept``, one of ``SIGNS``; "" if it is not asked."""
    said = (
        concept.flagged_by,
        concept.not_detected_by,
        concept.inconclusive_by,
        concept.skipped_by,
    )
    return next((mark for mark, codes in zip(SIGNS, said, strict=True) if code in codes), "")


def short_reason(reason: Reason | Gap | None) -> str:
    """The reason, short enough for a column; "" without one."""
    return "" if reason is None else _SHORT_REASON.get(reason, reason.value)


def verdict_words(result: ScanResult) -> str:
    """The verdict in capitals; a flag shows beside an incomplete scan, which hides none."""
    if result.outcome is Outcome.INCOMPLETE and result.flagged():
        return "INCOMPLETE, AND FLAGGED"
    return result.outcome.value.upper()


def facts(result: ScanResult) -> tuple[list[str], list[str]]:
    """Short counts for the lines below the verdict: of concepts, and of rows."""
    flagged, inconclusive, not_detected = concepts_by_verdict(result)
    verdicts = [
        f"{plural(len(result.concepts), 'concept')}: {len(flagged):,} flagged",
        f"{len(inconclusive):,} inconclusive",
        f"{len(not_detected):,} not detected",
    ]
    if result.skipped:
        verdicts.append(f"{plural(len(result.skipped), 'test')} skipped")
    rows = [
        plural(result.rows_scanned, "row") + " scanned",
        f"{result.rows_rejected:,} rejected",
    ]
    if result.rows_with_unread_text:
        rows.append(f"{result.rows_with_unread_text:,} with unread text")
    if result.broken:
        rows.append(f"{plural(len(result.broken), 'source')} broken off")
    return verdicts, rows


def plural(count: int, noun: str) -> str:
    """``1 row``, ``1,200 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """Two to four significant digits, no sign for positive values; ``–`` if undefined."""
    if not math.isfinite(value):
        return UNDEFINED
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e6:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.4f}" if size < 0.01 else f"{value:.3f}" if size < 10 else f"{value:,.1f}"


def signed(value: float) -> str:
    """``number`` with a ``+`` before positive values: effects and log-ratios."""
    shown = number(value)
    return f"+{shown}" if math.isfinite(value) and value > 0 else shown


def interval(low: float, high: float) -> str:
    """``+0.110 to +0.174``; ``–`` if both ends are undefined."""
    if not math.isfinite(low) and not math.isfinite(high):
        return UNDEFINED
    return f"{signed(low)} to {signed(high)}"


def probability(value: float) -> str:
    """A p or q value that never claims more than double precision, or certainty: ``<1e-16``."""
    if math.isnan(value):
        return UNDEFINED
    if value < _SMALLEST_SHOWN_P:
        return "<1e-16"
    if value < 0.001:
        return f"{value:.1e}".replace("e-0", "e-")
    if 0.99 < value < 1:
        return ">0.99"
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def times(log_ratio_nats: float) -> str:
    """The ratio e**``log_ratio_nats`` as ``2.1×``; ``–`` if undefined."""
    if not math.isfinite(log_ratio_nats) or abs(log_ratio_nats) > 30:
        return UNDEFINED
    ratio = math.exp(log_ratio_nats)
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×"


def condensed(findings: Sequence[Finding]) -> str:
    """One clause for findings of one verdict that get no line of their own.

    The smallest detectable effects, each unit apart; for other verdicts the reasons before them.
    """
    verdict = findings[0].verdict
    head = f"… and {len(findings):,} more {verdict.value}"
    if verdict is Verdict.NOT_DETECTED:
        return f"{head} (smallest detectable effect {detectable(findings)})"
    if verdict is Verdict.FLAGGED:
        return head
    listed = reasons(findings)
    seen = detectable(f for f in findings if math.isfinite(f.smallest_detectable_effect))
    return f"{head}: {listed}" + (f"; smallest detectable effect {seen}" if seen else "")


def condensed_concepts(concepts: Sequence[ConceptVerdict]) -> str:
    """One clause for concepts of one verdict that get no line of their own."""
    verdict = concepts[0].verdict
    head = f"… and {len(concepts):,} more {verdict.value}"
    return f"{head}: {reasons(concepts)}" if verdict is Verdict.INCONCLUSIVE else head


def reasons(undecided: Iterable[Finding | ConceptVerdict]) -> str:
    """``too little power (2), too few rows (1)``: most frequent first."""
    counts = Counter(u.reason.value if u.reason else "no reason given" for u in undecided)
    return ", ".join(f"{reason} ({n:,})" for reason, n in sorted(counts.items(), key=_by_count))


def detectable(findings: Iterable[Finding]) -> str:
    """The range of smallest detectable effects per detector: ``0.020 to 0.030 nats (SA002)``."""
    ranges: dict[tuple[str, str], list[float]] = {}
    for f in findings:
        values = ranges.setdefault((f.code, f.effect_unit), [])
        if math.isfinite(f.smallest_detectable_effect):
            values.append(f.smallest_detectable_effect)
    several = len(ranges) > 1
    parts = []
    for (code, unit), values in sorted(ranges.items()):
        if values:
            low, high = number(min(values)), number(max(values))
            text = low if low == high else f"{low} to {high}"
            text += f" {unit}" if unit else ""
        else:
            text = "not known"
        parts.append(f"{text} ({code})" if several else text)
    return ", ".join(parts)


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def reject_codes(result: ScanResult) -> list[tuple[str, int]]:
    """Reject codes with their exact counts, most frequent first."""
    return sorted(result.reject_counts.items(), key=_by_count)


def skipped_groups(skipped: Iterable[SkippedTest]) -> list[tuple[str, str, list[str]]]:
    """``(code and detector, reason, concepts)`` for the tests that could not run, sorted."""
    groups: dict[tuple[str, str], list[str]] = {}
    for test in skipped:
        concepts = groups.setdefault((f"{test.code} {test.detector}", test.reason), [])
        if test.concept:
            concepts.append(test.concept)
    return [(who, reason, sorted(names)) for (who, reason), names in sorted(groups.items())]


def provenance(result: ScanResult) -> list[tuple[str, str]]:
    """What the verdicts rest on, as (label, text) pairs."""
    library = result.library
    return [
        ("data", _sources(result.sources)),
        ("reference", _sources(result.reference) if result.reference else "no reference file"),
        ("baseline", result.baseline or UNDEFINED),
        (
            "library",
            f"{library.name} {library.content_sha256[:12]}: "
            f"{plural(library.concepts, 'concept')}, {plural(library.decoys, 'decoy')}",
        ),
        ("model", f"{library.model_name} {library.model_sha256[:12]}"),
        ("read with", _model(result.model)),
        ("detectors", ", ".join(f"{d.code} {d.name}" for d in result.detectors) or UNDEFINED),
        ("rates", f"false discovery rate {result.false_discovery_rate:g}"),
        ("tool", f"subliminal-audit {result.tool_version}"),
    ]


def _model(model: ModelIdentity | None) -> str:
    if model is None:
        return "no model"
    return f"{model.name} ({model.family}) {model.weights_sha256[:12]}, {model.dtype}"


def _sources(sources: Sequence[SourceSummary], shown: int = 5) -> str:
    parts = [
        f"{s.source} ({plural(s.rows, 'row')}, {s.format}, {s.schema}, {size(s.size_bytes)}, "
        f"sha256 {s.sha256[:12]})"
        for s in sources[:shown]
    ]
    if len(sources) > shown:
        more = sources[shown:]
        parts.append(f"and {len(more):,} more ({plural(sum(s.rows for s in more), 'row')})")
    return "; ".join(parts) or "no source was read to its end"


def size(size_bytes: int) -> str:
    """Bytes in decimal units: ``1.2 MB``."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
