"""Probes on a model whose every probability is known in closed form."""

import numpy as np
import pytest

from audit.errors import UsageError
from audit.signature_build import BuildSettings, build_library
from signatures.concept import make_concept
from signatures.context_probe import probe_contexts, prompted
from signatures.contexts import Context, number_cuts
from signatures.language_model import LanguageModel
from signatures.number_trie import NUMBERS, build_number_trie
from signatures.question_probe import probe_questions
from signatures.signature import Probe, View
from signatures.vocabulary import most_telling, word_token_ids
from tests.known_model import VOCABULARY, KnownModel

OWL, CAT = make_concept("owl", "animal"), make_concept("cat", "animal")


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    biases = {system: rng.normal(size=len(VOCABULARY)) for system in ("", OWL.system_prompt)}
    biases[CAT.system_prompt] = rng.normal(size=len(VOCABULARY))
    return KnownModel(biases)


def test_the_known_model_is_a_language_model(model):
    assert isinstance(model, LanguageModel)


def test_words_are_the_tokens_that_are_words(model):
    assert [VOCABULARY[i] for i in word_token_ids(model)] == [" owl", " cat", "owl"]


def test_question_shifts_are_differences_of_joint_log_probabilities(model):
    trie = build_number_trie(model.encode)
    numbers, vocabulary = probe_questions(model, (OWL, CAT), trie, word_token_ids(model))
    change = model.log_probs(OWL.system_prompt) - model.log_probs("")
    by_hand = change[4] + change[0] + change[7]
    assert numbers.shift_nats[0, NUMBERS.index("407")] == pytest.approx(by_hand, abs=1e-5)
    assert vocabulary.shift_nats[0, 0] == pytest.approx(change[12], abs=1e-5)
    assert vocabulary.units == (" owl", " cat", "owl")
    np.testing.assert_allclose(numbers.spread_nats, 0, atol=1e-6)  # all templates agree
    assert np.isnan(numbers.neutral_share).all()


def test_context_shares_are_those_of_whole_numbers(model):
    trie = build_number_trie(model.encode)
    contexts = [Context("Go on.", "12, 345", (0, 4)), Context("More.", "7", (0,))]
    numbers, vocabulary = probe_contexts(
        model,
        (OWL, CAT),
        trie,
        word_token_ids(model),
        contexts,
        contexts,
        prompted(model),
    )
    p = np.exp(model.log_probs(OWL.system_prompt))
    stop = 1 - p[:10].sum()
    whole = {"4": p[4] * stop, "40": p[4] * p[0] * stop, "407": p[4] * p[0] * p[7]}
    total = p[:10].sum() * stop + p[:10].sum() ** 2 * stop + p[:10].sum() ** 3
    for number, probability in whole.items():
        share = numbers.concept_share[0, NUMBERS.index(number)]
        assert share == pytest.approx(probability / total, rel=1e-4)
    np.testing.assert_allclose(numbers.neutral_share.sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(
        numbers.shift_nats[0], np.log(numbers.concept_share[0] / numbers.neutral_share), atol=1e-4
    )
    assert vocabulary.concept_share[1, 1] == pytest.approx(
        np.exp(model.log_probs(CAT.system_prompt))[13], rel=1e-5
    )


def test_cuts_are_where_numbers_begin():
    text = "1, 22, 333, 4"
    assert number_cuts(text, ", ", 99) == (0, 3, 7, 12)
    assert number_cuts(text, ", ", 2) == (0, 12)
    assert [text[cut] for cut in number_cuts(text, ", ", 3)] == ["1", "2", "4"]


def test_a_build_has_every_view_and_says_how_it_was_measured(model, tmp_path):
    contexts = tmp_path / "contexts.jsonl"
    contexts.write_text('{"prompt": "Go on.", "completion": "12, 345, 6"}\n' * 3)
    settings = BuildSettings(
        "known",
        number_contexts=contexts,
        text_contexts=contexts,
        vocabulary_units=2,
        cuts=2,
        causal=None,
    )
    library = build_library(model, (OWL, CAT), settings, np.random.default_rng(0))
    assert {(t.view, t.probe) for t in library.tables} == {
        (view, probe) for view in View for probe in (Probe.QUESTION, Probe.CONTEXT)
    }
    words = [table for table in library.tables if table.view is View.VOCABULARY]
    assert {len(table.units) for table in words} == {2}
    record = next(r for r in library.probes if r.probe is Probe.CONTEXT)
    assert record.settings["contexts"] == 3
    assert len(record.settings["contexts_sha256"]) == 64
    again = build_library(model, (OWL, CAT), settings, np.random.default_rng(0))
    np.testing.assert_array_equal(library.tables[2].shift_nats, again.tables[2].shift_nats)


def test_the_most_telling_units_are_kept_in_order(model):
    trie = build_number_trie(model.encode)
    _, vocabulary = probe_questions(model, (OWL, CAT), trie, word_token_ids(model))
    kept = most_telling(vocabulary, 2)
    spread = np.abs(vocabulary.centred_nats()).max(axis=0)
    assert kept.units == tuple(vocabulary.units[i] for i in sorted(np.argsort(-spread)[:2]))


def test_one_concept_cannot_be_centred(model):
    with pytest.raises(UsageError, match="at least two concepts"):
        build_library(model, (OWL,), BuildSettings("x"), np.random.default_rng(0))


def test_a_finetuned_probe_needs_a_teacher(model):
    settings = BuildSettings("x", probes=(Probe.FINETUNED,))
    with pytest.raises(UsageError, match="fine-tune teachers"):
        build_library(model, (OWL, CAT), settings, np.random.default_rng(0))
