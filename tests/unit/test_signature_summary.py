import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from audit.report.signature_json import to_json
from signatures.causal import CausalTrial, UnitRole
from signatures.concept import ConceptKind, make_concept
from signatures.library import ProbeRecord
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import Probe, ProbeTable, View
from signatures.strength import correlations, own_part, strength, unit_weights
from signatures.summary import (
    CausalVerdict,
    StrengthVerdict,
    find_hubs,
    flat_settings,
    summarise,
)
from tests import synthetic

ROOT = Path(__file__).parent.parent.parent


def table(shift, *, spread=0.5, share=None, view=View.VOCABULARY, units=None, concepts=None):
    shift = np.array(shift, dtype=np.float64)
    count, width = shift.shape
    return ProbeTable(
        view,
        Probe.CONTEXT,
        units or tuple(f"unit{i}" for i in range(width)),
        concepts or tuple("abcdefghijklmnopqrstuvwxyz"[:count]),
        shift,
        np.full(shift.shape, spread),
        np.full(width, np.nan) if share is None else np.array(share, dtype=np.float64),
        np.full(shift.shape, np.nan),
    )


def library(*tables, settings=None, causal=()):
    names = tables[0].concepts
    return replace(
        synthetic.library(),
        concepts=tuple(
            make_concept(
                name, "thing", kind=ConceptKind.DECOY if name == "c" else ConceptKind.TRAIT
            )
            for name in names
        ),
        probes=tuple(ProbeRecord(t.view, t.probe, "by hand", settings or {}) for t in tables),
        tables=tables,
        causal=tuple(causal),
    )


# Four units of equal share. All concepts share 2 x (1, 1, -1, -1); beside it, a has (1, -1, 0, 0),
# b has (0, 0, 1, -1), and c the opposite of both, so that their mean is 0.
SHARED = np.array([2.0, 2.0, -2.0, -2.0])
OWN = np.array([[1.0, -1.0, 0, 0], [0, 0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]])
BY_HAND = table(SHARED + OWN, share=[0.25] * 4)


def test_own_parts_are_what_is_left_of_the_shared_shift() -> None:
    assert own_part(BY_HAND, NumberTokens.SPLIT) == pytest.approx(OWN, abs=1e-12)


def test_own_parts_hold_nothing_of_a_constant_of_the_hub_or_of_number_length() -> None:
    rng = np.random.default_rng(0)
    length = np.array([len(number) for number in NUMBERS])
    shift = rng.normal(size=(4, len(NUMBERS))) + np.outer([1, 2, 3, 4], length)
    numbers = table(shift, view=View.NUMBERS, units=NUMBERS, share=rng.random(len(NUMBERS)))
    weights, _ = unit_weights(numbers)
    own = own_part(numbers, NumberTokens.SPLIT)
    hub = shift.mean(axis=0)
    for shared in (np.ones(len(NUMBERS)), hub, length == 1, length == 2, length == 3):
        assert (own * weights) @ shared == pytest.approx(np.zeros(4), abs=1e-10)


def test_strength_by_hand() -> None:
    found = strength(BY_HAND, own_part(BY_HAND, NumberTokens.SPLIT), None)
    assert found.own_rms_nats == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 1.0])
    assert found.noise_rms_nats == pytest.approx([0.5] * 3)
    # Expected noise variance: 0.25 (1 - 2/3) + 0.25 / 3 = 1/6.
    assert found.signal_to_noise == pytest.approx([3.0, 3.0, 6.0])
    # Products: aa .5, bb .5, cc 1, ab 0, ac -.5, bc -.5; (.25 + .5 + .5) / (0 + .25 + .25).
    assert found.effective_units == pytest.approx(2.5)
    expected = stats.chi2.sf(2.5 * np.array([3.0, 3.0, 6.0]), 2.5)
    assert found.p_value == pytest.approx(expected)
    # Benjamini and Hochberg: the smallest times 3, the others (equal) times 3/3.
    assert found.q_value == pytest.approx([expected[0], expected[0], 3 * expected[2]])


def test_fewer_observations_make_the_noise_less_sure() -> None:
    own = own_part(BY_HAND, NumberTokens.SPLIT)
    few, many = strength(BY_HAND, own, 4), strength(BY_HAND, own, 1000)
    assert (few.p_value > many.p_value).all()
    assert few.p_value == pytest.approx(stats.f.sf([3.0, 3.0, 6.0], 2.5, 7.5))


def test_correlations_by_hand() -> None:
    alike = correlations(BY_HAND, OWN)
    assert alike.diagonal() == pytest.approx([1, 1, 1])
    assert alike[0, 1] == pytest.approx(0)
    assert alike[0, 2] == pytest.approx(-0.5 / math.sqrt(0.5))


def test_shares_weigh_the_units() -> None:
    weighted = table(SHARED + OWN, share=[0.8, 0.2, 0.0, 0.0])
    weights, known = unit_weights(weighted)
    assert known
    assert weights == pytest.approx([0.8, 0.2, 0, 0])
    assert correlations(weighted, OWN)[0, 2] == pytest.approx(-1.0)
    assert math.isnan(correlations(weighted, OWN)[0, 1])  # b has nothing where the weight is


def test_noise_that_is_unknown_or_zero_gives_no_verdict() -> None:
    for spread in (math.nan, 0.0):
        summary = summarise(library(replace(BY_HAND, spread_nats=np.full((3, 4), spread))))
        for concept in summary.concepts:
            assert concept.tables[0].verdict is StrengthVerdict.UNKNOWN
            assert math.isnan(concept.tables[0].signal_to_noise)


def test_one_concept_alone_has_no_own_part() -> None:
    summary = summarise(library(table([[1.0, 2.0, 3.0]])))
    part = summary.concepts[0].tables[0]
    assert math.isnan(part.own_rms_nats)
    assert part.verdict is StrengthVerdict.UNKNOWN
    assert part.nearest == ()
    assert summary.tables[0].hubs == ()


@pytest.mark.parametrize("shared_noise", [0.0, 1.0])
def test_own_parts_of_noise_alone_seldom_stand_above_it(shared_noise: float) -> None:
    """Dependent units, 40 libraries of 20 concepts; independent contexts reach the stated rate."""
    rng = np.random.default_rng(7)
    contexts, units, concepts = 32, 150, 20
    below = 0
    for _ in range(40):
        loadings = rng.normal(size=(3, units)) * rng.exponential(size=(3, 1))

        def noise(*shape: int, loadings: np.ndarray = loadings) -> np.ndarray:
            common = rng.normal(size=(*shape, contexts, 3)) @ loadings
            return common + rng.normal(size=(*shape, contexts, units))

        measured = noise(concepts) + shared_noise * noise() + rng.normal(size=units)
        names = tuple(f"c{i}" for i in range(concepts))
        drawn = table(measured.mean(axis=1), concepts=names, share=rng.dirichlet(np.ones(units)))
        spread = measured.std(axis=1, ddof=1) / math.sqrt(contexts)
        drawn = replace(drawn, spread_nats=spread)
        found = strength(drawn, own_part(drawn, NumberTokens.SPLIT), contexts)
        below += int((found.p_value < 0.05).sum())
    rate = below / (40 * concepts)
    # Concepts of one library are not independent: the bound is wide of the binomial .05 + .015.
    assert rate < 0.08
    assert (rate < 0.02) if shared_noise else (rate > 0.02)


def test_a_real_own_part_stands_above_its_noise() -> None:
    rng = np.random.default_rng(0)
    shift = rng.normal(0, 0.3, (10, 400))
    found = summarise(library(table(shift, spread=0.05), settings={"contexts": 64}))
    assert found.tables[0].observations == 64
    assert found.tables[0].above_noise == 10
    assert found.concepts[0].tables[0].verdict is StrengthVerdict.ABOVE


def test_hubs_are_among_the_ten_largest_of_half_of_the_concepts() -> None:
    shift = np.zeros((4, 200))
    for concept in range(4):
        shift[concept, 20 * concept + 20 : 20 * concept + 30] = 1.0  # ten each of its own
    shift[:, 0] = [5.0, 4.0, 3.0, 2.0]
    shift[:2, 1] = 2.0
    shift[0, 2] = 9.0
    hubs = find_hubs(table(shift))
    assert [(hub.unit, hub.concepts) for hub in hubs] == [("unit0", 4), ("unit1", 2)]
    assert hubs[0].shift_nats == pytest.approx(3.5)


def test_units_know_whether_they_are_hubs() -> None:
    shift = np.zeros((2, 100))
    shift[:, 5] = [3.0, 2.0]
    shift[:, 7:14] = 0.5
    shift[0, 20] = 2.5
    part = summarise(library(table(shift))).concepts[0].tables[0]
    by_unit = {unit.unit: unit for unit in part.top}
    assert [unit.unit for unit in part.top[:2]] == ["unit20", "unit5"]
    assert by_unit["unit5"].is_hub
    assert not by_unit["unit20"].is_hub
    assert by_unit["unit5"].centred_nats == pytest.approx(0.5)
    assert by_unit["unit5"].shift_nats == pytest.approx(3.0)


def test_the_shared_part_by_hand() -> None:
    of_table = summarise(library(BY_HAND)).tables[0]
    assert of_table.shared_rms_nats == pytest.approx(2.0)
    assert of_table.own_rms_nats == pytest.approx(math.sqrt(2 / 3))  # (.5 + .5 + 1) / 3
    assert of_table.shared_fraction == pytest.approx(4 / (4 + 2 / 3))
    assert of_table.noise_rms_nats == pytest.approx(0.5)
    assert of_table.share_weighted


def test_nearest_are_the_most_alike_first() -> None:
    nearest = summarise(library(BY_HAND)).concept("a").tables[0].nearest
    assert [other.concept for other in nearest] == ["b", "c"]
    assert nearest[1].correlation == pytest.approx(-math.sqrt(0.5))


def test_a_table_may_hold_only_some_of_the_concepts() -> None:
    few = replace(BY_HAND.select_concepts(("a", "b")), probe=Probe.LEARNED)
    summary = summarise(library(BY_HAND, few))
    assert [part.probe for part in summary.concept("a").tables] == [Probe.CONTEXT, Probe.LEARNED]
    assert [part.probe for part in summary.concept("c").tables] == [Probe.CONTEXT]


def trials(concept: str, entangled: list[float], control: list[float]) -> list[CausalTrial]:
    return [
        CausalTrial(Probe.CONTEXT, concept, f"{role}{i}", role, rise)
        for role, rises in ((UnitRole.ENTANGLED, entangled), (UnitRole.CONTROL, control))
        for i, rise in enumerate(rises)
    ]


def test_causal_effects_come_in_plain_words() -> None:
    causal = [
        *trials("a", [1.0, 1.1, 0.9, 1.0], [0.0, 0.1, -0.1, 0.0]),
        *trials("b", [0.0, 1.0, -1.0, 0.2], [0.1, -0.9, 0.9, 0.0]),
    ]
    summary = summarise(library(BY_HAND, causal=causal))
    raised = summary.concept("a").causal[0]
    assert raised.verdict is CausalVerdict.RAISES
    assert raised.effect.effect_nats == pytest.approx(1.0)
    assert summary.concept("b").causal[0].verdict is CausalVerdict.NO_EFFECT
    assert summary.concept("c").causal == ()
    lowered = trials("a", [-1.0, -1.1, -0.9], [0.0, 0.1, -0.1])
    assert summarise(library(BY_HAND, causal=lowered)).concept("a").causal[0].verdict is (
        CausalVerdict.LOWERS
    )
    few = trials("a", [1.0], [0.0, 0.1])
    assert summarise(library(BY_HAND, causal=few)).concept("a").causal[0].verdict is (
        CausalVerdict.TOO_FEW
    )


def test_settings_are_flattened_and_held_out_checks_come_first() -> None:
    settings = {
        "rows": 300,
        "questions": {"animal": [["Which?", "The"], ["What?", "My"]]},
        "held_out": {"auroc": 0.91234567, "by": ["owl", "cat"]},
    }
    assert flat_settings(settings) == (
        ("held_out.auroc", "0.9123"),
        ("held_out.by", "owl, cat"),
        ("rows", "300"),
        ("questions.animal", "Which?, The; What?, My"),
    )


def test_observations_are_contexts_or_the_fewest_questions() -> None:
    asked = {"questions": {"animal": [["a", "b"]] * 4, "tree": [["a", "b"]] * 3}}
    assert summarise(library(BY_HAND, settings=asked)).tables[0].observations == 3
    counted = {"contexts": 64, "positions": 126}
    of_table = summarise(library(BY_HAND, settings=counted)).tables[0]
    assert (of_table.observations, of_table.positions) == (64, 126)
    assert summarise(library(BY_HAND)).tables[0].observations is None


def test_json_has_no_undefined_number_and_every_key_is_documented() -> None:
    causal = trials("a", [1.0, 1.1], [0.0, 0.1])
    shift = np.zeros((2, 100))
    shift[:, 5] = [3.0, 2.0]
    summary = summarise(library(table(shift, spread=math.nan), causal=causal))
    document = json.loads(to_json(summary))
    assert document["tables"][0]["noise_rms_nats"] is None
    assert document["tables"][0]["hubs"] == [{"unit": "unit5", "concepts": 2, "shift_nats": 2.5}]
    assert document["concepts"][0]["causal"][0]["verdict"] == "raises the concept"
    page = (ROOT / "docs" / "signatures.md").read_text()

    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for inner in value.values() for key in keys(inner)}
        return {key for inner in value for key in keys(inner)} if isinstance(value, list) else set()

    missing = {key for key in keys(document) if f"`{key}`" not in page}
    assert not missing
    assert to_json(summary) == to_json(summary)


def test_json_of_some_concepts_and_of_hostile_text() -> None:
    hostile = "\x1b[31m\u202e\ud800"
    renamed = replace(BY_HAND, units=(hostile, *BY_HAND.units[1:]))
    text = to_json(summarise(library(renamed)), ["b"])
    assert text.isascii()
    assert b"\x1b" not in text
    document = json.loads(text)
    assert [concept["name"] for concept in document["concepts"]] == ["b"]
    units = {unit["unit"] for unit in document["concepts"][0]["tables"][0]["top"]}
    assert "\x1b[31m\u202e\ufffd" in units
