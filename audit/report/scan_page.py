"""The scan of one data set, or of several, as one self-contained page (see `audit.report.page`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from audit.named_scan import NamedScan
from audit.report import scan_page_words as words
from audit.report import summary
from audit.report.acceptance import Acceptance
from audit.report.drawing import LOWERED, MUTED, RAISED, Figure
from audit.report.page import render_page
from audit.report.scan_plots import (
    STEPS,
    Cell,
    by_test,
    effect_figure,
    heat_map,
    step_words,
    token_figure,
)
from audit.scan_result import Outcome, ScanResult
from audit.version import tool_version
from detectors.compose import ConceptVerdict
from detectors.finding import Finding, Verdict

_COLUMNS = 12  # data sets in one heat map: as wide as a phone
_MAPPED_CONCEPTS = 40
_TOKENS = 20
_EVIDENCE = 5
_REASONS = 20
_MOST_BYTES = 4_500_000
_SQUEEZES = (1, 4, 16, 64)

_CLASS = {
    Outcome.FLAGGED: "flagged",
    Outcome.INCOMPLETE: "incomplete",
    Outcome.NOTHING_SCANNABLE: "incomplete",
    Outcome.INCONCLUSIVE: "inconclusive",
    Outcome.NOT_DETECTED: "not-detected",
}


@dataclass(slots=True)
class _Room:
    """How much is shown, so that a page of many data sets, or of long texts, stays small.

    ``figures`` are those still to be drawn: the gravest data sets get theirs first.
    """

    sets: int
    lines: int
    mapped: int
    details: int
    concepts: int
    findings: int
    lanes: int
    sources: int
    limits: int
    figures: int

    @classmethod
    def of(cls, sets: int, squeeze: int) -> _Room:
        """A page shared by ``sets`` data sets, with about 1 / ``squeeze`` of what would fit."""
        in_full = min(sets, max(1, 60 // squeeze))

        def share(whole: int, least: int, most: int) -> int:
            return max(least, min(most, whole // (squeeze * max(1, in_full))))

        return cls(
            sets=in_full,
            lines=2000 // squeeze,
            mapped=120 // squeeze,
            details=share(100, 1, 60),
            concepts=share(1500, 5, 300),
            findings=share(3000, 5, 400),
            lanes=share(1000, 5, 30),
            sources=share(400, 3, 100),
            limits=share(600, 5, 40),
            figures=60 // squeeze,
        )

    def draw(self, figure: Callable[[], Figure | None]) -> Figure | None:
        """The figure, or None where there is nothing to see or no room for it."""
        if self.figures <= 0:
            return None
        drawn = figure()
        self.figures -= drawn is not None
        return drawn


def _squeezed(page: Callable[[int], bytes]) -> bytes:
    """The page of the least squeeze that is small enough, or of the greatest."""
    written = b""
    for squeeze in _SQUEEZES:
        written = page(squeeze)
        if len(written) <= _MOST_BYTES:
            break
    return written


def to_html(result: ScanResult) -> bytes:
    """The page as UTF-8: the verdict, who says what of each concept, effects, the rows that speak
    for a flag, what could not have been seen, and what the verdicts rest on.

    Under 5 MB: long lists are cut, and say so. Equal results give equal bytes. Raises
    ``MissingExtraError`` without the extra ``report``.
    """
    scan = NamedScan(_title(result), result)
    facts = {
        "words": words,
        "title": words.place(scan.name),
        "verdict": summary.verdict_words(result),
        "verdict_sign": _sign(scan),
        "verdict_class": _verdict_class(scan),
        "sentences": [words.sentence(result.headline)],
        "meaning": summary.MEANING[result.outcome],
        "facts": [" · ".join(line) for line in summary.facts(result)],
        "legend": _legend(scan),
        "several": None,
        "command": "audit scan",
        "tool_version": result.tool_version,
    }

    def page(squeeze: int) -> bytes:
        return render_page("scan_page", {**facts, "sets": [_set(scan, 0, _Room.of(1, squeeze))]})

    return _squeezed(page)


def scans_to_html(
    scans: Sequence[NamedScan],
    *,
    verdict: str,
    headline: str,
    notes: Sequence[str] = (),
    command: str = "audit gate",
) -> bytes:
    """One page of several data sets: the verdict on all of them, a heat map of concepts and data
    sets, and a part for each.

    ``verdict`` is in a word or two what the caller makes of them, ``headline`` the same in a
    sentence, ``notes`` are more sentences. Findings that are accepted are shown as such. Parts
    of data sets come gravest first, at most 60; every other one still has its line. ``command`` is
    what wrote the page. Under 5 MB, as `to_html`. Equal arguments give equal bytes. Raises
    ``MissingExtraError`` without the extra ``report``.
    """
    ranked = sorted(scans, key=_gravity)
    rows = sum(scan.result.rows_scanned for scan in ranked)
    facts = {
        "words": words,
        "title": summary.plural(len(ranked), "data set"),
        "verdict": words.sentence(verdict),
        "verdict_sign": "",  # the caller's verdict is no detector's
        "verdict_class": f"overall {_verdict_class(ranked[0]) if ranked else 'incomplete'}",
        "sentences": [words.sentence(text) for text in (headline, *notes)],
        "meaning": "",
        "facts": [words.outcome_counts(ranked), summary.plural(rows, "row") + " scanned"],
        "legend": _legend(*ranked),
        "command": command,
        "tool_version": tool_version(),
    }

    def page(squeeze: int) -> bytes:
        room = _Room.of(len(ranked), squeeze)
        several = _several(ranked, room)
        sets = [_set(scan, place, room) for place, scan in enumerate(ranked[: room.sets], 1)]
        return render_page("scan_page", {**facts, "several": several, "sets": sets})

    return _squeezed(page)


def _title(result: ScanResult) -> str:
    if not result.sources:
        return "data"
    more = len(result.sources) - 1
    return result.sources[0].source + (f" and {more:,} more" if more else "")


def _verdict_class(scan: NamedScan) -> str:
    if scan.held():
        return "flagged"
    if scan.result.outcome is Outcome.FLAGGED:
        return "accepted"
    return _CLASS[scan.result.outcome]


def _sign(scan: NamedScan) -> str:
    if scan.held():
        return "▲"
    if scan.result.outcome is Outcome.FLAGGED:
        return words.ACCEPTED
    return words.OUTCOME_SIGN[scan.result.outcome]


_GRAVITY = ("flagged", "incomplete", "inconclusive", "accepted", "not-detected")


def _gravity(scan: NamedScan) -> tuple[int, float, str]:
    """Sorts the gravest first: flags that count, what is unknown, what was accepted."""
    q_values = (f.q_value for f in scan.held())
    return _GRAVITY.index(_verdict_class(scan)), min(q_values, default=1.0), scan.name


# One data set


def _set(scan: NamedScan, place: int, room: _Room) -> dict[str, Any]:
    """A data set's part of the page; ``place`` 0 is the only one."""
    result = scan.result
    codes = summary.detector_codes(result.concepts)
    seen = summary.overview(result)
    # What counts is shown before what is accepted.
    flagged = sorted(seen.flagged, key=lambda f: scan.acceptance(f) is not None)
    findings = [*flagged, *seen.inconclusive, *seen.not_detected]
    prefix = f"s{place}-" if place else ""
    heat = _heat(scan, codes, room)
    effects = _effects(findings, room)
    details = [
        _detail(scan, f, f"{prefix}f{number}", room)
        for number, f in enumerate(flagged[: room.details], 1)
    ]
    return {
        "place": place,
        "prefix": prefix,
        "of": f" of data set {place}" if place else "",
        "name": words.place(scan.name),
        "sign": _sign(scan),
        "verdict": words.outcome_words(scan),
        "verdict_class": _verdict_class(scan),
        "headline": words.sentence(result.headline),
        "meaning": summary.MEANING[result.outcome],
        "facts": [" · ".join(line) for line in summary.facts(result)],
        "codes": words.detector_words(result, codes),
        "heat": heat,
        "concepts": words.concept_grid(scan, codes, room.concepts),
        "disagreements": [
            (words.name(c.concept), words.sentence(c.disagreement))
            for c in result.concepts
            if c.disagreement
        ][: room.limits],
        "effects": effects,
        "findings": words.finding_grid(findings, room.findings),
        "units": words.unit_words(findings) or "no unit",
        "flagged": details,
        "plots_left_out": room.figures <= 0,
        "flagged_left_out": words.left_out(len(flagged) - room.details, "flagged finding"),
        "accepted": [
            (f"{words.name(a.concept)}, {words.short_code(a.code)}", words.acceptance_words(a))
            for a in scan.accepted[: room.findings]
        ],
        "limits": [words.sentence(limit) for limit in result.limits[: room.limits]],
        "limits_left_out": words.left_out(len(result.limits) - room.limits, "limit"),
        "power": words.power_grid(result, codes, room.concepts),
        "undecided": words.undecided(result),
        "skipped": words.skipped(result, _REASONS),
        "broken": words.broken(result, _REASONS),
        "rejects": words.reject_grid(result, _REASONS),
        "sources": words.source_grid(result.sources, room.sources),
        "reference": words.source_grid(result.reference, room.sources),
        "provenance": words.provenance(result),
    }


def _heat(scan: NamedScan, codes: Sequence[str], room: _Room) -> dict[str, Any] | None:
    """The heat map of concepts and detectors, None where no concept was tested."""
    concepts = scan.result.concepts[: min(room.concepts, _MAPPED_CONCEPTS)]
    if not concepts or not codes:
        return None
    least_q = words.test_q(scan.result)
    cells = [
        [
            _cell(
                words.test_sign(scan, concept, code),
                least_q.get((concept.family, concept.concept, code), math.nan),
            )
            for code in codes
        ]
        for concept in concepts
    ]
    description = (
        f"What {summary.plural(len(codes), 'detector')} said of "
        f"{summary.plural(len(concepts), 'concept')}, with q-values; the table below has the same."
    )
    figure = room.draw(
        lambda: heat_map(
            [concept.concept for concept in concepts],
            [words.short_code(code) for code in codes],
            cells,
            scan.result.false_discovery_rate,
            with_numbers=True,
            description=description,
        )
    )
    if figure is None:
        return None
    hidden = len(scan.result.concepts) - len(concepts)
    note = f"The first {len(concepts):,}; {hidden:,} more in the table." if hidden else ""
    return {"figure": figure, "note": note}


def _cell(sign: str, q_value: float) -> Cell | None:
    return Cell(sign, q_value) if sign else None


def _effects(findings: Sequence[Finding], room: _Room) -> list[dict[str, Any]]:
    """A figure for each test, of its most striking findings."""
    shown = []
    for (code, detector, _unit), group in by_test(findings).items():
        figure = room.draw(partial(effect_figure, group[: room.lanes]))
        if figure is not None:
            hidden = len(group) - room.lanes
            shown.append(
                {
                    "title": words.place(f"{code} {detector}"),
                    "figure": figure,
                    "note": f"{hidden:,} more in the table." if hidden > 0 else "",
                }
            )
    return shown


def _detail(scan: NamedScan, f: Finding, anchor: str, room: _Room) -> dict[str, Any]:
    accepted = scan.acceptance(f)
    return {
        "anchor": anchor,
        "concept": words.name(f.concept),
        "category": words.name(f.category),
        "test": words.place(f"{f.code} {f.detector}"),
        "severity": f.severity.value,
        "accepted": "" if accepted is None else words.acceptance_words(accepted),
        "message": words.sentence(f.message),
        "numbers": words.finding_numbers(f),
        "tested": words.tested_words(f),
        "notes": [words.sentence(note) for note in f.notes[:_REASONS]],
        "tokens": words.token_grid(f.tokens, _TOKENS) if f.tokens else None,
        "figure": room.draw(lambda: token_figure(f.concept, f.tokens[:_TOKENS])),
        "evidence": [words.evidence_row(row) for row in f.evidence[:_EVIDENCE]],
        "evidence_left_out": words.left_out(len(f.evidence) - _EVIDENCE, "row"),
        "marked": words.marked_words(f),
    }


# Several data sets


def _several(scans: Sequence[NamedScan], room: _Room) -> dict[str, Any]:
    """The overview of several data sets: one line each, and heat maps of concepts by data sets."""
    lines = []
    for place, scan in enumerate(scans[: room.lines], 1):
        held, accepted = words.listed_concepts(scan)
        lines.append(
            {
                "place": place,
                "anchor": f"s{place}" if place <= room.sets else "",
                "name": words.place(scan.name),
                "sign": _sign(scan),
                "verdict": words.outcome_words(scan),
                "held": held,
                "accepted": accepted,
                "rows": f"{scan.result.rows_scanned:,}",
                "rejected": f"{scan.result.rows_rejected:,}",
            }
        )
    mapped = scans[: room.mapped]
    acceptances = [Acceptance(scan) for scan in mapped]
    verdicts: list[dict[tuple[str, str], ConceptVerdict]] = [
        {(c.family, c.concept): c for c in scan.result.concepts} for scan in mapped
    ]
    keys = _ranked_concepts(scans)
    shown = keys[:_MAPPED_CONCEPTS]
    cells = [
        [
            _concept_cell(acceptance, of_set.get(key))
            for acceptance, of_set in zip(acceptances, verdicts, strict=True)
        ]
        for key in shown
    ]
    labels = [f"{place} {scan.name}" for place, scan in enumerate(mapped, 1)]
    rate = max((scan.result.false_discovery_rate for scan in scans), default=0.0)
    figures, grids = [], []
    for start in range(0, len(mapped) if shown else 0, _COLUMNS):
        end = min(start + _COLUMNS, len(mapped))
        piece = [row[start:end] for row in cells]
        figures.append(
            heat_map(
                [concept for _, concept in shown],
                labels[start:end],
                piece,
                rate,
                with_numbers=False,
                description=(
                    f"Verdicts on {summary.plural(len(shown), 'concept')} in data sets {start + 1} "
                    f"to {end}; the table below has the same."
                ),
            )
        )
        rows = tuple(
            (
                words.name(concept),
                *(words.sign_cell(cell.sign, cell.q_value) if cell else "" for cell in row),
            )
            for (_, concept), row in zip(shown, piece, strict=True)
        )
        heads = ("concept", *(str(place) for place in range(start + 1, end + 1)))
        grids.append(words.Grid(heads, rows, left=frozenset(range(1, len(heads)))))
    hidden = [
        words.left_out(len(keys) - len(shown), "concept"),
        words.left_out(len(scans) - len(mapped), "data set"),
    ]
    return {
        "lines": lines,
        "lines_left_out": words.left_out(len(scans) - len(lines), "data set"),
        "parts_left_out": words.left_out(len(scans) - room.sets, "data set"),
        "figures": figures,
        "grids": grids,
        "map_left_out": " ".join(filter(None, hidden)),
    }


def _concept_cell(acceptance: Acceptance, concept: ConceptVerdict | None) -> Cell | None:
    return None if concept is None else Cell(words.sign_of(acceptance, concept), concept.q_value)


def _ranked_concepts(scans: Sequence[NamedScan]) -> list[tuple[str, str]]:
    """(family, concept) of all data sets: those flagged in most of them first, then by least q."""
    flagged: dict[tuple[str, str], int] = {}
    least_q: dict[tuple[str, str], float] = {}
    for scan in scans:
        for c in scan.result.concepts:
            key = (c.family, c.concept)
            flagged[key] = flagged.get(key, 0) + (c.verdict is Verdict.FLAGGED)
            q_value = math.inf if math.isnan(c.q_value) else c.q_value
            least_q[key] = min(least_q.get(key, math.inf), q_value)
    return sorted(flagged, key=lambda key: (-flagged[key], least_q[key], key))


_SHAPES = (
    ("flagged", "M0,-5L5,4H-5Z", LOWERED),
    ("inconclusive", "M0,-5L4,0L0,5L-4,0Z", MUTED),
    ("not detected", "M4,0A4,4,0,1,1,-4,0A4,4,0,1,1,4,0", RAISED),
)
"""Of ``scan_plots.MARKS``: what each stands for, its shape and colour."""


def _legend(*scans: NamedScan) -> dict[str, Any]:
    rates = [scan.result.false_discovery_rate for scan in scans]
    signs = {**summary.SIGNS}
    if any(scan.accepted for scan in scans):
        signs[words.ACCEPTED] = "flags it, and is accepted"
    steps = zip(STEPS, step_words(max(rates, default=0.05)), strict=True)
    return {"signs": signs, "steps": list(steps), "shapes": _SHAPES}
