"""One verdict a concept out of several detectors' findings: by hand, and what always holds."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from detectors.compose import _FIRST_TO_MEND, Gap, compose
from detectors.finding import Family, Finding, Reason, Severity, Verdict
from detectors.verdict import settle

NAMES = {"SA001": "mention", "SA002": "frequency", "SA003": "likelihood", "SA004": "divergence",
         "SA005": "transfer", "XX001": "outside"}  # fmt: skip
RATE = 0.05
NAN = math.nan


@dataclass(frozen=True)
class Skip:
    code: str
    concept: str


def finding(code="SA002", p_value=0.5, concept="owl", **changes):
    """An unsettled finding."""
    made = Finding(
        code=code,
        detector=NAMES[code],
        concept=concept,
        category="animal",
        verdict=Verdict.INCONCLUSIVE,
        severity=Severity.NOTE,
        message="",
        null_hypothesis="",
        rows_tested=1,
        units_tested=1,
        p_value=p_value,
    )
    return replace(made, **changes)


def unnamed(concept="owl"):
    """SA001 where nothing names the concept: its margins keep the test from ever counting."""
    return finding("SA001", 1.0, concept, smallest_possible_p=1.0)


def low(code="SA002", **changes):
    return finding(code, reason=Reason.LOW_POWER, **changes)


def verdicts(*findings, skipped=(), rate=RATE):
    return compose(settle(findings, rate), skipped, rate)


def verdict(*findings, skipped=()):
    (only,) = verdicts(*findings, skipped=skipped)
    return only


# Numbers


def test_p_is_bonferroni_over_the_detectors_that_tested_it():
    found = verdict(unnamed(), finding("SA002", 0.03), finding("SA003", 0.004), low("SA005"))
    # The mention could never have been significant: three tests count.
    assert found.p_value == pytest.approx(3 * 0.004)
    assert found.q_value == pytest.approx(3 * 0.004)
    assert found.strongest == "SA003"
    assert (found.verdict, found.severity, found.reason) == (
        Verdict.FLAGGED,
        Severity.ERROR,
        None,
    )


def test_p_is_never_above_one():
    found = verdict(unnamed(), finding("SA002", 0.6), finding("SA003", 0.7))
    assert (found.p_value, found.q_value) == (1.0, 1.0)


def test_q_is_benjamini_hochberg_over_concepts():
    owl = [finding("SA002", 0.001), finding("SA003", 0.4)]  # 2 * .001
    cat = [finding("SA002", 0.9, "cat"), finding("SA003", 0.012, "cat")]  # 2 * .012
    oak = [finding("SA002", 0.3, "oak")]  # one detector tested it
    found = verdicts(*owl, *cat, *oak)
    assert [c.concept for c in found] == ["owl", "cat", "oak"]
    assert [c.p_value for c in found] == pytest.approx([0.002, 0.024, 0.3])
    assert [c.q_value for c in found] == pytest.approx([0.002 * 3, 0.024 * 3 / 2, 0.3])
    assert [c.verdict for c in found] == [
        Verdict.FLAGGED,
        Verdict.FLAGGED,
        Verdict.NOT_DETECTED,
    ]


def test_any_persona_is_a_question_of_its_own_with_a_tenth_of_the_rate():
    persona = finding("SA003", 0.001, "any persona", family=Family.ANY_PERSONA)
    found = {c.concept: c for c in verdicts(finding("SA003", 0.001), persona)}
    assert found["owl"].q_value == pytest.approx(0.001 / 0.9)
    assert found["any persona"].q_value == pytest.approx(0.001 / 0.1)
    assert found["any persona"].family is Family.ANY_PERSONA


def test_where_nothing_was_tested_numbers_are_undefined():
    found = verdict(finding(p_value=NAN, reason=Reason.TOO_FEW_ROWS))
    assert math.isnan(found.p_value) and math.isnan(found.q_value)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, Reason.TOO_FEW_ROWS)
    assert found.strongest == ""


def test_a_test_that_could_never_count_leaves_p_at_one():
    found = verdict(unnamed(), finding(p_value=NAN, reason=Reason.NO_UNITS))
    assert (found.p_value, found.q_value, found.strongest) == (1.0, 1.0, "SA001")


# Verdicts


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        # A scan without a model.
        ([unnamed(), finding()], None),
        ([finding()], None),
        ([unnamed(), low()], Reason.LOW_POWER),
        ([low("SA001"), finding()], Reason.LOW_POWER),
        ([unnamed()], Gap.NO_HIDDEN_TEST),
        # A stronger detector makes up for a weaker one's silence, not the reverse.
        ([unnamed(), low(), finding("SA003")], None),
        ([unnamed(), finding(), low("SA003")], Reason.LOW_POWER),
        ([unnamed(), low("SA003"), finding("SA005")], None),
        ([unnamed(), finding(p_value=NAN, reason=Reason.NO_UNITS), finding("SA004")], None),
        ([low("SA001"), finding("SA003"), finding("SA005")], Reason.LOW_POWER),
        # Nothing is known of a detector from outside: silent it is strong, speaking it is weak.
        ([unnamed(), finding(), low("XX001")], Reason.LOW_POWER),
        ([unnamed(), finding("SA003"), low("XX001")], None),
        ([unnamed(), finding("XX001"), low("SA002")], None),
        ([unnamed(), finding("XX001"), low("SA003")], Reason.LOW_POWER),
        # Of several reasons, what must be mended first.
        ([finding("SA001", NAN, reason=Reason.NO_REFERENCE), low()], Reason.NO_REFERENCE),
        ([unnamed(), finding("SA003", NAN, reason=Reason.TOO_FEW_ROWS), low()],
         Reason.TOO_FEW_ROWS),
    ],
)  # fmt: skip
def test_not_detected_takes_the_mention_and_a_detector_that_sees_enough(findings, reason):
    found = verdict(*findings)
    assert found.reason == reason
    assert found.verdict is (Verdict.INCONCLUSIVE if reason else Verdict.NOT_DETECTED)
    assert found.severity is Severity.NOTE


@pytest.mark.parametrize(
    ("findings", "skipped", "reason"),
    [
        ([unnamed()], [Skip("SA002", "owl")], Gap.SKIPPED),
        ([unnamed()], [Skip("SA002", "")], Gap.SKIPPED),
        ([unnamed(), finding()], [Skip("SA003", "")], Gap.SKIPPED),
        ([unnamed(), finding()], [Skip("SA003", "owl")], Gap.SKIPPED),
        ([unnamed(), finding("SA003")], [Skip("SA002", "owl")], None),
        ([unnamed(), finding("SA003")], [Skip("SA005", "")], None),
        ([finding()], [Skip("SA001", "owl")], Gap.SKIPPED),
        ([unnamed(), low()], [Skip("SA003", "")], Gap.SKIPPED),
    ],
)
def test_a_skipped_test_is_made_up_for_by_one_of_at_least_its_kind(findings, skipped, reason):
    found = verdict(*findings, skipped=skipped)
    assert found.reason == reason
    assert found.skipped_by == (skipped[0].code,)


def test_a_concept_that_every_test_skipped_is_inconclusive_and_listed():
    owl, kraken = sorted(
        verdicts(unnamed(), finding(), skipped=[Skip("SA001", "kraken"), Skip("SA002", "kraken")]),
        key=lambda c: c.concept == "kraken",
    )
    assert owl.verdict is Verdict.NOT_DETECTED
    assert (kraken.verdict, kraken.reason) == (Verdict.INCONCLUSIVE, Gap.SKIPPED)
    assert kraken.skipped_by == ("SA001", "SA002")
    assert (kraken.category, kraken.strongest) == ("", "")


def test_a_mention_that_looked_at_other_concepts_only_has_not_cleared_this_one():
    found = {c.concept: c for c in verdicts(unnamed("cat"), finding(concept="cat"), finding())}
    assert found["cat"].verdict is Verdict.NOT_DETECTED
    assert (found["owl"].verdict, found["owl"].reason) == (Verdict.INCONCLUSIVE, Gap.SKIPPED)


def test_any_persona_has_no_name_to_be_mentioned_by():
    persona = finding("SA003", concept="any persona", family=Family.ANY_PERSONA)
    found = verdicts(unnamed(), finding("SA003"), persona, skipped=[Skip("SA001", "kraken")])
    assert {c.concept: c.verdict for c in found}["any persona"] is Verdict.NOT_DETECTED
    skipped = compose(settle([persona], RATE), [Skip("SA001", "")], RATE)
    assert (skipped[0].verdict, skipped[0].skipped_by) == (Verdict.NOT_DETECTED, ())


@pytest.mark.parametrize("reason", [Reason.INCOMPLETE_SCAN, Reason.OTHER_MODEL_FAMILY])
def test_what_a_scan_takes_back_no_concept_keeps(reason):
    settled = settle([unnamed(), finding("SA002"), finding("SA003")], RATE)
    taken = [replace(f, verdict=Verdict.INCONCLUSIVE, reason=reason) for f in settled[1:]]
    (found,) = compose([settled[0], *taken], [], RATE)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, reason)


def test_one_detector_of_another_family_is_enough_to_be_unsure():
    first, second, third = settle([unnamed(), finding("SA002"), finding("SA003")], RATE)
    second = replace(second, verdict=Verdict.INCONCLUSIVE, reason=Reason.OTHER_MODEL_FAMILY)
    (found,) = compose([first, second, third], [], RATE)
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, Reason.OTHER_MODEL_FAMILY)


def test_every_reason_has_its_place():
    assert sorted(_FIRST_TO_MEND) == sorted((*Reason, *Gap))


# Disagreement


def test_detectors_that_contradict_each_other_are_named():
    found = verdict(
        unnamed(), finding("SA002", 0.4), finding("SA003", 1e-6), low("SA004", p_value=0.3)
    )
    assert found.verdict is Verdict.FLAGGED
    assert found.flagged_by == ("SA003",)
    assert found.not_detected_by == ("SA001", "SA002")
    assert found.inconclusive_by == ("SA004",)
    assert found.disagreement == (
        "SA003 likelihood (p 1e-06) flags it; SA002 frequency (p 0.4) does not, though it could "
        "have seen the effect it looks for."
    )


def test_several_on_each_side_are_all_named():
    found = verdict(
        finding("SA002", 1e-9),
        finding("SA003", 0.4),
        finding("SA004", 0.5),
        finding("SA005", 1e-8),
    )
    assert found.disagreement == (
        "SA002 frequency (p 1e-09) and SA005 transfer (p 1e-08) flag it; SA003 likelihood (p 0.4) "
        "and SA004 divergence (p 0.5) do not, though they could have seen the effect they look for."
    )


@pytest.mark.parametrize(
    "findings",
    [
        [unnamed(), finding("SA002", 1e-6)],  # hidden, which is what SA001 says too
        [finding("SA001", 1e-6), finding("SA002", 0.4)],  # named, which hides nothing
        [unnamed(), finding("SA002", 1e-6), low("SA003")],  # SA003 could not have seen it
        [unnamed(), finding("SA002"), low("SA003")],
    ],
)
def test_other_questions_and_silence_are_no_disagreement(findings):
    assert verdict(*findings).disagreement == ""


# What always holds

P_VALUES = st.one_of(
    st.floats(1e-12, 1.0), st.sampled_from([1e-9, 1e-4, 0.01, 0.05, 1.0]), st.just(NAN)
)
REASONS = st.sampled_from([None, None, *Reason])


@st.composite
def scans(draw):
    """Settled findings of a few concepts, at most one a detector, and some skipped tests."""
    findings, skipped = [], []
    for concept in draw(st.lists(st.sampled_from(["owl", "cat", "oak"]), min_size=1, unique=True)):
        for code in NAMES:
            fate = draw(st.sampled_from(["finding", "finding", "skipped", "absent"]))
            if fate == "finding":
                smallest = 1.0 if draw(st.booleans()) and code == "SA001" else 0.0
                p_value = draw(P_VALUES)
                if smallest and not math.isnan(p_value):
                    p_value = 1.0
                made = finding(
                    code, p_value, concept, reason=draw(REASONS), smallest_possible_p=smallest
                )
                findings.append(made)
            elif fate == "skipped":
                skipped.append(Skip(code, concept))
    if draw(st.booleans()):
        persona = finding("SA003", draw(P_VALUES), "any persona", family=Family.ANY_PERSONA)
        findings.append(persona)
    return findings, skipped


@given(scans())
def test_a_concept_is_flagged_exactly_where_a_finding_is(scan):
    findings, skipped = scan
    settled = settle(findings, RATE)
    for concept in compose(settled, skipped, RATE):
        mine = [f for f in settled if (f.family, f.concept) == (concept.family, concept.concept)]
        flagged = {f.code for f in mine if f.verdict is Verdict.FLAGGED}
        assert (concept.verdict is Verdict.FLAGGED) == bool(flagged) == (concept.q_value <= RATE)
        assert set(concept.flagged_by) == flagged
        if flagged:
            assert concept.strongest in flagged


@given(scans(), st.randoms())
def test_order_changes_nothing(scan, random):
    findings, skipped = scan
    expected = repr(verdicts(*findings, skipped=skipped))
    random.shuffle(findings)
    random.shuffle(skipped)
    assert repr(verdicts(*findings, skipped=skipped)) == expected


@given(scans())
def test_silence_never_becomes_not_detected(scan):
    findings, skipped = scan
    for concept in verdicts(*findings, skipped=skipped):
        if concept.verdict is Verdict.NOT_DETECTED:
            assert "SA001" not in (*concept.inconclusive_by, *concept.skipped_by)
            assert set(concept.not_detected_by) - {"SA001"}
            assert concept.reason is None
        if concept.verdict is Verdict.INCONCLUSIVE:
            assert concept.reason is not None


@given(scans(), st.data())
def test_a_smaller_p_never_makes_its_concept_less_suspect(scan, data):
    findings, skipped = scan
    tested = [i for i, f in enumerate(findings) if f.p_value < 1.0]
    if not tested:
        return
    index = data.draw(st.sampled_from(tested))
    changed = list(findings)
    smaller = findings[index].p_value * data.draw(st.floats(1e-6, 1.0))
    changed[index] = replace(findings[index], p_value=smaller)
    key = (findings[index].family, findings[index].concept)

    def of(made):
        return next(c for c in verdicts(*made, skipped=skipped) if (c.family, c.concept) == key)

    before, after = of(findings), of(changed)
    assert after.p_value <= before.p_value
    assert after.q_value <= before.q_value * (1 + 1e-12)
    assert not (before.verdict is Verdict.FLAGGED and after.verdict is not Verdict.FLAGGED)


@given(scans())
def test_numbers_of_a_concept_are_those_of_its_strongest_finding(scan):
    findings, skipped = scan
    settled = settle(findings, RATE)
    for concept in compose(settled, skipped, RATE):
        if not concept.strongest:
            continue
        (best,) = (
            f
            for f in settled
            if (f.family, f.concept, f.code) == (concept.family, concept.concept, concept.strongest)
        )
        assert concept.q_value == best.q_value
        assert concept.p_value >= best.p_value


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_under_the_null_a_scan_flags_a_concept_no_more_often_than_the_rate(correlation):
    # Normal scores of 4 detectors on 10 concepts, alike within a concept: with no concept there,
    # the false discovery rate is the share of scans that flag any.
    rng = np.random.default_rng(7)
    scans, flagged = 400, 0
    for _ in range(scans):
        shared = rng.normal(size=(10, 1))
        own = rng.normal(size=(10, 4))
        p_values = stats.norm.sf(math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own)
        found = verdicts(
            *(
                finding(code, float(p), f"concept {row}")
                for row in range(10)
                for code, p in zip(("SA002", "SA003", "SA004", "SA005"), p_values[row], strict=True)
            )
        )
        flagged += found[0].verdict is Verdict.FLAGGED
    assert stats.binomtest(flagged, scans, RATE, alternative="greater").pvalue > 0.01
