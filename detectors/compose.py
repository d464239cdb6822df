"""One verdict a concept, out of what every detector says of it.

Two questions meet here. SA001 asks whether a concept is named outright; every other detector
whether it is there without being named. A trait is hidden exactly where the second finds what the
first does not, so those two never contradict each other; two detectors of hidden traits may.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from detectors.finding import NAN, Family, Finding, Reason, Severity, Verdict
from detectors.verdict import could_be_significant

MENTION = "SA001"

_MODEL_FREE, _MODEL_BASED = 1, 2
_KINDS = {
    MENTION: 0,  # sees no hidden trait
    "SA002": _MODEL_FREE,
    "SA003": _MODEL_BASED,
    "SA004": _MODEL_BASED,
    "SA005": _MODEL_BASED,
}
"""How much a detector can see, by kind. A detector from outside is not known: where it is silent
it counts as the strongest kind, where it speaks as the weakest that sees hidden traits."""


class Gap(enum.StrEnum):
    """Why a concept is undecided although no test of it says so. Stable codes, like `Reason`."""

    SKIPPED = "a test was skipped"
    NO_HIDDEN_TEST = "no test of hidden traits"


_FIRST_TO_MEND = (
    Reason.INCOMPLETE_SCAN,
    Reason.OTHER_MODEL_FAMILY,
    Reason.TOO_FEW_ROWS,
    Reason.NO_REFERENCE,
    Reason.NO_DECOYS,
    Reason.NO_UNITS,
    Gap.SKIPPED,
    Gap.NO_HIDDEN_TEST,
    Reason.LOW_POWER,
    Reason.UNREAD_ROWS,
    Reason.UNREAD_COLUMNS,
)
"""Of several reasons the one named: the others matter only once it is mended."""

_UNREAD = (Reason.UNREAD_ROWS, Reason.UNREAD_COLUMNS)


class SkippedConcept(Protocol):
    """A detector that did not test a concept, or, with an empty ``concept``, any concept."""

    @property
    def code(self) -> str:
        """The detector."""
        ...

    @property
    def concept(self) -> str:
        """The concept; empty for all of them."""
        ...


@dataclass(frozen=True, slots=True)
class ConceptVerdict:
    """What all detectors together say of one concept.

    ``p_value`` is Bonferroni's over the k detectors whose test could have come out significant,
    min(1, k * min p): they saw the same rows, and that holds under any dependence. ``q_value`` is
    its Benjamini-Hochberg adjustment over the concepts of the ``family``, over the family's share
    of the rate (`detectors.verdict.settle`). Both are NaN where nothing could be tested.
    ``strongest`` is the detector with the least p, "" without one. ``flagged_by`` to
    ``skipped_by`` are the codes of all detectors, each sorted. ``reason`` says why the verdict is
    inconclusive, ``disagreement`` in one sentence which detectors of hidden traits contradict
    each other, "" if none do.
    """

    concept: str
    category: str
    family: Family
    verdict: Verdict
    severity: Severity
    reason: Reason | Gap | None
    p_value: float
    q_value: float
    strongest: str
    flagged_by: tuple[str, ...]
    not_detected_by: tuple[str, ...]
    inconclusive_by: tuple[str, ...]
    skipped_by: tuple[str, ...]
    disagreement: str


def compose(
    findings: Iterable[Finding],
    skipped: Iterable[SkippedConcept],
    false_discovery_rate: float,
) -> tuple[ConceptVerdict, ...]:
    """One verdict a concept: flagged first, then inconclusive, then not detected, by rising q.

    ``findings`` are settled at the same rate (`detectors.verdict.settle`). A concept is

    - flagged where its q is at or below the rate, which is where one of its findings is flagged;
    - else not detected, if SA001 (where it ran) and a detector of hidden traits both say so, and
      the silence of every other one, skipped or inconclusive, is made up for by one of at least
      its kind that says so (SA002 is model-free; SA003 to SA005 are model-based and see more).
      Of another model's family, and in a scan that broke off or left text unread, no such finding
      is "not detected", and so no concept is;
    - else inconclusive.

    The order of ``findings`` and ``skipped`` changes nothing.
    """
    by_concept: dict[tuple[Family, str], list[Finding]] = {}
    for finding in findings:
        by_concept.setdefault((finding.family, finding.concept), []).append(finding)
    skipped_by: dict[str, set[str]] = {}
    for test in skipped:
        skipped_by.setdefault(test.concept, set()).add(test.code)
    named = {name for _, name in by_concept} | {""}
    for name in skipped_by.keys() - named:
        by_concept[Family.WHICH_CONCEPT, name] = []
    codes = {f.code for group in by_concept.values() for f in group}.union(*skipped_by.values())
    verdicts = []
    for (family, name), group in by_concept.items():
        # No name stands for every persona: SA001 has nothing to say of it.
        named_outright = family is not Family.ANY_PERSONA
        silent = skipped_by.get("", set()) | skipped_by.get(name, set())
        verdicts.append(
            _verdict(
                family,
                name,
                sorted(group, key=lambda f: (f.code, f.category, f.message)),
                silent if named_outright else silent - {MENTION},
                mention_must_speak=named_outright and MENTION in codes,
                rate=false_discovery_rate,
            )
        )
    return tuple(sorted(verdicts, key=_order))


_VERDICT_ORDER = (Verdict.FLAGGED, Verdict.INCONCLUSIVE, Verdict.NOT_DETECTED)


def _order(v: ConceptVerdict) -> tuple[int, bool, float, float, str, str]:
    undefined = math.isnan(v.q_value)
    numbers = (0.0, 0.0) if undefined else (v.q_value, v.p_value)
    return (_VERDICT_ORDER.index(v.verdict), undefined, *numbers, v.concept, v.family)


def _verdict(
    family: Family,
    name: str,
    findings: Sequence[Finding],
    skipped: set[str],
    *,
    mention_must_speak: bool,
    rate: float,
) -> ConceptVerdict:
    """The verdict on one concept; ``findings`` in an order that does not depend on the scan's."""
    known = [f for f in findings if math.isfinite(f.p_value)]
    counted = [f for f in known if could_be_significant(f, rate)]
    strongest = min(counted or known, key=lambda f: f.p_value, default=None)
    codes = {
        verdict: tuple(sorted({f.code for f in findings if f.verdict is verdict}))
        for verdict in Verdict
    }
    reason = None
    if codes[Verdict.FLAGGED]:
        verdict = Verdict.FLAGGED
    else:
        reason = _reason(findings, skipped, mention_must_speak)
        verdict = Verdict.NOT_DETECTED if reason is None else Verdict.INCONCLUSIVE
    p_value = NAN
    if strongest is not None:
        p_value = min(1.0, len(counted) * strongest.p_value) if counted else 1.0
    return ConceptVerdict(
        concept=name,
        category=findings[0].category if findings else "",
        family=family,
        verdict=verdict,
        severity=max((f.severity for f in findings), key=lambda s: s.rank, default=Severity.NOTE),
        reason=reason,
        p_value=p_value,
        q_value=min((f.q_value for f in known), default=NAN),
        strongest="" if strongest is None else strongest.code,
        flagged_by=codes[Verdict.FLAGGED],
        not_detected_by=codes[Verdict.NOT_DETECTED],
        inconclusive_by=codes[Verdict.INCONCLUSIVE],
        skipped_by=tuple(sorted(skipped)),
        disagreement=_disagreement([f for f in findings if f.code != MENTION]),
    )


def _reason(
    findings: Sequence[Finding], skipped: set[str], mention_must_speak: bool
) -> Reason | Gap | None:
    """Why a concept that nothing flags cannot be called "not detected", or None."""
    silent: list[tuple[str, Reason | Gap]] = [
        (f.code, f.reason or Reason.LOW_POWER)
        for f in findings
        if f.verdict is Verdict.INCONCLUSIVE
    ]
    silent += [(code, Gap.SKIPPED) for code in skipped]
    codes = {f.code for f in findings} | skipped
    if mention_must_speak and MENTION not in codes:
        silent.append((MENTION, Gap.SKIPPED))
    # A test of which only unread text took the verdict back would have spoken for the others too.
    spoke = codes - {code for code, reason in silent if reason not in _UNREAD}
    sees = max((_KINDS.get(code, _MODEL_FREE) for code in spoke), default=0)
    blocking = [
        reason
        for code, reason in silent
        if code == MENTION
        or reason is Reason.OTHER_MODEL_FAMILY
        or reason in _UNREAD
        or _KINDS.get(code, _MODEL_BASED) > sees
    ]
    if not codes - {MENTION}:
        blocking.append(Gap.NO_HIDDEN_TEST)
    return min(blocking, key=_FIRST_TO_MEND.index, default=None)


def _disagreement(findings: Sequence[Finding]) -> str:
    """Which of the detectors of hidden traits flag it, and which could have and do not; or ""."""
    flag = [f for f in findings if f.verdict is Verdict.FLAGGED]
    do_not = [f for f in findings if f.verdict is Verdict.NOT_DETECTED]
    if not flag or not do_not:
        return ""
    one, only = len(flag) == 1, len(do_not) == 1
    return (
        f"{_listed(flag)} {'flags' if one else 'flag'} it; {_listed(do_not)} "
        + ("does not, though it" if only else "do not, though they")
        + " could have seen the effect "
        + ("it looks for." if only else "they look for.")
    )


def _listed(findings: Sequence[Finding]) -> str:
    """``SA003 likelihood (p 1e-06) and SA005 transfer (p 0.002)``."""
    names = [f"{f.code} {f.detector} (p {f.p_value:.2g})" for f in findings]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
