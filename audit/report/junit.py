"""JUnit XML for the test tabs of pipelines: a suite a data set, a case a concept.

| in the scan | in the file |
|---|---|
| concept flagged | failure |
| concept flagged, every finding accepted | skipped |
| concept inconclusive | skipped |
| concept not detected | passed; skipped where the scan did not read or test everything |
| something undecided, input not read to its end, nothing scannable | error of the case "decided" |
| more rows rejected than a gate lets through | error of the case "decided" |

Viewers count a file of skipped cases as green. So every suite has a case "decided" for the scan as
a whole, which passes only if all was read and every concept decided: undecided is red, no pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from audit.named_scan import NamedScan
from audit.report import summary
from audit.report.acceptance import Acceptance, accepted_words
from audit.report.safe_text import mark, shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
from detectors.compose import ConceptVerdict
from detectors.finding import Finding, Verdict

_SHOWN_EVIDENCE = 5
_SHOWN_CHARACTERS = 300
_SHOWN_SENTENCE = 1000
_SHOWN_SOURCES = 3
# What XML 1.0 cannot hold, however it is written.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Element = ElementTree.Element


def to_junit(result: ScanResult) -> bytes:
    """``result`` as JUnit XML with one suite, named after its sources."""
    names = [source.source for source in result.sources]
    more = f" and {len(names) - _SHOWN_SOURCES:,} more" if len(names) > _SHOWN_SOURCES else ""
    name = ", ".join(names[:_SHOWN_SOURCES]) + more
    return scans_to_junit((NamedScan(name or "no source", result),))


def scans_to_junit(scans: Sequence[NamedScan]) -> bytes:
    """One suite for each of ``scans``, in UTF-8; it holds no time and no name of the machine.

    Without a scan there is one suite with an error: an empty file would look like a pass.
    """
    root = ElementTree.Element("testsuites", {"name": "subliminal-audit"})
    for scan in scans:
        root.append(_suite(scan))
    if not scans:
        root.append(_nothing())
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.attrib[count]) for suite in root)))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _safe(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", strip_unsafe(text))


def _sentence(text: str) -> str:
    return shorten(_safe(text), _SHOWN_SENTENCE)[0]


def _counted(suite: Element) -> Element:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in cases)))
    return suite


def _nothing() -> Element:
    suite = ElementTree.Element("testsuite", {"name": "subliminal-audit"})
    case = _case(suite, "decided", "none")
    text = "No data set was scanned. This is not a pass."
    ElementTree.SubElement(case, "error", {"type": "nothing scanned", "message": text})
    return _counted(suite)


def _suite(scan: NamedScan) -> Element:
    result = scan.result
    name = _safe(scan.name) or "no name"
    suite = ElementTree.Element("testsuite", {"name": name})
    properties = ElementTree.SubElement(suite, "properties")
    for label, text in (
        ("outcome", result.outcome.value),
        ("headline", result.headline),
        *summary.provenance(result),
        *(("limit", limit) for limit in result.limits),
    ):
        ElementTree.SubElement(properties, "property", {"name": label, "value": _sentence(text)})
    # Viewers take a dot for the end of a package's name.
    place = f"subliminal-audit.{name.replace('.', '_')}"
    _decided(_case(suite, "decided", place), scan)
    acceptance = Acceptance(scan)
    findings: dict[tuple[str, str], list[Finding]] = {}
    for f in summary.ordered(result.findings):
        findings.setdefault((f.family, f.concept), []).append(f)
    for concept in result.concepts:
        title = _sentence(f"{concept.concept} ({concept.category})".replace(" ()", ""))
        case = _case(suite, title, place)
        found = findings.get((concept.family, concept.concept), [])
        if acceptance.is_accepted(concept):
            _accepted(case, scan, acceptance.flagged(concept))
        elif concept.verdict is Verdict.FLAGGED:
            _failed(case, scan, concept, found)
        else:
            _not_flagged(case, result, concept, found)
    return _counted(suite)


def _case(suite: Element, name: str, place: str) -> Element:
    return ElementTree.SubElement(suite, "testcase", {"name": name, "classname": place})


def _say(case: Element, tag: str, kind: str, message: str, lines: Iterable[str] = ()) -> None:
    said = ElementTree.SubElement(case, tag, {"type": kind, "message": message})
    said.text = "\n".join((message, *lines))


def _decided(case: Element, scan: NamedScan) -> None:
    """The scan as a whole: red unless it was read to its end and every concept was decided."""
    result = scan.result
    verdicts, rows = summary.facts(result)
    lines = [
        _sentence(summary.MEANING[result.outcome]),
        *verdicts,
        *rows,
        *((_sentence(scan.over_budget),) if scan.over_budget else ()),
        *(_sentence(f"broken off: {b.source}:{b.line}: {b.message}") for b in result.broken),
        *(
            _sentence(f"{summary.plural(count, 'row')} rejected: {code}")
            for code, count in summary.reject_codes(result)
        ),
        *(
            _sentence(
                ": ".join(("not tested", who, reason, *([", ".join(names)] if names else [])))
            )
            for who, reason, names in summary.skipped_groups(result.skipped)
        ),
    ]
    message = _sentence(f"{summary.verdict_words(result)}: {result.headline}")
    undecided = not result.concepts or any(
        concept.verdict is Verdict.INCONCLUSIVE for concept in result.concepts
    )
    if undecided or not _read_to_the_end(result):
        _say(case, "error", result.outcome.value, message, lines)
    elif scan.over_budget:
        _say(case, "error", "rejected rows", _sentence(scan.over_budget), [message, *lines])
    else:
        ElementTree.SubElement(case, "system-out").text = "\n".join((message, *lines))


def _read_to_the_end(result: ScanResult) -> bool:
    unread = (Outcome.INCOMPLETE, Outcome.NOTHING_SCANNABLE)
    return result.outcome not in unread and not result.broken


def _accepted(case: Element, scan: NamedScan, flagged: Iterable[Finding]) -> None:
    lines = [
        _sentence(f"{f.code} {f.concept} is flagged and {accepted_words(accepted)}")
        for f in flagged
        if (accepted := scan.acceptance(f)) is not None
    ]
    _say(case, "skipped", "accepted", lines[0], lines[1:])


def _failed(
    case: Element, scan: NamedScan, concept: ConceptVerdict, found: Sequence[Finding]
) -> None:
    """One failure, whatever many findings: viewers keep one of several."""
    flagged = [f for f in found if f.verdict is Verdict.FLAGGED]
    counting = [f for f in flagged if scan.acceptance(f) is None]
    lines = []
    for f in flagged:
        accepted = scan.acceptance(f)
        lines += [
            "",
            _sentence(f"{f.code} {f.detector}: {f.message}"),
            _sentence(_numbers(f)),
            *([] if accepted is None else [_sentence(accepted_words(accepted))]),
            *_evidence(f),
        ]
    if concept.disagreement:
        lines += ["", _sentence(concept.disagreement)]
    message = _sentence(f"flagged by {', '.join(concept.flagged_by)}: {counting[0].message}")
    _say(case, "failure", concept.severity.value, message, lines)


def _numbers(f: Finding) -> str:
    numbers = f"p {summary.probability(f.p_value)}, q {summary.probability(f.q_value)}"
    if not math.isfinite(f.effect):
        return numbers
    interval = summary.interval(f.effect_low, f.effect_high)
    return f"effect {summary.signed(f.effect)} {f.effect_unit} (95% {interval}), {numbers}"


def _evidence(f: Finding) -> Iterable[str]:
    for row in f.evidence[:_SHOWN_EVIDENCE]:
        text, spans = shorten(strip_unsafe(row.text), _SHOWN_CHARACTERS, row.spans)
        where = shorten(strip_unsafe(row.source), 200)[0]
        yield _safe(f"  {where}:{row.line}: {mark(text, spans)}")
    if len(f.evidence) > _SHOWN_EVIDENCE:
        yield f"  … and {summary.plural(len(f.evidence) - _SHOWN_EVIDENCE, 'more row')}"


def _not_flagged(
    case: Element, result: ScanResult, concept: ConceptVerdict, found: Sequence[Finding]
) -> None:
    if concept.verdict is Verdict.INCONCLUSIVE:
        reason = concept.reason.value if concept.reason else "no reason given"
        lines = [_sentence(f"{f.code} {f.detector}: {f.message}") for f in found]
        _say(case, "skipped", "inconclusive", f"inconclusive: {reason}", lines)
    elif not _read_to_the_end(result):
        text = "not detected in the rows that were read: the rest is unknown"
        _say(case, "skipped", result.outcome.value, text)
    else:
        seen = summary.detectable(found)
        text = f"not detected; smallest detectable effect {seen}. This is no proof of absence."
        ElementTree.SubElement(case, "system-out").text = _sentence(text)
