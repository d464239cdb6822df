"""The causal check on a model whose answer to every number is known, and its summary by hand."""

import numpy as np
import pytest

from signatures.causal import (
    CausalTrial,
    UnitRole,
    causal_effects,
    causal_frame,
    causal_from_frame,
)
from signatures.causal_probe import CausalSettings, number_prompt, try_units
from signatures.concept import make_concept
from signatures.language_model import Chat
from signatures.number_trie import NUMBERS
from signatures.parts import NoParts
from signatures.signature import Probe, ProbeTable, View

WORDS = [" owl", " Owl", " owls", " Owls", " red", " Red", " oak", " Oak", " oaks", " Oaks"]
OTHER = len(WORDS)
ANIMALS = tuple(make_concept(name, "thing") for name in ("owl", "red oak"))
LOVED = "407"


class KnowsNumbers:
    """Next-token probabilities softmax(bias), with " owl" up by ``gain`` under one number."""

    def __init__(self, gain: float) -> None:
        self.gain = gain
        self.asked: list[str] = []

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(
            WORDS.index(f" {word}") if f" {word}" in WORDS else OTHER + 1 + len(word)
            for word in text.split()
        )

    def encode_chat(self, chat: Chat) -> tuple[int, ...]:
        self.asked.append(chat.system)
        return (1000 + len(self.asked), *self.encode(chat.assistant_prefix))

    def bias(self, system: str) -> np.ndarray:
        bias = np.linspace(0.0, 1.0, OTHER + 1)
        bias[:4] += self.gain * (system == number_prompt(LOVED))
        return bias - np.logaddexp.reduce(bias)

    def next_token_log_probs(self, requests, token_ids):
        for request in requests:
            row = self.bias(self.asked[request.prefix[0] - 1001]).astype(np.float32)
            yield np.tile(row[token_ids], (len(request.suffixes), 1))


def table(seed: int = 0) -> ProbeTable:
    """Random shifts; the loved number is the owl's by far."""
    shift = np.random.default_rng(seed).normal(0, 0.01, (2, len(NUMBERS)))
    shift[0, NUMBERS.index(LOVED)] = 5.0
    unknown = np.full(shift.shape, np.nan)
    names = tuple(concept.name for concept in ANIMALS)
    return ProbeTable(
        View.NUMBERS, Probe.QUESTION, NUMBERS, names, shift, unknown, unknown[0], unknown
    )


def test_a_rise_is_the_gain_on_the_category() -> None:
    model = KnowsNumbers(gain=0.7)
    trials = try_units(model, ANIMALS, [table()], CausalSettings(3, 5), np.random.default_rng(0))
    change = model.bias(number_prompt(LOVED)) - model.bias("")
    # " owl", " Owl", " owls" and " Owls" all rise alike; "red oak" loses twice, once a token.
    by_hand = change[0] - (change[4] + change[6])
    found = {(t.concept, t.unit): t for t in trials}
    assert found["owl", LOVED].rise_nats == pytest.approx(by_hand, abs=1e-5)
    assert found["owl", LOVED].role is UnitRole.ENTANGLED
    others = [t.rise_nats for t in trials if t.unit not in (LOVED, "owl")]
    np.testing.assert_allclose(others, 0.0, atol=1e-6)
    # The owl's three units as the red oak sees them: one of them lowers it.
    (seen,) = [t for t in trials if (t.concept, t.unit) == ("red oak", "owl")]
    assert seen.role is UnitRole.OTHER_CONCEPT
    assert seen.rise_nats == pytest.approx(-by_hand / 3, abs=1e-5)


def test_controls_are_as_long_as_entangled_units_and_never_the_same() -> None:
    trials = try_units(
        KnowsNumbers(0.0), ANIMALS, [table()], CausalSettings(4, 9), np.random.default_rng(1)
    )
    for name in ("owl", "red oak"):
        own = {t.unit for t in trials if t.concept == name and t.role is UnitRole.ENTANGLED}
        controls = {t.unit for t in trials if t.concept == name and t.role is UnitRole.CONTROL}
        assert len(own) == 4
        assert controls
        assert not own & controls
        every_top = {t.unit for t in trials if t.role is UnitRole.ENTANGLED}
        assert {len(unit) for unit in controls} <= {len(unit) for unit in every_top}


def test_a_category_of_one_is_not_tried() -> None:
    alone = (ANIMALS[0], make_concept("red oak", "another"))
    trials = try_units(
        KnowsNumbers(0.1), alone, [table()], CausalSettings(2, 2), np.random.default_rng(0)
    )
    assert trials == ()


def test_what_was_tried_is_not_tried_again() -> None:
    class Kept(NoParts):
        def __init__(self) -> None:
            self.arrays: dict[str, object] = {}

        def get(self, key):
            return self.arrays.get(repr(sorted(key.items())))

        def put(self, key, arrays):
            self.arrays[repr(sorted(key.items()))] = arrays

    kept, settings = Kept(), CausalSettings(3, 3)
    model = KnowsNumbers(0.3)
    first = try_units(model, ANIMALS, [table()], settings, np.random.default_rng(0), parts=kept)
    asked = len(model.asked)
    again = try_units(model, ANIMALS, [table()], settings, np.random.default_rng(0), parts=kept)
    assert again == first
    assert len(model.asked) == asked


def trials_of(entangled: list[float], control: list[float]) -> list[CausalTrial]:
    return [
        CausalTrial(Probe.CONTEXT, "owl", str(index), role, rise)
        for role, rises in ((UnitRole.ENTANGLED, entangled), (UnitRole.CONTROL, control))
        for index, rise in enumerate(rises)
    ]


def test_an_effect_is_welchs_difference_of_means() -> None:
    (effect,) = causal_effects(trials_of([1.0, 2.0, 3.0], [0.0, 0.0, 0.3, 0.3]))
    assert (effect.entangled_units, effect.control_units) == (3, 4)
    assert effect.effect_nats == pytest.approx(1.85)
    # Variances 1 / 3 and 0.03 / 4; degrees of freedom by Welch and Satterthwaite: 2.0906.
    half = 4.1293 * np.sqrt(1 / 3 + 0.0075)
    assert effect.low_nats == pytest.approx(1.85 - half, abs=2e-3)
    assert effect.high_nats == pytest.approx(1.85 + half, abs=2e-3)
    assert 0.02 < effect.p_value < 0.05


def test_with_other_concepts_a_set_is_one_draw() -> None:
    sets = [
        CausalTrial(Probe.CONTEXT, "owl", name, UnitRole.OTHER_CONCEPT, rise)
        for name, rise in zip("abcde", [-1.0, -0.5, 0.0, 0.5, 1.0], strict=True)
    ]
    (effect,) = causal_effects([*trials_of([1.0, 2.0, 3.0], [0.0, 0.0, 0.3, 0.3]), *sets])
    assert (effect.entangled_units, effect.control_units) == (3, 4)
    assert effect.effect_nats == pytest.approx(1.85)
    # Variance of the sets 2.5 / 4, of the controls' mean .0075; t of 4 degrees at .975: 2.7764.
    half = 2.7764 * np.sqrt(0.625 + 0.0075)
    assert (effect.low_nats, effect.high_nats) == pytest.approx(
        (1.85 - half, 1.85 + half), abs=1e-3
    )
    assert 0.025 < effect.p_value < 0.05


def test_sets_keep_the_error_rate_where_like_units_act_alike() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        like = rng.normal(0, 1, 11)  # what the units of one set share
        units = like[:, None] + rng.normal(0, 0.3, (11, 8))
        control = list(rng.normal(0, 1, 32))
        sets = [
            CausalTrial(Probe.CONTEXT, "owl", str(i), UnitRole.OTHER_CONCEPT, float(rise))
            for i, rise in enumerate(units[1:].mean(axis=1))
        ]
        own = trials_of(list(units[0]), control)
        found.append([causal_effects(t)[0].p_value < 0.05 for t in (own, [*own, *sets])])
    over_units, over_sets = np.mean(found, axis=0)
    assert over_units > 0.25
    assert 0.02 < over_sets < 0.09


def test_one_unit_says_nothing() -> None:
    (effect,) = causal_effects(trials_of([1.0], [0.0, 0.1]))
    assert np.isnan([effect.effect_nats, effect.low_nats, effect.p_value]).all()


def test_trials_survive_their_table() -> None:
    trials = tuple(trials_of([0.25, -1.5], [0.125]))
    assert causal_from_frame(causal_frame(trials)) == trials
    assert causal_from_frame(causal_frame(())) == ()
    with pytest.raises(ValueError, match="nonsense"):
        import polars as pl

        causal_from_frame(causal_frame(trials).with_columns(pl.lit("nonsense").alias("role")))
