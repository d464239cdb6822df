"""SARIF 2.1.0 for GitHub code scanning and other viewers.

Only flagged findings become results. GitHub shows every result as an alert, whatever its
``kind``, so a "not detected" with kind ``pass`` would raise one. An undecided or broken-off scan
must not look like a pass either (no results closes old alerts): it becomes one result of the
rule SA000. The concepts behind it are tool notifications.

``runAutomationDetails`` is left out on purpose: with it, GitHub refuses a second upload of the
same commit, and ignores the ``category`` that a workflow gives.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from audit.finding_fingerprint import finding_fingerprint
from audit.report import summary
from audit.report.safe_text import shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
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


def to_sarif(result: ScanResult, *, root: Path | None = None) -> bytes:
    """``result`` as SARIF 2.1.0, at most 5,000 results and 10 MB gzipped.

    Paths below ``root`` (default: the working folder) become relative to it, as GitHub needs
    them. If the file would be too large, snippets go first, then the least severe results; a
    notification then says how many.
    """
    base = Path.cwd() if root is None else root
    for snippets, results_limit in ((True, RESULTS_LIMIT), (False, RESULTS_LIMIT), (False, 500)):
        data = _encode(_log(result, base, snippets, results_limit))
        if len(data) <= GZIPPED_BYTES_LIMIT or _gzipped_bytes(data) <= GZIPPED_BYTES_LIMIT:
            break
    return data


def _gzipped_bytes(data: bytes) -> int:
    return len(gzip.compress(data, mtime=0))


def _encode(document: Json) -> bytes:
    text = json.dumps(document, sort_keys=True, indent=1, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _log(result: ScanResult, base: Path, snippets: bool, results_limit: int) -> Json:
    flagged = sorted(summary.overview(result).flagged, key=lambda f: -f.severity.rank)
    rules = _rules(result)
    position = {rule["id"]: i for i, rule in enumerate(rules)}
    concepts = {(c.family, c.concept): c for c in result.concepts}
    results = [
        _result(f, concepts[f.family, f.concept], result, position[f.code], base, snippets)
        for f in flagged[: results_limit - 1]
    ]
    _number_repeats(results)
    if _UNDECIDED_RULE in position:
        results.insert(0, _undecided_result(result, position[_UNDECIDED_RULE], base))
    return {
        "$schema": SCHEMA_URI,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "subliminal-audit",
                        "version": _plain(result.tool_version),
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
                        "executionSuccessful": result.outcome not in _NOT_READ,
                        "toolExecutionNotifications": _notifications(
                            result, base, len(flagged) - (results_limit - 1)
                        ),
                    }
                ],
                "artifacts": [
                    {
                        "location": _artifact(source.source, base),
                        "length": source.size_bytes,
                        "hashes": {"sha-256": _plain(source.sha256)},
                        "roles": ["analysisTarget"],
                    }
                    for source in result.sources
                ],
                "results": results,
                "properties": _run_properties(result),
            }
        ],
    }


def _run_properties(result: ScanResult) -> Json:
    seen = summary.overview(result)
    return {
        "outcome": result.outcome.value,
        "headline": _plain(result.headline),
        "meaning": summary.MEANING[result.outcome],
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
        "rowsRejected": result.rows_rejected,
        "rowsScanned": result.rows_scanned,
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


def _rules(result: ScanResult) -> list[Json]:
    """One rule per detector that ran, by code; SA000 first where something stayed undecided."""
    rules = {d.code: _rule(d) for d in result.detectors}
    for f in result.findings:
        if f.code not in rules:
            rules[f.code] = _rule(
                DetectorInfo(f.code, f.detector, f.detector, f.null_hypothesis, "", "", "")
            )
    if _is_undecided(result):
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


def _is_undecided(result: ScanResult) -> bool:
    return (
        result.outcome in (*_NOT_READ, Outcome.INCONCLUSIVE)
        or bool(result.broken)
        or any(concept.verdict is Verdict.INCONCLUSIVE for concept in result.concepts)
    )


def _undecided_result(result: ScanResult, rule_index: int, base: Path) -> Json:
    undecided = sum(concept.verdict is Verdict.INCONCLUSIVE for concept in result.concepts)
    causes = []
    if result.broken:
        causes.append(f"{summary.plural(len(result.broken), 'source')} broken off")
    if undecided:
        causes.append(f"{summary.plural(undecided, 'concept')} inconclusive")
    if result.rows_rejected:
        causes.append(f"{summary.plural(result.rows_rejected, 'row')} rejected")
    if result.skipped:
        causes.append(f"{summary.plural(len(result.skipped), 'test')} skipped")
    words = summary.verdict_words(result).lower()
    text = f"Audit {words}: {result.headline} ({', '.join(causes) or 'no row'}). "
    text += "This is not a pass."
    source, line = _first_place(result)
    severe = result.outcome in _NOT_READ or bool(result.broken)
    return {
        "ruleId": _UNDECIDED_RULE,
        "ruleIndex": rule_index,
        "kind": "fail",
        "level": (Severity.WARNING if severe else Severity.NOTE).value,
        "message": _message(text),
        "locations": [_location(source, line, base)],
        "partialFingerprints": _fingerprint(_UNDECIDED_RULE, "", result, ()),
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


def _result(
    f: Finding,
    concept: ConceptVerdict,
    result: ScanResult,
    rule_index: int,
    base: Path,
    snippets: bool,
) -> Json:
    numbers = [f"q {summary.probability(f.q_value)}"]
    if math.isfinite(f.effect):
        interval = summary.interval(f.effect_low, f.effect_high)
        numbers.insert(
            0, f"effect {summary.signed(f.effect)} {f.effect_unit} (95% interval {interval})"
        )
    text = f"{f.concept} ({f.category}): {f.message} [{', '.join(numbers)}]"
    if concept.disagreement:
        text += f" {concept.disagreement}"
    locations = [
        _location(row.source, row.line, base, row if snippets else None)
        for row in f.evidence[:_LOCATIONS_LIMIT]
    ]
    return {
        "ruleId": _plain(f.code),
        "ruleIndex": rule_index,
        "kind": "fail",
        "level": f.severity.value,
        "message": _message(text),
        "locations": locations or [_location(*_first_place(result), base)],
        "partialFingerprints": _fingerprint(f.code, f.concept, result, f.evidence),
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
            **_said(concept),
        },
    }


def _fingerprint(
    rule: str, concept: str, result: ScanResult, evidence: Sequence[EvidenceRow]
) -> Json:
    """The same finding keeps its alert when rows move: content counts, line numbers do not."""
    digest = finding_fingerprint(rule, concept, result, evidence)
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


def _notifications(result: ScanResult, base: Path, left_out: int) -> list[Json]:
    notes: list[Json] = []

    def add(name: str, level: str, text: str, location: Json | None = None) -> None:
        note: Json = {
            "descriptor": {"id": name, "index": list(_NOTIFICATIONS).index(name)},
            "level": level,
            "message": _message(text),
        }
        if location is not None:
            note["locations"] = [location]
        notes.append(note)

    for broken in sorted(result.broken, key=lambda b: (b.source, b.line)):
        place = _location(broken.source, broken.line, base)
        add("broken-source", "error", f"broken off: {broken.message}", place)
    for code, count in summary.reject_codes(result):
        add("rejected-row", "warning", f"{summary.plural(count, 'row')} rejected: {code}")
    for reject in sorted(result.rejects, key=lambda r: (r.source, r.line, r.code)):
        place = _location(reject.source, reject.line, base)
        add("rejected-row", "warning", f"{reject.code}: {reject.message}", place)
    for f in _first(summary.overview(result).inconclusive):
        reason = f.reason.value if f.reason else "no reason given"
        add("inconclusive", "warning", f"{f.code} {f.concept}: {reason}. {f.message}")
    for who, reason, concepts in summary.skipped_groups(result.skipped):
        names = f" ({', '.join(concepts)})" if concepts else ""
        add("skipped-test", "note", f"{who}: {reason}{names}")
    if left_out > 0:
        add("left-out", "warning", f"{summary.plural(left_out, 'flagged finding')} left out")
    return notes


def _first(findings: Iterable[Finding], limit: int = 1000) -> list[Finding]:
    return list(findings)[:limit]
