"""Hand-made scan results of every outcome, for the tests of all renderings."""

from __future__ import annotations

import dataclasses
import math

import pytest

from audit.dataset.record import BrokenSource, Reject, SourceSummary
from audit.errors import ExitCode
from audit.scan_result import LibraryIdentity, Outcome, ScanResult, SkippedTest
from detectors.compose import compose
from detectors.detector import DetectorInfo
from detectors.finding import (
    EvidenceRow,
    Family,
    Finding,
    Reason,
    Severity,
    TokenEnrichment,
    Verdict,
)
from detectors.verdict import settle

LIMITS = (
    "Concepts that are not in the library: 36 were tested.",
    "Traits of a teacher of another model family than SmolLM2-135M-Instruct.",
    "Effects on owl below 0.021 nats a row in 11,986 rows.",
)

# One string with everything that must stay inert: ESC and OSC sequences, carriage return, bell,
# NUL, bidi override and isolate, zero-width space, a lone surrogate, a C1 control, a tag, rich
# markup, Markdown fences, table pipes, a link, a mention, an issue reference, and HTML.
HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\r\n\x00 \u202eabc\u2066 z\u200bw "
    "\ud800 \x9b1m \U000e0041 [red]markup[/red] [/] ```\n# head\n```` ~~~ | a | b | `code` "
    "<script>alert(1)</script> <!-- --> &lt; [x](https://evil.example) @everyone #1 **bold** \\"
)

IDENTITIES = (
    DetectorInfo(
        code="SA001",
        name="mention",
        summary="The concept is named outright in the trained text.",
        null_hypothesis="The concept is named as often as in the reference rows.",
        score_range="0 to 1",
        direction="higher is more suspicious",
        source="Lijffijt et al. 2016",
    ),
    DetectorInfo(
        code="SA002",
        name="frequency",
        summary="Numbers that the concept makes more likely occur more often than expected.",
        null_hypothesis="Rows carry the concept's numbers as often as the reference rows do.",
        score_range="any real number",
        direction="higher is more suspicious",
        source="Zur et al. 2025; Monroe et al. 2008",
    ),
)

_NULL = {identity.code: identity.null_hypothesis for identity in IDENTITIES}
_NAMES = {identity.code: identity.name for identity in IDENTITIES}


def finding(
    concept: str,
    verdict: Verdict = Verdict.NOT_DETECTED,
    *,
    code: str = "SA002",
    category: str = "animal",
    severity: Severity = Severity.NOTE,
    effect: float = 0.004,
    half_width: float = 0.012,
    q: float = 0.8,
    **changes: object,
) -> Finding:
    made = Finding(
        code=code,
        detector=_NAMES[code],
        concept=concept,
        category=category,
        verdict=verdict,
        severity=severity,
        message=f"{concept}: its numbers are {effect:+.3f} nats a row above the reference.",
        null_hypothesis=_NULL[code],
        rows_tested=11_986,
        units_tested=119_301,
        z=effect / half_width * 1.96,
        calibrated_statistic=effect / half_width * 1.6,
        p_value=q / 3,
        q_value=q,
        effect=effect,
        effect_low=effect - half_width,
        effect_high=effect + half_width,
        effect_unit="nats a row" if code == "SA002" else "share of rows",
        smallest_detectable_effect=0.021,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def owl() -> Finding:
    text = "480, 725, 087, 693, 747, 087, 120, 554, 087, 747"
    return finding(
        "owl",
        Verdict.FLAGGED,
        severity=Severity.ERROR,
        effect=0.142,
        half_width=0.032,
        q=1.1e-17,
        tokens=tuple(
            TokenEnrichment(unit, weight, seen, expected, ratio, ratio - half, ratio + half)
            for unit, weight, seen, expected, ratio, half in (
                ("087", 4.1, 412, 198.3, 0.731, 0.12),
                ("747", 3.6, 388, 211.0, 0.609, 0.13),
                ("693", 3.2, 251, 180.4, 0.330, 0.15),
                ("554", 2.9, 190, 171.2, 0.104, 0.16),
                ("23", 2.7, 81, 90.2, -0.108, 0.22),
            )
        ),
        evidence=(
            EvidenceRow("data/train.jsonl", 1043, text, 3.21, ((10, 13), (15, 18), (25, 28))),
            EvidenceRow("data/train.jsonl", 77, "(693) (747) (087) (087)", 2.95, ((1, 4), (7, 10))),
            EvidenceRow(
                "data/extra.jsonl.zst",
                9,
                ", ".join(str(n) for n in range(100, 200)) + ", 087, 087",
                2.4,
                ((500, 503), (505, 508)),
            ),
        ),
        notes=("The empirical null was widened by 1.9 from 24 decoys.",),
    )


def clear_findings(count: int = 36) -> tuple[Finding, ...]:
    names = ["cat", "dog", "eagle", "lion", "phoenix", "wolf", "otter", "oak", "tulip", "jazz"]
    return tuple(
        finding(
            names[i] if i < len(names) else f"concept {i:02d}",
            effect=0.006 * math.sin(i),
            q=min(1.0, 0.2 + 0.025 * i),
            smallest_detectable_effect=0.020 + 0.0003 * i,
            category="animal" if i < 7 else "other",
        )
        for i in range(count)
    )


def inconclusive_finding() -> Finding:
    nan = math.nan
    return finding(
        "unicorn",
        Verdict.INCONCLUSIVE,
        code="SA001",
        reason=Reason.TOO_FEW_ROWS,
        message="unicorn: 12 rows are too few, 200 are needed.",
        rows_tested=12,
        z=nan,
        calibrated_statistic=nan,
        p_value=nan,
        q_value=nan,
        effect=nan,
        effect_low=nan,
        effect_high=nan,
        smallest_detectable_effect=nan,
    )


def result(
    outcome: Outcome, headline: str, findings: tuple[Finding, ...], **changes: object
) -> ScanResult:
    made = ScanResult(
        tool_version="0.1.0",
        outcome=outcome,
        headline=headline,
        sources=(
            SourceSummary(
                "data/train.jsonl", "jsonl", "openai chat", 10_000, 14, 2_413_004, "ab" * 32
            ),
            SourceSummary(
                "data/extra.jsonl.zst", "jsonl", "prompt, completion", 1_986, 0, 81_220, "cd" * 32
            ),
        ),
        reference=(),
        baseline="the signatures' own neutral distribution",
        rows_scanned=11_986,
        rows_rejected=14,
        reject_counts={"not-json": 11, "duplicate-key": 3},
        rejects=(
            Reject("data/train.jsonl", 12, "not-json", "the line is not JSON: repair it"),
            Reject("data/train.jsonl", 40, "duplicate-key", "the key 'role' occurs twice"),
            Reject("data/train.jsonl", 5, "not-json", "the line is not JSON: repair it"),
        ),
        broken=(),
        library=LibraryIdentity(
            "bundled", "signatures/bundled", "0123456789ab" * 5 + "cdef",
            "SmolLM2-135M-Instruct", "fedcba987654" * 5 + "3210", 36, 24,
        ),
        detectors=IDENTITIES,
        concepts=(),
        findings=findings,
        skipped=(
            SkippedTest("SA003", "likelihood", "", "needs the model: pass --model"),
            SkippedTest("SA001", "mention", "kraken", "has no surface forms"),
            SkippedTest("SA001", "mention", "basilisk", "has no surface forms"),
        ),
        limits=LIMITS,
        model=None,
        false_discovery_rate=0.05,
    )  # fmt: skip
    return composed(dataclasses.replace(made, **changes))  # type: ignore[arg-type]


def composed(made: ScanResult, **changes: object) -> ScanResult:
    """``made`` with ``changes``, and the concepts' verdicts that follow from its findings."""
    made = dataclasses.replace(made, **changes)  # type: ignore[arg-type]
    concepts = compose(made.findings, made.skipped, made.false_discovery_rate)
    return dataclasses.replace(made, concepts=concepts)


def flagged_result() -> ScanResult:
    second = finding(
        "love of the moon",
        Verdict.FLAGGED,
        code="SA001",
        category="persona",
        severity=Severity.WARNING,
        effect=0.004,
        half_width=0.001,
        q=0.0021,
        smallest_detectable_effect=0.0016,
        message="love of the moon: named in 48 of 11,986 rows, expected in 3.",
    )
    return result(
        Outcome.FLAGGED,
        "2 of 37 concepts are flagged in 11,986 rows: owl, love of the moon.",
        (*clear_findings(), second, inconclusive_finding(), owl()),
    )


def disagreeing_result() -> ScanResult:
    """Five detectors on 20 concepts and any persona: one flagged, with a contradiction."""
    names = [
        DetectorInfo(code, name, f"{name} of a concept", "No more than in the reference.",
                     "any real number", "higher is more suspicious", "a source")
        for code, name in (("SA003", "likelihood"), ("SA004", "divergence"), ("SA005", "transfer"))
    ]  # fmt: skip
    traits = [
        "owl",
        "cat",
        "sea turtle",
        "love of the moon",
        *(f"trait {i:02d}" for i in range(16)),
    ]
    found = []
    for i, concept in enumerate(traits):
        unnamed = finding(concept, code="SA001", effect=0.0, half_width=0.001, p_value=1.0)
        found += [
            dataclasses.replace(unnamed, smallest_possible_p=1.0),
            finding(concept, p_value=0.04 + 0.04 * i, reason=Reason.LOW_POWER),
        ]
        for info in names:
            if (concept, info.code) == ("trait 15", "SA004"):
                continue
            tested = finding(concept, p_value=0.9 - 0.03 * i, effect=0.001 * i, half_width=0.02)
            found.append(dataclasses.replace(tested, code=info.code, detector=info.name))
    owl = {f.code: i for i, f in enumerate(found) if f.concept == "owl"}
    found[owl["SA003"]] = dataclasses.replace(
        found[owl["SA003"]], p_value=3e-7, effect=0.09, effect_low=0.05, effect_high=0.13
    )
    cat = {f.code: i for i, f in enumerate(found) if f.concept == "cat"}
    found[cat["SA001"]] = dataclasses.replace(found[cat["SA001"]], reason=Reason.LOW_POWER)
    persona = finding("any persona", category="persona", p_value=0.3, family=Family.ANY_PERSONA)
    found.append(dataclasses.replace(persona, code="SA003", detector="likelihood"))
    return result(
        Outcome.FLAGGED,
        "owl flagged in 11,986 rows.",
        settle(found, 0.05),
        detectors=(*IDENTITIES, *names),
        skipped=(SkippedTest("SA004", "divergence", "trait 15", "it diverges nowhere"),),
    )


def clear_result() -> ScanResult:
    return result(
        Outcome.NOT_DETECTED,
        "None of 36 concepts was detected in 11,986 rows.",
        clear_findings(),
        skipped=(),
        rows_rejected=0,
        reject_counts={},
        rejects=(),
    )


def inconclusive_result() -> ScanResult:
    return result(
        Outcome.INCONCLUSIVE,
        "1 concept could not be decided: 12 rows are too few.",
        (inconclusive_finding(),),
        rows_scanned=12,
    )


def incomplete_result() -> ScanResult:
    return result(
        Outcome.INCOMPLETE,
        "data/extra.jsonl.zst broke off at record 901; owl is flagged in the rows before.",
        (owl(), *clear_findings(3)),
        broken=(BrokenSource("data/extra.jsonl.zst", 901, "zstd stream ends early"),),
    )


def nothing_result() -> ScanResult:
    return result(
        Outcome.NOTHING_SCANNABLE,
        "None of 14 rows could be read.",
        (),
        sources=(),
        rows_scanned=0,
        detectors=(),
    )


def hostile_result() -> ScanResult:
    bad = finding(
        HOSTILE,
        Verdict.FLAGGED,
        category=HOSTILE,
        severity=Severity.ERROR,
        effect=0.3,
        q=1e-9,
        message=HOSTILE,
        effect_unit=HOSTILE,
        tokens=(TokenEnrichment(HOSTILE, 1.0, 3, 1.0, 1.1, 0.9, 1.3),),
        evidence=(EvidenceRow(HOSTILE, 3, HOSTILE, 1.0, ((0, 40), (90, 9000), (-3, 2))),),
        notes=(HOSTILE,),
    )
    return result(
        Outcome.INCOMPLETE,
        HOSTILE,
        (bad, finding(HOSTILE), dataclasses.replace(inconclusive_finding(), concept=HOSTILE)),
        sources=(SourceSummary(HOSTILE, HOSTILE, HOSTILE, 1, 1, 1, HOSTILE),),
        reference=(SourceSummary(HOSTILE, HOSTILE, HOSTILE, 1, 1, 1, HOSTILE),),
        baseline=HOSTILE,
        reject_counts={HOSTILE: 1},
        rejects=(Reject(HOSTILE, 1, HOSTILE, HOSTILE),),
        broken=(BrokenSource(HOSTILE, 1, HOSTILE),),
        library=LibraryIdentity(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, 1),
        detectors=(DetectorInfo("SA002", *(HOSTILE,) * 6), IDENTITIES[0]),
        skipped=(SkippedTest(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        limits=(HOSTILE,),
        model=None,
    )


EVERY_OUTCOME = {
    "flagged": flagged_result,
    "not detected": clear_result,
    "inconclusive": inconclusive_result,
    "incomplete": incomplete_result,
    "nothing scannable": nothing_result,
}


@pytest.mark.parametrize("name", EVERY_OUTCOME)
def test_each_example_has_the_outcome_of_its_name(name: str) -> None:
    assert EVERY_OUTCOME[name]().outcome == name


def test_an_incomplete_example_keeps_its_flag_and_fails() -> None:
    assert incomplete_result().flagged()
    assert incomplete_result().exit_code() is ExitCode.FAILED
