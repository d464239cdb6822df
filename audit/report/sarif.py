"""SARIF 2.1.0 for GitHub code scanning and other viewers.

Only flagged findings become results. GitHub shows every result as an alert, whatever its
``kind``, so a "not detected" with kind ``pass`` would raise one. An undecided or broken-off scan
must not look like a pass either (no results closes old alerts): it becomes one result of the
rule SA000. The concepts behind it are tool notifications. Several data sets share one run: GitHub
refuses a file with two runs of one tool and category (since July 2025) or with more than 20 runs.

``runAutomationDetails`` is left out on purpose: with it, GitHub refuses a second upload of the
same commit, and ignores the ``category`` that a workflow gives.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from audit.dataset.record import SourceSummary
from audit.finding_fingerprint import finding_fingerprint
from audit.named_scan import Accepted, NamedScan
from audit.report import summary
from audit.report.acceptance import accepted_words
from audit.report.safe_text import shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
from audit.version import tool_version
from detectors.compose import ConceptVerdict
from detectors.detector import DetectorInfo
from detectors.finding import EvidenceRow, Finding, Severity, Verdict

SCHEMA_URI = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
RESULTS_LIMIT = 5_000
GZIPPED_BYTES_LIMIT = 10_000_000
# GitHub shows the first locations only; more would fill the file.
_LOCATIONS_LIMIT = 50
_SNIPPET_CHARACTERS = 300
_INCONCLUSIVE_LIMIT = 1000
_UNDECIDED_RULE = "SA000"
_NOTIFICATIONS = {
    "broken-source": "A source could not be read to its end.",
    "rejected-row": "A row could not be read.",
    "inconclusive": "A test ran and could not decide.",
    "skipped-test": "A test could not run.",
    "left-out": "Results were left out to stay within the limits of code scanning.",
}
_NOT_READ = (Outcome.INCOMPLETE, Outcome.NOTHING_SCANNABLE)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Room:
    """How much may be written: ``details`` are undecided and rejected things one by one."""

    results: int
    snippets: bool
    details: bool


@dataclass(frozen=True, slots=True)
class _Flag:
    scan: NamedScan
    finding: Finding
    concept: ConceptVerdict
    accepted: Accepted | None


def to_sarif(result: ScanResult, *, root: Path | None = None) -> bytes:
    """``result`` as SARIF 2.1.0, at most 5,000 results and 10 MB gzipped.

    Paths below ``root`` (default: the working folder) become relative to it, as GitHub needs
    them. If the file would be too large, snippets go first, then the least severe results, then
    what is listed beside them; a notification then says so.
    """
    return scans_to_sarif((NamedScan("", result),), root)


def scans_to_sarif(scans: Sequence[NamedScan], root: Path | None = None) -> bytes:
    """All of ``scans`` in one run, within the limits and with the paths of `to_sarif`.

    Accepted findings become results with a suppression, after all others and of level ``note``:
    GitHub does not know suppressions, and would raise their alerts like any other.
    """
    base = Path.cwd() if root is None else root
    for room in (
        _Room(RESULTS_LIMIT, snippets=True, details=True),
        _Room(RESULTS_LIMIT, snippets=False, details=True),
        _Room(500, snippets=False, details=True),
        _Room(500, snippets=False, details=False),
    ):
        data = _encode(_log(scans, base, room))
        if len(data) <= GZIPPED_BYTES_LIMIT or _gzipped_bytes(data) <= GZIPPED_BYTES_LIMIT:
            break
    return data


def _gzipped_bytes(data: bytes) -> int:
    return len(gzip.compress(data, mtime=0))


def _encode(document: Json) -> bytes:
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _log(scans: Sequence[NamedScan], base: Path, room: _Room) -> Json:
    rules = _rules(scans)
    position = {rule["id"]: i for i, rule in enumerate(rules)}
    undecided = [scan for scan in scans if _is_undecided(scan)]
    results = [_undecided_result(s, position[_UNDECIDED_RULE], base) for s in undecided]
    flagged = _flagged(scans)
    shown = flagged[: max(0, room.results - len(results))]
    found = [
        _result(flag, position[_plain(flag.finding.code)], base, room.snippets) for flag in shown
    ]
    _number_repeats(found)
    notes = [note for scan in scans for note in _notifications(scan, base, room)]
    if left_out := len(flagged) - len(shown):
        text = f"{summary.plural(left_out, 'flagged finding')} left out"
        notes.append(_note("left-out", "warning", text))
    if not room.details:
        notes.append(_note("left-out", "warning", "Details of data sets left out"))
    return {
        "$schema": SCHEMA_URI,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "subliminal-audit",
                        "version": _plain(
                            scans[0].result.tool_version if scans else tool_version()
                        ),
                        "rules": rules,
                        "notifications": [
                            {"id": name, "shortDescription": {"text": text}}
                            for name, text in _NOTIFICATIONS.items()
                        ],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": not any(
                            scan.result.outcome in _NOT_READ for scan in scans
                        ),
                        "toolExecutionNotifications": notes,
                    }
                ],
                "artifacts": [
                    {
                        "location": _artifact(source.source, base),
                        "length": source.size_bytes,
                        "hashes": {"sha-256": _plain(source.sha256)},
                        "roles": ["analysisTarget"],
                    }
                    for source in _distinct_sources(scans)
                ],
                "results": results[: room.results] + found,
                "properties": _properties(scans, room),
            }
        ],
    }


def _distinct_sources(scans: Sequence[NamedScan]) -> list[SourceSummary]:
    """Every file once: SARIF wants artifacts to be unique, and two data sets may share one."""
    sources = (s for scan in scans for s in scan.result.sources)
    return list({(s.source, s.size_bytes, s.sha256): s for s in sources}.values())


def _flagged(scans: Sequence[NamedScan]) -> list[_Flag]:
    """What becomes a result: what counts first, then what is accepted; the most severe first."""
    flags: list[_Flag] = []
    for scan in scans:
        concepts = {(c.family, c.concept): c for c in scan.result.concepts}
        flags += [
            _Flag(scan, f, concepts[f.family, f.concept], scan.acceptance(f))
            for f in summary.overview(scan.result).flagged
        ]
    return sorted(flags, key=lambda f: (f.accepted is not None, -f.finding.severity.rank))


def _properties(scans: Sequence[NamedScan], room: _Room) -> Json:
    """Those of the one scan without a name as they are, those of named ones each in an entry."""
    if len(scans) == 1 and not scans[0].name:
        return _run_properties(scans[0], room)
    return {
        "dataSets": [{"name": _plain(s.name), **_run_properties(s, room)} for s in scans],
    }


def _run_properties(scan: NamedScan, room: _Room) -> Json:
    result = scan.result
    seen = summary.overview(result)
    verdict = {
        "outcome": result.outcome.value,
        "headline": _plain(shorten(result.headline, 1000)[0]),
        "meaning": summary.MEANING[result.outcome],
        "rowsRejected": result.rows_rejected,
        "rowsScanned": result.rows_scanned,
        "rowsUnread": result.rows_unread,
        "rowsWithUnreadText": result.rows_with_unread_text,
    }
    if not room.details:
        return verdict
    return {
        **verdict,
        "limits": [_plain(limit) for limit in result.limits],
        "concepts": [_concept(concept) for concept in result.concepts],
        "notDetected": [
            {
                "ruleId": _plain(f.code),
                "concept": _plain(f.concept),
                "smallestDetectableEffect": _defined(f.smallest_detectable_effect),
                "effectUnit": _plain(f.effect_unit),
                "q": _defined(f.q_value),
            }
            for f in seen.not_detected
        ],
        "provenance": {label: _plain(text) for label, text in summary.provenance(result)},
        "rejectCounts": {_plain(code): count for code, count in summary.reject_codes(result)},
    }


def _concept(concept: ConceptVerdict) -> Json:
    return {
        "concept": _plain(concept.concept),
        "category": _plain(concept.category),
        "verdict": concept.verdict.value,
        "reason": concept.reason.value if concept.reason else "",
        "p": _defined(concept.p_value),
        "q": _defined(concept.q_value),
        **_said(concept),
    }


def _said(concept: ConceptVerdict) -> Json:
    """Which detectors say what of the concept."""
    return {
        "flaggedBy": [_plain(code) for code in concept.flagged_by],
        "notDetectedBy": [_plain(code) for code in concept.not_detected_by],
        "inconclusiveBy": [_plain(code) for code in concept.inconclusive_by],
        "skippedBy": [_plain(code) for code in concept.skipped_by],
        "disagreement": _plain(concept.disagreement),
    }


# Text


def _plain(text: str) -> str:
    return strip_unsafe(text)


def _message(text: str) -> Json:
    """A SARIF message. ``](`` would make a link and ``{0}`` a placeholder of data's text."""
    safe = strip_unsafe(text).replace("](", "] (")
    return {"text": safe.replace("{", "{{").replace("}", "}}")}


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


# Rules


def _rules(scans: Sequence[NamedScan]) -> list[Json]:
    """One rule per detector that ran, by code; SA000 first where something stayed undecided."""
    detectors = {d.code: d for scan in scans for d in scan.result.detectors}
    for f in (f for scan in scans for f in scan.result.findings):
        if f.code not in detectors:
            detectors[f.code] = DetectorInfo(
                f.code, f.detector, f.detector, f.null_hypothesis, "", "", ""
            )
    rules = {_plain(code): _rule(detector) for code, detector in detectors.items()}
    if any(_is_undecided(scan) for scan in scans):
        rules[_UNDECIDED_RULE] = _undecided_rule()
    return [rules[code] for code in sorted(rules)]


def _rule(detector: DetectorInfo) -> Json:
    facts = [
        ("Null hypothesis", detector.null_hypothesis),
        ("Score", ", ".join(part for part in (detector.score_range, detector.direction) if part)),
        ("Source", detector.source),
        (
            "What to do",
            "Look at the marked rows, compare with data of the same prompts that you trust, and "
            "do not train on the set until the finding is explained. A test that finds nothing "
            "does not prove that nothing is hidden.",
        ),
    ]
    known = [(label, strip_unsafe(text)) for label, text in facts if text]
    return {
        "id": _plain(detector.code),
        "name": _plain(detector.name),
        "shortDescription": {"text": _plain(shorten(detector.summary, 1000)[0])},
        "fullDescription": {
            "text": _plain(
                shorten(f"{detector.summary} Null hypothesis: {detector.null_hypothesis}", 1000)[0]
            )
        },
        "help": {
            "text": "\n".join([_plain(detector.summary), *(f"{a}: {b}" for a, b in known)]),
            "markdown": "\n\n".join(
                [_escaped(detector.summary), *(f"**{a}**: {_escaped(b)}" for a, b in known)]
            ),
        },
        "defaultConfiguration": {"level": "warning"},
        "properties": {
            "tags": ["training-data", "subliminal-learning"],
            "nullHypothesis": _plain(detector.null_hypothesis),
            "scoreRange": _plain(detector.score_range),
            "direction": _plain(detector.direction),
            "source": _plain(detector.source),
        },
    }


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|~&!])", r"\\\1", strip_unsafe(text))


def _undecided_rule() -> Json:
    text = (
        "The audit did not reach a verdict: input was not read to its end, no row could be "
        "tested, or a test could not decide. Missing alerts do not mean that nothing is hidden."
    )
    return {
        "id": _UNDECIDED_RULE,
        "name": "undecided",
        "shortDescription": {"text": "The audit did not reach a verdict on every concept."},
        "fullDescription": {"text": text},
        "help": {
            "text": f"{text}\nThe notifications of the run name each cause.",
            "markdown": f"{text}\n\nThe notifications of the run name each cause.",
        },
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["training-data", "subliminal-learning"]},
    }


# Results


def _is_undecided(scan: NamedScan) -> bool:
    result = scan.result
    return (
        bool(scan.over_budget)
        or result.outcome in (*_NOT_READ, Outcome.INCONCLUSIVE)
        or bool(result.broken)
        or any(concept.verdict is Verdict.INCONCLUSIVE for concept in result.concepts)
    )


def _undecided_result(scan: NamedScan, rule_index: int, base: Path) -> Json:
    result = scan.result
    undecided = sum(concept.verdict is Verdict.INCONCLUSIVE for concept in result.concepts)
    causes = []
    if result.broken:
        causes.append(f"{summary.plural(len(result.broken), 'source')} broken off")
    if undecided:
        causes.append(f"{summary.plural(undecided, 'concept')} inconclusive")
    if scan.over_budget:
        causes.append(scan.over_budget)
    elif result.rows_rejected:
        causes.append(f"{summary.plural(result.rows_rejected, 'row')} rejected")
    if result.rows_with_unread_text:
        columns = ", ".join(result.unread_columns)
        rows = summary.plural(result.rows_with_unread_text, "row")
        causes.append(f"{rows} with unread text ({columns})")
    if result.skipped:
        causes.append(f"{summary.plural(len(result.skipped), 'test')} skipped")
    words = summary.verdict_words(result).lower()
    text = f"Audit {words}: {shorten(result.headline, 1000)[0]} "
    text += f"({', '.join(causes) or 'no row'}). "
    text += "This is not a pass."
    source, line = _first_place(result)
    severe = result.outcome in _NOT_READ or bool(result.broken)
    return {
        "ruleId": _UNDECIDED_RULE,
        "ruleIndex": rule_index,
        "kind": "fail",
        "level": (Severity.WARNING if severe else Severity.NOTE).value,
        "message": _message(_of_set(scan, text)),
        "locations": [_location(source, line, base)],
        "partialFingerprints": _fingerprint(_UNDECIDED_RULE, "", scan, ()),
    }


def _first_place(result: ScanResult) -> tuple[str, int]:
    """Where to show a finding that has no row of its own: GitHub refuses a result without."""
    for broken in result.broken:
        return broken.source, broken.line
    for source in result.sources:
        return source.source, 1
    for reject in result.rejects:
        return reject.source, reject.line
    return "no-source", 1


def _of_set(scan: NamedScan, text: str) -> str:
    return f"{scan.name}: {text}" if scan.name else text


def _result(flag: _Flag, rule_index: int, base: Path, snippets: bool) -> Json:
    scan, f, concept, accepted = flag.scan, flag.finding, flag.concept, flag.accepted
    numbers = [f"q {summary.probability(f.q_value)}"]
    if math.isfinite(f.effect):
        interval = summary.interval(f.effect_low, f.effect_high)
        numbers.insert(
            0, f"effect {summary.signed(f.effect)} {f.effect_unit} (95% interval {interval})"
        )
    text = f"{f.concept} ({f.category}): {f.message} [{', '.join(numbers)}]"
    if concept.disagreement:
        text += f" {concept.disagreement}"
    if accepted is not None:
        text += f" This finding is {accepted_words(accepted)}."
    locations = [
        _location(row.source, row.line, base, row if snippets else None)
        for row in f.evidence[:_LOCATIONS_LIMIT]
    ]
    result: Json = {
        "ruleId": _plain(f.code),
        "ruleIndex": rule_index,
        "kind": "fail",
        "level": (f.severity if accepted is None else Severity.NOTE).value,
        "message": _message(_of_set(scan, text)),
        "locations": locations or [_location(*_first_place(scan.result), base)],
        "partialFingerprints": _fingerprint(f.code, f.concept, scan, f.evidence),
        "properties": {
            "concept": _plain(f.concept),
            "category": _plain(f.category),
            "calibratedStatistic": _defined(f.calibrated_statistic),
            "effect": _defined(f.effect),
            "effectHigh": _defined(f.effect_high),
            "effectLow": _defined(f.effect_low),
            "effectUnit": _plain(f.effect_unit),
            "nullHypothesis": _plain(f.null_hypothesis),
            "p": _defined(f.p_value),
            "q": _defined(f.q_value),
            "rowsTested": f.rows_tested,
            "smallestDetectableEffect": _defined(f.smallest_detectable_effect),
            "conceptQ": _defined(concept.q_value),
            "severity": f.severity.value,
            **_said(concept),
        },
    }
    if scan.name:
        result["properties"]["dataSet"] = _plain(scan.name)
    if accepted is not None:
        result["suppressions"] = [
            {
                "kind": "external",
                "status": "accepted",
                "justification": _plain(accepted_words(accepted)),
            }
        ]
    return result


def _fingerprint(rule: str, concept: str, scan: NamedScan, evidence: Sequence[EvidenceRow]) -> Json:
    """The same finding keeps its alert when rows move: content counts, line numbers do not.

    A name tells findings of the same rows in two data sets apart.
    """
    digest = finding_fingerprint(rule, concept, scan.result, evidence)
    if scan.name:
        digest = hashlib.sha256(json.dumps([scan.name, digest]).encode("ascii")).hexdigest()
    return {"primaryLocationLineHash": f"{digest}:1"}


def _number_repeats(results: Sequence[Json]) -> None:
    """Two findings of one rule, concept and content (two signature views) stay two alerts."""
    seen: Counter[str] = Counter()
    for result in results:
        prints = result["partialFingerprints"]
        digest = prints["primaryLocationLineHash"].partition(":")[0]
        seen[digest] += 1
        prints["primaryLocationLineHash"] = f"{digest}:{seen[digest]}"


def _location(source: str, line: int, base: Path, row: EvidenceRow | None = None) -> Json:
    region: Json = {"startLine": max(1, line)}
    if row is not None:
        text, _ = shorten(strip_unsafe(row.text), _SNIPPET_CHARACTERS, row.spans)
        region["snippet"] = {"text": text}
    return {"physicalLocation": {"artifactLocation": _artifact(source, base), "region": region}}


def _artifact(source: str, base: Path) -> Json:
    """A percent-encoded location: relative to the checkout wherever it can be.

    Examples: ``data/a b.jsonl`` -> ``data/a%20b.jsonl``; ``s3://bucket/x`` stays a URL.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source):
        scheme, rest = source.split("://", 1)
        return {"uri": f"{scheme.lower()}://{_quoted(rest, safe='/:@?&=%')}"}
    path = PurePath(source)
    if path.is_absolute():
        try:
            path = path.relative_to(base)
        except ValueError:
            return {"uri": f"file://{_quoted(path.as_posix())}"}
    return {"uri": _quoted(path.as_posix()), "uriBaseId": "%SRCROOT%"}


def _quoted(text: str, safe: str = "/") -> str:
    # surrogateescape gives back the bytes of a file name that is no valid UTF-8.
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
    return quote(data, safe=safe)


# Notifications


def _note(name: str, level: str, text: str, location: Json | None = None) -> Json:
    note: Json = {
        "descriptor": {"id": name, "index": list(_NOTIFICATIONS).index(name)},
        "level": level,
        "message": _message(text),
    }
    if location is not None:
        note["locations"] = [location]
    return note


def _notifications(scan: NamedScan, base: Path, room: _Room) -> list[Json]:
    result = scan.result
    notes: list[Json] = []

    def add(name: str, level: str, text: str, location: Json | None = None) -> None:
        notes.append(_note(name, level, _of_set(scan, text), location))

    for broken in sorted(result.broken, key=lambda b: (b.source, b.line)):
        place = _location(broken.source, broken.line, base)
        add("broken-source", "error", f"broken off: {broken.message}", place)
    for code, count in summary.reject_codes(result):
        add("rejected-row", "warning", f"{summary.plural(count, 'row')} rejected: {code}")
    if not room.details:
        return notes
    for reject in sorted(result.rejects, key=lambda r: (r.source, r.line, r.code)):
        place = _location(reject.source, reject.line, base)
        add("rejected-row", "warning", f"{reject.code}: {reject.message}", place)
    for f in summary.overview(result).inconclusive[:_INCONCLUSIVE_LIMIT]:
        reason = f.reason.value if f.reason else "no reason given"
        add("inconclusive", "warning", f"{f.code} {f.concept}: {reason}. {f.message}")
    for who, reason, concepts in summary.skipped_groups(result.skipped):
        names = f" ({', '.join(concepts)})" if concepts else ""
        add("skipped-test", "note", f"{who}: {reason}{names}")
    return notes
