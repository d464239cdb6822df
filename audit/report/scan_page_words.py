"""What the page of a scan says in words and tables: texts shortened, numbers as all reports do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit.dataset.record import SourceSummary
from audit.named_scan import Accepted, NamedScan
from audit.report import summary
from audit.report.acceptance import Acceptance, accepted_words
from audit.report.safe_text import shorten, strip_unsafe
from audit.scan_result import Outcome, ScanResult
from detectors.compose import ConceptVerdict
from detectors.finding import EvidenceRow, Finding, TokenEnrichment, Verdict

_NAME, _PLACE, _SENTENCE = 80, 200, 1000  # characters
_EVIDENCE = 400
_CELL = 40

ACCEPTED = "△"
"""Sign of a flag that is accepted."""

SIGN_WORDS = {
    "▲": "flagged",
    ACCEPTED: "flagged, accepted",
    "?": "inconclusive",
    "○": "not detected",
    "–": "skipped",
}
"""Sign -> what a screen reader says in its place."""

VERDICT_SIGN = {Verdict.FLAGGED: "▲", Verdict.INCONCLUSIVE: "?", Verdict.NOT_DETECTED: "○"}

OUTCOME_SIGN = {
    Outcome.FLAGGED: "▲",
    Outcome.INCOMPLETE: "✗",
    Outcome.INCONCLUSIVE: "?",
    Outcome.NOTHING_SCANNABLE: "✗",
    Outcome.NOT_DETECTED: "○",
}

_MARKED = {
    "SA001": "the concept's names",
    "SA002": "entangled numbers and tokens: those that the concept makes more likely",
    "SA004": "divergence tokens: where the model expects another token with the concept's prompt "
    "than without it, and the row has the concept's",
}
_WHOLE = "no part: the detector weighs the row as a whole"

DETECTABLE_MEANS = (
    "The smallest effect that each test would have found four times out of five (or as often as "
    "its power was set to). A weaker trait can be in the data and not show. – : not known."
)
EFFECTS_MEAN = (
    "An interval that holds zero is no evidence that nothing is there: where the dashed mark lies "
    "to its right, an effect up to there could have been missed."
)
TOKENS_MEAN = "Expected: what the reference, or the signatures' own neutral rows, would have."
NO_PLOTS = "Plots are left out here, as graver data sets have theirs: the tables have the numbers."
NOTHING_LEFT_OUT = "No row was rejected and every source was read to its end."


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign in a table with its q-value, and the words in its place."""

    sign: str
    words: str
    number: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: head, and rows whose first cell names them.

    ``left_out`` says what it lacks; ``left`` are the columns that hold words, not numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | Sign, ...], ...]
    left_out: str = ""
    left: frozenset[int] = frozenset()


def name(text: str) -> str:
    """The name of a concept or data set, short enough for a table."""
    return shorten(strip_unsafe(text), _NAME)[0] or summary.UNDEFINED


def place(text: str) -> str:
    """A path or an address, at most some lines long."""
    return shorten(strip_unsafe(text), _PLACE)[0]


def sentence(text: str) -> str:
    """A message, at most some paragraphs long."""
    return shorten(strip_unsafe(text), _SENTENCE)[0]


def left_out(count: int, noun: str) -> str:
    """``3 more concepts are left out here; the JSON report has them all.``, or "" for none."""
    if count <= 0:
        return ""
    verb = "is" if count == 1 else "are"
    return (
        f"{summary.plural(count, f'more {noun}')} {verb} left out here; "
        "the JSON report has every one."
    )


# Concepts


def sign_of(acceptance: Acceptance, concept: ConceptVerdict) -> str:
    """The sign of a concept's verdict: a flag of which all findings are accepted has its own."""
    if concept.verdict is not Verdict.FLAGGED:
        return VERDICT_SIGN[concept.verdict]
    return ACCEPTED if acceptance.is_accepted(concept) else "▲"


def test_sign(scan: NamedScan, concept: ConceptVerdict, code: str) -> str:
    """What the detector ``code`` says of ``concept``; "" if it is not asked."""
    sign = summary.sign(concept, code)
    accepted = any((a.code, a.concept) == (code, concept.concept) for a in scan.accepted)
    return ACCEPTED if sign == "▲" and accepted else sign


def test_q(result: ScanResult) -> dict[tuple[str, str, str], float]:
    """(family, concept, code) -> the least q-value of that test; NaN where none is known."""
    least: dict[tuple[str, str, str], float] = {}
    for f in result.findings:
        key = (f.family, f.concept, f.code)
        known = least.get(key, math.nan)
        least[key] = f.q_value if math.isnan(known) else min(known, f.q_value)
    return least


def sign_cell(sign: str, q_value: float) -> Sign | str:
    """A cell of a table for a cell of a heat map; empty where nothing was asked."""
    if not sign:
        return ""
    return Sign(sign, SIGN_WORDS[sign], _q(q_value))


def _q(value: float) -> str:
    return "" if math.isnan(value) else summary.probability(value)


def concept_grid(scan: NamedScan, codes: Sequence[str], most: int) -> Grid:
    """One row a concept: its verdict, what each detector says, p, q and the reason."""
    concepts = scan.result.concepts
    acceptance, least_q = Acceptance(scan), test_q(scan.result)
    rows = []
    for concept in concepts[:most]:
        verdict = sign_of(acceptance, concept)
        why = concept.reason.value if concept.reason else ""
        if concept.verdict is Verdict.FLAGGED:
            why = concept.severity.value
        cells: list[str | Sign] = [
            name(concept.concept),
            Sign(verdict, "", SIGN_WORDS[verdict]),
            summary.probability(concept.q_value),
            summary.probability(concept.p_value),
        ]
        for code in codes:
            q_value = least_q.get((concept.family, concept.concept, code), math.nan)
            cells.append(sign_cell(test_sign(scan, concept, code), q_value))
        rows.append((*cells, why, shorten(strip_unsafe(concept.category), _CELL)[0]))
    heads = ("concept", "verdict", "q", "p", *map(short_code, codes), "why", "category")
    left = frozenset({1, *range(4, len(heads))})
    return Grid(heads, tuple(rows), left_out(len(concepts) - most, "concept"), left)


def short_code(code: str) -> str:
    """A detector's code; those from outside may be long."""
    return shorten(strip_unsafe(code), 12)[0]


def detector_words(result: ScanResult, codes: Sequence[str]) -> str:
    """``SA001 mention, SA002 frequency``."""
    names = {test.code: test.detector for test in result.skipped}
    names |= {detector.code: detector.name for detector in result.detectors}
    return ", ".join(place(f"{code} {names.get(code, '')}".strip()) for code in codes)


# Findings


def finding_grid(findings: Sequence[Finding], most: int) -> Grid:
    """One row a finding with every number of it."""
    rows = []
    for f in findings[:most]:
        statistic = f.calibrated_statistic
        rows.append(
            (
                name(f.concept),
                short_code(f.code),
                Sign(VERDICT_SIGN[f.verdict], "", f.verdict.value),
                summary.signed(f.effect),
                summary.interval(f.effect_low, f.effect_high),
                summary.number(f.smallest_detectable_effect),
                f"{statistic:.1f}" if math.isfinite(statistic) else summary.UNDEFINED,
                summary.probability(f.p_value),
                summary.probability(f.q_value),
            )
        )
    heads = ("concept", "test", "verdict", "effect", "95% interval", "detectable",
             "statistic", "p", "q")  # fmt: skip
    hidden = left_out(len(findings) - most, "finding")
    return Grid(heads, tuple(rows), hidden, frozenset({1, 2}))


def unit_words(findings: Iterable[Finding]) -> str:
    """``SA001 in share of rows, SA002 in sd of one row's score``."""
    units = sorted({(f.code, f.effect_unit) for f in findings if f.effect_unit})
    return ", ".join(
        f"{short_code(code)} in {shorten(strip_unsafe(unit), _CELL)[0]}" for code, unit in units
    )


def token_grid(tokens: Sequence[TokenEnrichment], most: int) -> Grid:
    """One row a unit: seen, expected, their ratio, and its logarithm with the interval."""
    rows = []
    for t in tokens[:most]:
        expected = t.expected_count
        rows.append(
            (
                shorten(strip_unsafe(t.unit.replace(" ", "␣")), _CELL)[0],
                f"{t.observed_count:,}",
                f"{expected:,.1f}" if math.isfinite(expected) else summary.UNDEFINED,
                summary.times(t.log_ratio_nats),
                summary.signed(t.log_ratio_nats),
                summary.interval(t.log_ratio_low_nats, t.log_ratio_high_nats),
            )
        )
    heads = ("unit", "seen", "expected", "times", "log-ratio, nats", "95% interval")
    return Grid(heads, tuple(rows), left_out(len(tokens) - most, "unit"))


@dataclass(frozen=True, slots=True)
class Row:
    """An evidence row. ``parts`` are its text in pieces, each marked or not."""

    place: str
    score: str
    parts: tuple[tuple[str, bool], ...]


def evidence_row(row: EvidenceRow) -> Row:
    """``row`` as the page shows it, cut to where most is marked."""
    text, spans = shorten(strip_unsafe(row.text), _EVIDENCE, row.spans)
    parts: list[tuple[str, bool]] = []
    at = 0
    for start, end in spans:
        parts += [(text[at:start], False), (text[start:end], True)]
        at = end
    parts.append((text[at:], False))
    where = f"{place(row.source)}:{row.line}"
    return Row(where, summary.signed(row.score), tuple(part for part in parts if part[0]))


def marked_words(f: Finding) -> str:
    """What is marked in the rows of ``f``."""
    if any(row.spans for row in f.evidence):
        return _MARKED.get(f.code, "what the detector marks")
    return _WHOLE


def tested_words(f: Finding) -> str:
    """``1,536 rows and 11,953 units tested. Null hypothesis: …``."""
    return sentence(
        f"{summary.plural(f.rows_tested, 'row')} and {summary.plural(f.units_tested, 'unit')} "
        f"tested. Null hypothesis: {f.null_hypothesis}"
    )


def finding_numbers(f: Finding) -> str:
    """Effect, interval, smallest detectable effect, p and q in one line."""
    unit = f" {place(f.effect_unit)}" if f.effect_unit else ""
    return (
        f"Effect {summary.signed(f.effect)}{unit} "
        f"({summary.interval(f.effect_low, f.effect_high)}); smallest detectable "
        f"{summary.number(f.smallest_detectable_effect)}; p {summary.probability(f.p_value)}, "
        f"q {summary.probability(f.q_value)}."
    )


def acceptance_words(accepted: Accepted) -> str:
    """``Accepted by suppression until 2027-01-31: known (owner ana).``, made safe and short."""
    words = sentence(accepted_words(accepted))
    return f"{words[0].upper()}{words[1:]}."


# What was not seen


def power_grid(result: ScanResult, codes: Sequence[str], most: int) -> Grid:
    """Smallest detectable effect by concept and detector, each with its unit in the head."""
    units: dict[str, set[str]] = {}
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for f in result.findings:
        units.setdefault(f.code, set()).add(f.effect_unit)
        of_concept = cells.setdefault((f.family, f.concept), {})
        # Where one detector tested a concept twice, the weaker test is what was not seen.
        known = of_concept.get(f.code, f.smallest_detectable_effect)
        of_concept[f.code] = max(known, f.smallest_detectable_effect, key=_weakness)
    tested = [code for code in codes if code in units]
    heads = []
    for code in tested:
        shown = " or ".join(sorted(shorten(strip_unsafe(u), _CELL)[0] for u in units[code] if u))
        heads.append(f"{short_code(code)}, {shown}" if shown else short_code(code))
    keys = [(c.family, c.concept) for c in result.concepts if (c.family, c.concept) in cells]
    rows = [
        (
            name(key[1]),
            *(
                summary.number(cells[key][code]) if code in cells[key] else "not tested"
                for code in tested
            ),
        )
        for key in keys[:most]
    ]
    return Grid(("concept", *heads), tuple(rows), left_out(len(keys) - most, "concept"))


def _weakness(value: float) -> float:
    return math.inf if math.isnan(value) else value


def undecided(result: ScanResult) -> list[tuple[str, str]]:
    """(reason, concepts that are inconclusive for it), most frequent first."""
    groups: dict[str, list[str]] = {}
    for c in result.concepts:
        if c.verdict is Verdict.INCONCLUSIVE:
            reason = c.reason.value if c.reason else "no reason given"
            groups.setdefault(reason, []).append(c.concept)
    return [
        (f"{reason} ({len(names):,})", _names(names))
        for reason, names in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def skipped(result: ScanResult, most: int) -> list[tuple[str, str]]:
    """(detector, reason with the concepts) of the tests that could not run."""
    groups = summary.skipped_groups(result.skipped)
    shown = [
        (place(who), sentence(reason) + (f" ({_names(names)})" if names else ""))
        for who, reason, names in groups[:most]
    ]
    if len(groups) > most:
        shown.append(("…", left_out(len(groups) - most, "reason")))
    return shown


def _names(names: Sequence[str], most: int = 30) -> str:
    text = ", ".join(map(name, names[:most]))
    return f"{text} and {len(names) - most:,} more" if len(names) > most else text


def broken(result: ScanResult, most: int) -> list[tuple[str, str]]:
    """(place, message) of the sources that broke off."""
    shown = [(f"{place(b.source)}:{b.line}", sentence(b.message)) for b in result.broken[:most]]
    if len(result.broken) > most:
        shown.append(("…", left_out(len(result.broken) - most, "source")))
    return shown


def reject_grid(result: ScanResult, most: int, examples: int = 5) -> Grid:
    """One row a code: how many rows, and the first few of them."""
    codes = summary.reject_codes(result)
    rows = []
    for code, count in codes[:most]:
        of_code = [r for r in result.rejects if r.code == code][:examples]
        message = sentence(of_code[0].message) if of_code else ""
        places = ", ".join(f"{place(r.source)}:{r.line}" for r in of_code)
        more = f" and {count - len(of_code):,} more" if of_code and count > len(of_code) else ""
        rows.append((place(code), f"{count:,}", message, places + more))
    heads = ("code", "rows", "what to do", "where")
    return Grid(heads, tuple(rows), left_out(len(codes) - most, "code"), frozenset({2, 3}))


# Provenance


def source_grid(sources: Sequence[SourceSummary], most: int) -> Grid:
    """One row a source that was read to its end, with its hash."""
    rows = [
        (
            place(s.source),
            f"{s.rows:,}",
            f"{s.rejected_rows:,}",
            shorten(strip_unsafe(s.format), _CELL)[0],
            shorten(strip_unsafe(s.schema), _CELL)[0],
            summary.size(s.size_bytes),
            shorten(strip_unsafe(s.sha256), 64)[0],
        )
        for s in sources[:most]
    ]
    heads = ("source", "rows", "rejected", "format", "schema", "size", "sha256 of the stored bytes")
    hidden = left_out(len(sources) - most, "source")
    return Grid(heads, tuple(rows), hidden, frozenset({3, 4, 6}))


def provenance(result: ScanResult) -> list[tuple[str, str]]:
    """What the verdicts rest on beside the sources, with whole hashes."""
    library, model = result.library, result.model
    read_with = "no model"
    if model is not None:
        read_with = (
            f"{place(model.name)} ({place(model.family)}, {place(model.dtype)}), weights sha256 "
            f"{place(model.weights_sha256)}, tokenizer sha256 {place(model.tokenizer_sha256)}"
        )
    detectors = ", ".join(f"{short_code(d.code)} {name(d.name)}" for d in result.detectors)
    return [
        ("compared with", sentence(result.baseline) or summary.UNDEFINED),
        (
            "library",
            f"{place(library.name)} ({summary.plural(library.concepts, 'concept')}, "
            f"{summary.plural(library.decoys, 'decoy')}), sha256 {place(library.content_sha256)}",
        ),
        ("library of", f"{place(library.model_name)}, sha256 {place(library.model_sha256)}"),
        ("rows read with", read_with),
        ("detectors", detectors or summary.UNDEFINED),
        ("false discovery rate", f"{result.false_discovery_rate:g}"),
        ("tool", f"subliminal-audit {place(result.tool_version)}"),
    ]


# Several data sets


def listed_concepts(scan: NamedScan, most: int = 12) -> tuple[str, str]:
    """Names of the flagged concepts that count, and of those that are accepted."""
    held: list[str] = []
    accepted: list[str] = []
    acceptance = Acceptance(scan)
    for concept in scan.result.concepts:
        if concept.verdict is Verdict.FLAGGED:
            (accepted if acceptance.is_accepted(concept) else held).append(concept.concept)
    return _names(held, most), _names(accepted, most)


def outcome_words(scan: NamedScan) -> str:
    """The outcome of one data set; where every flag is accepted it says so."""
    words = summary.verdict_words(scan.result).lower()
    if Acceptance(scan).is_whole:
        return words.replace("flagged", "flagged, all accepted")
    return words


def outcome_counts(scans: Iterable[NamedScan]) -> str:
    """``3 flagged · 1 incomplete``: data sets by outcome, most frequent first."""
    counts = Counter(map(outcome_words, scans))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return " · ".join(f"{count:,} {words}" for words, count in ranked)
