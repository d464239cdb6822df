"""GitHub Actions: annotations as workflow commands, and the summary of a step.

A command is one line: ``::error file=data/train.jsonl,line=7,title=owl::message``. GitHub keeps 10
errors, 10 warnings and 10 notices of a step, and a summary of at most 1,024 KiB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePath

from audit.named_scan import NamedScan
from audit.report import summary
from audit.report.acceptance import accepted_words
from audit.report.markdown import scans_to_markdown
from audit.report.safe_text import shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
from detectors.finding import Finding, Severity

ANNOTATIONS_LIMIT = 10
"""Of each kind, for one step."""

SUMMARY_BYTES_LIMIT = 1_000_000
"""GitHub drops a summary of more than 1,048,576 bytes; what the step itself says has room too."""

_SHOWN_CHARACTERS = 1000
_SHOWN_TITLE = 120
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_SEVERITY_OF_SCAN = {
    Outcome.NOTHING_SCANNABLE: Severity.ERROR,
    Outcome.INCOMPLETE: Severity.ERROR,
    Outcome.INCONCLUSIVE: Severity.WARNING,
    Outcome.FLAGGED: Severity.NOTE,  # its findings have annotations of their own
    Outcome.NOT_DETECTED: Severity.NOTE,
}


@dataclass(frozen=True, slots=True)
class _Annotation:
    severity: Severity
    title: str
    message: str
    source: str = ""
    line: int = 0


def to_annotations(result: ScanResult) -> str:
    """``result`` as workflow commands, one a line."""
    return scans_to_annotations((NamedScan("", result),))


def scans_to_annotations(scans: Sequence[NamedScan], *, after: Severity | None = None) -> str:
    """``scans`` as workflow commands, the most severe first, at most 10 of each kind, with the one
    of severity ``after`` that the caller has printed before.

    One for the verdict on each data set (an error if it was not read, a warning if it is
    inconclusive), one for each flagged finding with its severity, one notice for each accepted
    one. Where more are left out than GitHub keeps, a last notice says how many.
    """
    found = [a for scan in scans for a in _verdict(scan)]
    found += [a for scan in scans for a in _held(scan)]
    found += [a for scan in scans for a in _accepted(scan)]
    if not scans:
        found.append(
            _Annotation(Severity.WARNING, "", "No data set was scanned: nothing was decided.")
        )
    found.sort(key=lambda a: -a.severity.rank)
    kinds = {severity: list(same) for severity, same in groupby(found, key=lambda a: a.severity)}
    limits = {severity: ANNOTATIONS_LIMIT - (severity is after) for severity in Severity}
    shown = [a for severity, same in kinds.items() for a in same[: limits[severity]]]
    if len(shown) < len(found):
        # The last line is a notice itself.
        notices = kinds.get(Severity.NOTE, [])
        shown = [a for a in shown if a.severity is not Severity.NOTE]
        shown += notices[: limits[Severity.NOTE] - 1]
        left = summary.plural(len(found) - len(shown), "annotation")
        text = f"{left} left out: GitHub keeps 10 of a kind. The reports have all."
        shown.append(_Annotation(Severity.NOTE, "", text))
    return "".join(f"{_command(a)}\n" for a in shown)


def scans_to_summary(scans: Sequence[NamedScan]) -> str:
    """``scans`` as Markdown of at most 1,000,000 bytes: for the file $GITHUB_STEP_SUMMARY."""
    return scans_to_markdown(
        scans, limit=SUMMARY_BYTES_LIMIT, size=lambda text: len(text.encode("utf-8"))
    )


# Workflow commands


def _command(annotation: _Annotation) -> str:
    title = "subliminal-audit" + (f": {annotation.title}" if annotation.title else "")
    properties = {"title": shorten(strip_unsafe(title), _SHOWN_TITLE)[0]}
    place = _in_checkout(annotation.source)
    message = annotation.message
    if place:
        properties = {"file": place, "line": str(max(1, annotation.line)), **properties}
    elif annotation.source:
        message = f"{annotation.source}:{annotation.line}: {message}"
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    text = shorten(strip_unsafe(message), _SHOWN_CHARACTERS)[0]
    return f"::{_COMMANDS[annotation.severity]} {listed}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _in_checkout(source: str) -> str:
    """The path as GitHub wants it, relative to the checkout; "" if it lies elsewhere.

    A name with characters that cannot be shown is no path any more: it has no place either.
    """
    if not source or source != strip_unsafe(source) or re.match(r"[A-Za-z][\w+.-]+://|<", source):
        return ""
    path = PurePath(source)
    if path.is_absolute():
        try:
            path = path.relative_to(Path.cwd())
        except ValueError:
            return ""
    return "" if ".." in path.parts else path.as_posix()


# Annotations


def _verdict(scan: NamedScan) -> Iterable[_Annotation]:
    result = scan.result
    verdicts, rows = summary.facts(result)
    codes = [f"{code} ({count:,})" for code, count in summary.reject_codes(result)]
    text = f"{summary.verdict_words(result)}: {result.headline} {summary.MEANING[result.outcome]}"
    facts = ", ".join([*verdicts, *rows, *codes])
    place = next(((b.source, b.line) for b in result.broken), ("", 0))
    yield _Annotation(
        _SEVERITY_OF_SCAN[result.outcome], scan.name, f"{text} [{facts}]", place[0], place[1]
    )


def _held(scan: NamedScan) -> Iterable[_Annotation]:
    for f in summary.overview(scan.result).flagged:
        if scan.acceptance(f) is None:
            yield _finding(scan, f, f.severity, "")


def _accepted(scan: NamedScan) -> Iterable[_Annotation]:
    for f in summary.overview(scan.result).flagged:
        accepted = scan.acceptance(f)
        if accepted is not None:
            words = accepted_words(accepted)
            yield _finding(scan, f, Severity.NOTE, f"{words[0].upper()}{words[1:]}. ")


def _finding(scan: NamedScan, f: Finding, severity: Severity, before: str) -> _Annotation:
    numbers = f"q {summary.probability(f.q_value)}"
    if math.isfinite(f.effect):
        numbers = f"effect {summary.signed(f.effect)} {f.effect_unit}, {numbers}"
    rows = [(row.source, row.line) for row in f.evidence]
    rows += [(source.source, 1) for source in scan.result.sources]
    source, line = rows[0] if rows else ("", 0)
    name = f"{scan.name}: " if scan.name else ""
    flagged = "flagged, accepted" if before else "flagged"
    return _Annotation(
        severity,
        f"{name}{f.concept} {flagged} by {f.code} {f.detector}",
        f"{before}{f.message} [{numbers}]",
        source,
        line,
    )
