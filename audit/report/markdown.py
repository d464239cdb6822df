"""Markdown for pull-request comments and step summaries (GitHub flavour), of one scan or several.

Text from data appears only in code spans and fenced blocks that are longer than any run of
backticks in it, or with every special character escaped. The few HTML tags are the report's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from audit.dataset.record import Reject
from audit.named_scan import NamedScan
from audit.report import summary
from audit.report.acceptance import Acceptance, accepted_words
from audit.report.safe_text import mark, shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
from detectors.finding import Finding, Verdict

# GitHub refuses a comment of more than 65,536 characters.
COMMENT_CHARACTERS_LIMIT = 60_000

_ALERT = {
    Outcome.FLAGGED: "CAUTION",
    Outcome.INCOMPLETE: "WARNING",
    Outcome.NOTHING_SCANNABLE: "WARNING",
    Outcome.INCONCLUSIVE: "IMPORTANT",
    Outcome.NOT_DETECTED: "NOTE",
}
_SHOWN_CELL = 60
_SHOWN_SENTENCE = 1000
_SHOWN_TOKENS = 8
_SHOWN_EVIDENCE = 3
_SHOWN_EVIDENCE_CHARACTERS = 300
_SHOWN_INCONCLUSIVE = 5
_SHOWN_NOT_DETECTED = 5
_SHOWN_CONCEPTS = 10
_SHOWN_DETECTORS = 12
_SHOWN_REJECTS = 5
_SHOWN_LINES = 20
_SHOWN_SETS = 100
_DETAILS = (10, 5, 2, 0)
"""Flagged findings shown in full, from the most room to the least."""

_URGENCY = (
    Outcome.INCOMPLETE,
    Outcome.NOTHING_SCANNABLE,
    Outcome.FLAGGED,
    Outcome.INCONCLUSIVE,
    Outcome.NOT_DETECTED,
)


def to_markdown(result: ScanResult) -> str:
    """``result`` as Markdown of at most 60,000 characters: details of findings are cut first."""
    scan = NamedScan("", result)
    for details in _DETAILS:
        text = _joined(_lines(scan, details))
        if len(text) <= COMMENT_CHARACTERS_LIMIT:
            return text
    note = "\n… cut: this report is longer than a comment may be.\n"
    return text[: text.rindex("\n", 0, COMMENT_CHARACTERS_LIMIT - len(note)) + 1] + note


def scans_to_markdown(
    scans: Sequence[NamedScan],
    *,
    limit: int = COMMENT_CHARACTERS_LIMIT,
    size: Callable[[str], int] = len,
) -> str:
    """All of ``scans`` as Markdown whose ``size`` (default: in characters) is at most ``limit``.

    A table of the data sets, those that need a look first, then each in full. If that is too
    long, the last data sets lose details of findings first, then whole data sets go: the report
    says how many. The table itself fits into the limit of a comment.
    """
    ordered = sorted(scans, key=_urgency)
    parts = [_joined(_lines(scan, 0)) for scan in ordered]
    table = _joined(_table(ordered))
    left = limit - size(table) - sum(size(part) + 1 for part in parts)
    if left < 0:
        return _cut(table, parts, limit, size)
    for i, scan in enumerate(ordered):
        for details in _DETAILS[:-1]:
            part = _joined(_lines(scan, details))
            more = size(part) - size(parts[i])
            if more <= left:
                parts[i] = part
                left -= more
                break
    return "\n".join([table, *parts])


def _cut(table: str, parts: Sequence[str], limit: int, size: Callable[[str], int]) -> str:
    """``table`` and the first of ``parts`` that fit, with a line for the others."""
    text = table
    for shown, part in enumerate(parts):
        left = summary.plural(len(parts) - shown, "data set")
        note = f"\n… cut: details of {left} are left out here; the JSON report has them all.\n"
        if size(text) + size(part) + size(note) + 1 > limit:
            return text + note
        text += "\n" + part
    return text


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _urgency(scan: NamedScan) -> tuple[int, bool]:
    """What is wholly accepted comes where nothing was detected, and before it."""
    accepted = scan.result.outcome is Outcome.FLAGGED and Acceptance(scan).is_whole
    outcome = Outcome.NOT_DETECTED if accepted else scan.result.outcome
    return _URGENCY.index(outcome), not accepted


def _table(scans: Sequence[NamedScan]) -> Iterator[str]:
    counts = (
        (outcome, sum(scan.result.outcome is outcome for scan in scans)) for outcome in _URGENCY
    )
    verdicts = ", ".join(f"{n:,} {outcome.value}" for outcome, n in counts if n)
    yield f"# subliminal-audit: {summary.plural(len(scans), 'data set')}"
    yield ""
    yield f"{verdicts or 'No data set was scanned: nothing was decided'}."
    yield ""
    if not scans:
        return
    yield "| data set | verdict | flagged | accepted | inconclusive | not detected | rows |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for scan in scans[:_SHOWN_SETS]:
        flagged, undecided, quiet = summary.concepts_by_verdict(scan.result)
        acceptance = Acceptance(scan)
        accepted = sum(acceptance.is_accepted(concept) for concept in flagged)
        verdict = f"**{summary.verdict_words(scan.result)}**"
        cells = (
            _code(scan.name),
            f"{verdict}, accepted" if acceptance.is_whole else verdict,
            f"{len(flagged) - accepted:,}",
            f"{accepted:,}",
            f"{len(undecided):,}",
            f"{len(quiet):,}",
            f"{scan.result.rows_scanned:,}",
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    if len(scans) > _SHOWN_SETS:
        yield f"… and {summary.plural(len(scans) - _SHOWN_SETS, 'more data set')}"
        yield ""


def _lines(scan: NamedScan, details: int) -> Iterable[str]:
    result = scan.result
    seen = summary.overview(result)
    verdicts, rows = summary.facts(result)
    name = f"{_code(scan.name, cell=False)}" if scan.name else "subliminal-audit"
    yield f"## {name}: {summary.verdict_words(result)}"
    yield ""
    yield f"> [!{_ALERT[result.outcome]}]"
    yield f"> **{_sentence(result.headline)}**"
    yield f"> {summary.MEANING[result.outcome]}"
    yield ">"
    yield f"> {' · '.join(verdicts)}  "
    yield f"> {' · '.join(rows)}"
    yield ""
    if result.concepts:
        yield from _concepts(scan, max(details, 2) * 5)
    if result.findings:
        yield from _findings(scan, seen, max(details, 2) * 5)
    yield from _accepted(scan)
    for f in seen.flagged[:details]:
        yield from _details(f)
    if len(seen.flagged) > details:
        more = summary.plural(len(seen.flagged) - details, "flagged finding")
        yield f"Details of {more} are left out here; the JSON report has them all."
        yield ""
    yield from _not_read(result)
    if result.skipped:
        yield "### Not tested"
        yield ""
        groups = summary.skipped_groups(result.skipped)
        for who, reason, concepts in groups[:_SHOWN_LINES]:
            names = f" ({_sentence(', '.join(concepts))})" if concepts else ""
            yield f"- {_sentence(who)}: {_sentence(reason)}{names}"
        yield from _more(len(groups) - _SHOWN_LINES, "reason")
        yield ""
    if result.limits:
        yield "### What this scan could not have seen"
        yield ""
        yield from (f"- {_sentence(limit)}" for limit in result.limits[:_SHOWN_LINES])
        yield from _more(len(result.limits) - _SHOWN_LINES, "limit")
        yield ""
    yield "<details><summary>Provenance</summary>"
    yield ""
    yield from (f"- {label}: {_sentence(text)}" for label, text in summary.provenance(result))
    yield ""
    yield "</details>"


def _more(count: int, noun: str) -> Iterable[str]:
    if count > 0:
        yield f"- … and {summary.plural(count, f'more {noun}')}"


# Text from data


def _sentence(text: str) -> str:
    """Data as running text: no markup, no link, no mention of a person or an issue."""
    safe = shorten(strip_unsafe(text), _SHOWN_SENTENCE)[0]
    safe = re.sub(r"([\\`*_{}\[\]<>!|~&$=])", r"\\\1", safe)
    safe = safe.replace("@", "＠").replace("#", "＃")  # the full-width forms call nobody
    # An escaped colon or dot keeps GitHub from linking a bare address.
    safe = safe.replace("://", r"\://")
    safe = re.sub(r"(?i)\b(www)\.", r"\1\\.", safe).strip()
    # At the start of a line these would begin a list or draw a rule.
    safe = re.sub(r"^(\d*)([-+.)])", r"\1\\\2", safe)
    return safe or summary.UNDEFINED


def _code(text: str, characters: int = _SHOWN_CELL, *, cell: bool = True) -> str:
    """Data as a code span; in a table cell the pipe is escaped, as GitHub asks for."""
    safe = shorten(strip_unsafe(text), characters)[0]
    if not safe.strip():
        return summary.UNDEFINED
    fence = "`" * (_longest_run("`", safe) + 1)
    if cell:
        # A backslash before a pipe would make the escape depend on the parser.
        safe = safe.replace("\\|", "\\ |").replace("|", "\\|")
    pad = " " if safe[0] in "` " or safe[-1] in "` " else ""
    return f"{fence}{pad}{safe}{pad}{fence}"


def _longest_run(character: str, text: str) -> int:
    return max((len(run) for run in re.findall(f"{re.escape(character)}+", text)), default=0)


# Sections


def _accepted(scan: NamedScan) -> Iterable[str]:
    found = [(f, scan.acceptance(f)) for f in summary.overview(scan.result).flagged]
    known = [(f, accepted) for f, accepted in found if accepted is not None]
    if not known:
        return
    yield "### Accepted"
    yield ""
    yield "These findings are flagged, and let through:"
    yield ""
    for f, accepted in known[:_SHOWN_LINES]:
        who = f"{_code(f.code, cell=False)} {_code(f.concept, cell=False)}"
        yield f"- {who}: {_sentence(accepted_words(accepted))}"
    yield from _more(len(known) - _SHOWN_LINES, "accepted finding")
    yield ""


def _concepts(scan: NamedScan, shown_flagged: int) -> Iterable[str]:
    result = scan.result
    acceptance = Acceptance(scan)
    flagged, undecided, quiet = summary.concepts_by_verdict(result)
    codes = summary.detector_codes(result.concepts)[:_SHOWN_DETECTORS]
    parts = (
        (flagged[:shown_flagged], flagged[shown_flagged:]),
        summary.cut(undecided, _SHOWN_CONCEPTS),
        summary.cut(quiet, _SHOWN_CONCEPTS),
    )
    yield "### Concepts"
    yield ""
    yield f"| verdict | concept | p | q | {' | '.join(_code(code) for code in codes)} |"
    yield f"|---|---|--:|--:|{'|'.join(':-:' for _ in codes)}|"
    for concept in (concept for shown, _ in parts for concept in shown):
        verdict = concept.verdict.value
        if concept.verdict is Verdict.FLAGGED:
            verdict = f"**FLAGGED** {concept.severity.value}"
            if acceptance.is_accepted(concept):
                verdict += ", accepted"
        elif concept.reason:
            verdict += f": {concept.reason.value}"
        cells = (
            verdict,
            f"{_code(concept.concept)} {_code(concept.category)}",
            summary.probability(concept.p_value),
            summary.probability(concept.q_value),
            *(summary.sign(concept, code) for code in codes),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    for _, rest in parts:
        if rest:
            yield _sentence(summary.condensed_concepts(rest))
            yield ""
    yield "; ".join(f"{sign} {meaning}" for sign, meaning in summary.SIGNS.items())
    yield ""
    contradicted = [concept for concept in result.concepts if concept.disagreement]
    if contradicted:
        yield "Detectors disagree:"
        yield ""
        for concept in contradicted[:_SHOWN_LINES]:
            yield f"- {_code(concept.concept, cell=False)}: {_sentence(concept.disagreement)}"
        yield from _more(len(contradicted) - _SHOWN_LINES, "concept")
        yield ""


def _findings(scan: NamedScan, seen: summary.Overview, shown_flagged: int) -> Iterable[str]:
    shown = [
        *seen.flagged[:shown_flagged],
        *seen.inconclusive[:_SHOWN_INCONCLUSIVE],
        *seen.not_detected[:_SHOWN_NOT_DETECTED],
    ]
    yield "### Findings"
    yield ""
    yield "| verdict | concept | test | effect (95% interval) | statistic | p | q | detectable |"
    yield "|---|---|---|---|--:|--:|--:|--:|"
    for f in shown:
        verdict = f.verdict.value
        if f.verdict is Verdict.FLAGGED:
            verdict = f"**FLAGGED** {f.severity.value}"
            if scan.acceptance(f) is not None:
                verdict += ", accepted"
        elif f.reason:
            verdict += f": {f.reason.value}"
        effect = summary.signed(f.effect)
        if math.isfinite(f.effect):
            effect += f" ({summary.interval(f.effect_low, f.effect_high)})"
            effect += f" {_code(f.effect_unit)}" if f.effect_unit else ""
        statistic = f.calibrated_statistic
        cells = (
            verdict,
            f"{_code(f.concept)} {_code(f.category)}",
            _code(f.code),
            effect,
            f"{statistic:.1f}" if math.isfinite(statistic) else summary.UNDEFINED,
            summary.probability(f.p_value),
            summary.probability(f.q_value),
            summary.number(f.smallest_detectable_effect),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    for rest in (
        seen.flagged[shown_flagged:],
        seen.inconclusive[_SHOWN_INCONCLUSIVE:],
        seen.not_detected[_SHOWN_NOT_DETECTED:],
    ):
        if rest:
            yield f"{_sentence(summary.condensed(rest))}"
            yield ""


def _details(f: Finding) -> Iterable[str]:
    yield f"### {_code(f.concept, cell=False)} {_code(f.code, cell=False)}"
    yield ""
    yield _sentence(f.message)
    yield ""
    yield f"{_sentence(f'Null hypothesis: {f.null_hypothesis}')}  "
    yield f"{summary.plural(f.rows_tested, 'row')}, {summary.plural(f.units_tested, 'unit')} tested"
    yield ""
    if f.notes:
        yield from (f"- {_sentence(note)}" for note in f.notes)
        yield ""
    if f.tokens:
        yield "| token | seen | expected | times | log-ratio in nats (95% interval) |"
        yield "|---|--:|--:|--:|---|"
        for t in f.tokens[:_SHOWN_TOKENS]:
            expected = f"{t.expected_count:,.1f}" if math.isfinite(t.expected_count) else "–"
            ratio = (
                f"{summary.signed(t.log_ratio_nats)} "
                f"({summary.interval(t.log_ratio_low_nats, t.log_ratio_high_nats)})"
            )
            yield (
                f"| {_code(t.unit)} | {t.observed_count:,} | {expected} "
                f"| {summary.times(t.log_ratio_nats)} | {ratio} |"
            )
        yield ""
    if f.evidence:
        yield from _evidence(f)


def _evidence(f: Finding) -> Iterable[str]:
    shown = f.evidence[:_SHOWN_EVIDENCE]
    blocks = []
    for row in shown:
        text, spans = shorten(strip_unsafe(row.text), _SHOWN_EVIDENCE_CHARACTERS, row.spans)
        where = shorten(strip_unsafe(row.source), 200)[0]
        blocks += [f"{where}:{row.line}", f"    {mark(text, spans)}"]
    fence = "`" * max(3, _longest_run("`", "\n".join(blocks)) + 1)
    yield f"<details><summary>Rows that speak for it ({len(f.evidence):,})</summary>"
    yield ""
    yield f"{fence}text"
    yield from blocks
    yield fence
    yield ""
    yield "</details>"
    yield ""


def _not_read(result: ScanResult) -> Iterable[str]:
    yield "### Not read"
    yield ""
    codes = summary.reject_codes(result)
    if not codes and not result.broken:
        yield "No row was rejected and every source was read to its end."
    for broken in result.broken[:_SHOWN_LINES]:
        where = _place(broken.source, broken.line)
        yield f"- **broken off** at {where}: {_sentence(broken.message)}"
    yield from _more(len(result.broken) - _SHOWN_LINES, "broken source")
    for code, count in codes[:_SHOWN_LINES]:
        places = _places([r for r in result.rejects if r.code == code])
        yield f"- {summary.plural(count, 'row')} rejected: {_code(code, cell=False)}{places}"
    yield from _more(len(codes) - _SHOWN_LINES, "code")
    yield ""


def _place(source: str, line: int) -> str:
    return _code(f"{shorten(strip_unsafe(source), 120)[0]}:{line}", 150, cell=False)


def _places(rejects: Sequence[Reject]) -> str:
    if not rejects:
        return ""
    places = (_place(r.source, r.line) for r in rejects[:_SHOWN_REJECTS])
    return f" ({_sentence(rejects[0].message)}: {', '.join(places)})"
