"""The table of concepts at a terminal: one line a concept, one column a detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from audit.report import summary
from audit.report.layout import (
    VERDICT_STYLE,
    bullets,
    empty_table,
    in_style,
    indented,
    verdict_words,
)
from audit.report.safe_rich import safe
from audit.report.safe_text import shorten, strip_unsafe
from audit.scan_result import ScanResult
from detectors.compose import ConceptVerdict
from detectors.finding import Verdict

_SIGN_STYLE = {
    "▲": VERDICT_STYLE[Verdict.FLAGGED],
    "?": VERDICT_STYLE[Verdict.INCONCLUSIVE],
}
_SHOWN_UNFLAGGED = 10
_SHOWN_DISAGREEMENTS = 10
_WITH_P = 112  # from this width on, there is a column for p
_SIGN_WIDTH = 7  # a detector's column
_LEAST_WIDTH = 58  # verdict, concept, q and reason, beside the detectors
_REASON_WIDTH = 16


def concept_section(result: ScanResult, width: int) -> Iterable[RenderableType]:
    """The concepts' verdicts, who says what, and who contradicts whom."""
    flagged, inconclusive, clear = summary.concepts_by_verdict(result)
    undecided, more_undecided = summary.cut(inconclusive, _SHOWN_UNFLAGGED)
    quiet, more_quiet = summary.cut(clear, _SHOWN_UNFLAGGED)
    codes = summary.detector_codes(result.concepts)
    with_reasons = bool(inconclusive) and width >= _LEAST_WIDTH + _SIGN_WIDTH * len(codes)
    short = width < _LEAST_WIDTH - _REASON_WIDTH + _SIGN_WIDTH * len(codes)
    heads = _without_common_start(codes) if short else codes
    table = _table(heads, width >= _WITH_P, with_reasons)
    for concept in (*flagged, *undecided, *quiet):
        table.add_row(*_cells(concept, codes, width >= _WITH_P, with_reasons))
    yield table
    more = [
        safe(summary.condensed_concepts(part), "dim italic")
        for part in (more_undecided, more_quiet)
        if part
    ]
    if inconclusive and not with_reasons:
        more.append(safe(f"Inconclusive for {summary.reasons(inconclusive)}", "dim italic"))
    if more:
        yield indented(Group(*more), 1)
    yield Padding(_legend(result, codes), (1, 0, 0, 1))
    contradicted, more_contradicted = summary.cut(
        [concept for concept in result.concepts if concept.disagreement], _SHOWN_DISAGREEMENTS
    )
    if contradicted:
        yield Padding(Text("Detectors disagree", style="bold"), (1, 0, 0, 1))
        yield bullets((_disagreement(concept) for concept in contradicted), "≠")
    if more_contradicted:
        yield indented(in_style(f"… and on {len(more_contradicted):,} more", "dim italic"), 1)


def _table(heads: Sequence[str], with_p: bool, with_reasons: bool) -> Table:
    table = empty_table()
    table.padding = (0, 1, 0, 0)
    table.add_column(" verdict", no_wrap=True, min_width=13)
    table.add_column("concept", no_wrap=True, overflow="ellipsis", ratio=1)
    if with_p:
        table.add_column("p", no_wrap=True, justify="right")
    table.add_column("q", no_wrap=True, justify="right")
    for head in heads:
        shown = Text(shorten(strip_unsafe(head), _SIGN_WIDTH)[0])
        table.add_column(shown, no_wrap=True, justify="center")
    if with_reasons:
        table.add_column("reason", no_wrap=True)
    return table


def _cells(
    concept: ConceptVerdict, codes: Sequence[str], with_p: bool, with_reason: bool
) -> list[Text]:
    name = safe(concept.concept, "bold" if concept.verdict is Verdict.FLAGGED else "")
    name.append_text(safe(f"  {concept.category}", "dim"))
    cells = [verdict_words(concept.verdict), name]
    if with_p:
        cells.append(Text(summary.probability(concept.p_value), style="dim"))
    cells.append(Text(summary.probability(concept.q_value)))
    signs = (summary.sign(concept, code) for code in codes)
    cells += [Text(sign, style=_SIGN_STYLE.get(sign, "dim")) for sign in signs]
    if with_reason:
        cells.append(Text(summary.short_reason(concept.reason), style="dim"))
    return cells


def _without_common_start(codes: Sequence[str]) -> list[str]:
    """``SA001, SA003`` as ``1, 3``."""
    pairs = zip(codes[0], codes[-1], strict=False) if codes else ()  # they are sorted
    common = next((i for i, (first, last) in enumerate(pairs) if first != last), 0)
    return [code[common:] for code in codes]


def _legend(result: ScanResult, codes: Sequence[str]) -> Text:
    names = {test.code: test.detector for test in result.skipped}
    names |= {detector.code: detector.name for detector in result.detectors}
    signs = "   ".join(f"{sign} {meaning}" for sign, meaning in summary.SIGNS.items())
    listed = ", ".join(f"{code} {names.get(code, '')}".strip() for code in codes)
    return in_style(signs, "dim").append("\n").append_text(safe(f"{listed}.", "dim"))


def _disagreement(concept: ConceptVerdict) -> Text:
    line = safe(concept.concept, "bold")
    return line.append_text(safe(f": {concept.disagreement}"))
