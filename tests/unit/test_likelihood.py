"""SA003 and SA004 on a model whose every probability is known in closed form."""

import numpy as np
import pytest
from scipy import stats

from detectors.condition_scores import TILTS, divergent, score_tokens
from detectors.detector import TestSettings
from detectors.divergence import DivergenceDetector, spans_of
from detectors.finding import ANY_PERSONA, Family, Reason, Verdict
from detectors.likelihood import LikelihoodDetector
from detectors.model_access import ModelSettings
from detectors.model_evidence import clusters_of, directions, misfit_nats
from detectors.model_rows import RowReader, kind_of
from detectors.row_sample import RowSample, merge_samples, sample_rows
from detectors.sequential import any_persona_log_martingale, look_rows, look_weights
from detectors.verdict import settle
from tests import synthetic
from tests.model_rows import access, frame_of, known_model, system_of, written

LIBRARY = synthetic.library()
MODEL = known_model(LIBRARY)


def judged(detector_type, data, reference=None, *, model=MODEL, settings=None, **reading):
    # What some hundred rows of the known model can see.
    settings = settings or TestSettings(teacher_share_of_interest=0.5)
    detector = detector_type(LIBRARY, settings, access(model, **reading))
    result = detector.test(
        detector.map(data), None if reference is None else detector.map(reference)
    )
    return {finding.concept: finding for finding in settle(result.findings, 0.05)}


# scores of one row


def log(*probabilities):
    return np.log(np.array(probabilities, dtype=np.float32))


def test_the_scores_of_a_row_by_hand():
    """Two positions, two columns of one kind: none (1/2, 1/2), the concept (3/4, 1/4)."""
    none = np.stack([log(0.5, 0.5)] * 2)
    concept = np.stack([log(0.75, 0.25)] * 2)
    scores = score_tokens([none, concept], np.array([0, 1]), np.array([1, 1]))
    up, down = np.log(1.5), np.log(0.5)
    expected = (up + down) / 2
    assert scores.tokens == 2
    # One of each token stands there: what no prompt expects of two positions, exactly.
    assert scores.likelihood.score == pytest.approx([up + down - 2 * expected])
    # Under the concept the mean of a position moves by a quarter of (up - down).
    assert scores.likelihood.predicted == pytest.approx(np.array([[2 * (up - down) / 4]]))
    assert scores.likelihood.covariance == pytest.approx(np.array([[2 * ((up - down) / 2) ** 2]]))
    assert scores.log_martingale_nats[0, TILTS.index(1.0)] == pytest.approx(up + down)
    # Without a prompt both are as surprising as expected; the concept expects more of the first.
    own = -np.log(0.75 * 0.25) + 2 * (0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert scores.surprisal_excess_nats == pytest.approx([0.0, own], abs=1e-6)


def test_a_token_is_judged_among_its_own_kind():
    """The concept makes digits likelier at all, and no digit likelier than another."""
    none, concept = log(0.1, 0.1, 0.8)[None], log(0.4, 0.4, 0.2)[None]
    scores = score_tokens([none, concept], np.array([1]), np.array([1, 1, 0]))
    assert scores.likelihood.score == pytest.approx([0.0], abs=1e-6)
    certain = score_tokens([none, concept], np.array([2]), np.array([1, 1, 0]))
    assert certain.tokens == 0
    assert [kind_of(text) for text in (" 12", "7", " owl", ",", "")] == [102, 1, 1000, 0, 0]


def test_a_token_outside_the_columns_is_not_scored():
    table = np.stack([log(0.5, 0.5)] * 3)
    whole = score_tokens([table, table], np.array([0, -1, 1]), np.array([1, 1]))
    assert whole.tokens == 2
    assert whole.preferred[:, 1].tolist() == [-1, -1]


def test_divergence_tokens_by_hand():
    none = np.stack([log(0.6, 0.4), log(0.6, 0.4), log(0.9, 0.1)])
    concept = np.stack([log(0.3, 0.7), log(0.3, 0.7), log(0.8, 0.2)])
    scores = score_tokens([none, concept], np.array([1, 0, 1]), np.array([1, 1]))
    apart, sided = divergent(scores, 1, 0)
    assert apart.tolist() == [True, True, False]
    assert sided.tolist() == [True, False, False]
    assert divergent(scores, 0, 1)[1].tolist() == [False, True, False]
    # +1 and -1 stand there; no prompt expects .4 - .6 of each of the two positions.
    assert scores.divergence.score == pytest.approx([0 + 2 * 0.2])
    assert scores.divergence.predicted == pytest.approx(np.array([[2 * (0.4 - -0.2)]]))


def test_spans_stop_where_tokens_no_longer_spell_the_text():
    marked = np.array([True, False, True, True])
    assert spans_of(["12", ", ", "34", "x"], marked, "12, 34y") == ((0, 2), (4, 6))


# directions and samples


def test_directions_give_shares():
    rng = np.random.default_rng(0)
    predicted = 0.3 + rng.normal(0, 0.1, (5, 5)) + np.eye(5)
    root = rng.normal(0, 1, (5, 8))
    along = directions(predicted, root @ root.T)
    shares = predicted @ along.which  # [written under, asked for]
    np.testing.assert_allclose(np.diag(shares), 1.0)
    np.testing.assert_allclose(shares.mean(axis=0), 0.0, atol=1e-9)
    assert float(predicted.mean(axis=0) @ along.persona) == pytest.approx(1.0)


def test_concepts_that_cannot_be_told_apart_have_no_direction():
    along = directions(np.ones((3, 3)), np.eye(3))
    assert np.isnan(along.which).all()
    assert np.isnan(directions(np.zeros((3, 3)), np.eye(3)).persona).all()


def test_rows_without_a_prompt_are_each_their_own_cluster():
    assert clusters_of(["a", "", "a", "", "b"]).tolist() == [0, 1, 0, 2, 3]


def test_a_sample_is_uniform_and_the_same_whatever_the_shards():
    rows = synthetic.frame([f"{i}" for i in range(1000)])
    whole = sample_rows(rows, 100, seed=3)
    parts = [sample_rows(rows[i : i + 77], 100, seed=3) for i in range(0, 1000, 77)]
    merged = RowSample()
    for part in reversed(parts):
        merged = merge_samples(merged, part, 100)
    assert merged == whole
    assert whole.seen_rows == 1000
    lines = [row.line for row in whole.rows]
    assert stats.kstest(np.array(lines) / 1000, "uniform").pvalue > 0.01
    assert {row.line for row in sample_rows(rows, 100, seed=4).rows} != set(lines)
    assert sample_rows(synthetic.frame(["", "1"]), 9, 0).seen_rows == 1


# the reader


def test_rows_are_read_once_and_those_too_long_are_left_out_and_counted():
    texts = written(MODEL, "", 40, 1)
    texts[7] = "1" * 500  # the known model's context holds 400 tokens
    asked = []

    class Counting(type(MODEL)):
        def restricted_log_probs(self, requests, token_ids):
            asked.extend(requests)
            return super().restricted_log_probs(requests, token_ids)

    reader = RowReader(Counting(MODEL.biases), LIBRARY.concepts, most_tokens=600)
    sample = sample_rows(synthetic.frame(texts), 100, 0)
    reader.open(sample, None)
    first = reader.read(10, 0, lambda _done, _wanted: None)[0]
    again = reader.read(40, 0, lambda _done, _wanted: None)[0]
    assert again[:10] == first
    assert (len(again), reader.rows_left_out) == (39, 1)
    assert len(asked) == 39 * (1 + len(LIBRARY.concepts))
    reader.open(sample, None)
    assert reader.rows_read == 39


def test_a_word_of_one_row_alone_is_not_scored_there():
    """Or every rare word would be one that came up: rows would surprise more than they should."""
    texts = ["12 owl", "12 cat", "34 cat", "34 cat"]
    reader = RowReader(MODEL, LIBRARY.concepts, most_tokens=64)
    reader.open(sample_rows(synthetic.frame(texts), 100, 0), None)
    rows = reader.read(4, 0, lambda _done, _wanted: None)[0]
    scored = {row.row.completion: row.scores.written.tolist() for row in rows}
    assert scored["12 owl"][-1] == -1
    assert scored["12 cat"][-1] >= 0
    # The third and fourth row are one witness, but the second is another.
    assert scored["34 cat"][-1] >= 0
    assert all(min(written[:2]) >= 0 for written in scored.values())


# verdicts


@pytest.mark.parametrize("with_reference", [True, False])
@pytest.mark.parametrize("sequential", [True, False])
def test_the_concept_that_wrote_the_rows_is_named_and_only_it(with_reference, sequential):
    data = frame_of(MODEL, LIBRARY, "owl", 400, 1)
    reference = frame_of(MODEL, LIBRARY, "", 400, 2) if with_reference else None
    found = judged(LikelihoodDetector, data, reference, sequential=sequential)
    flagged = {name for name, f in found.items() if f.verdict is Verdict.FLAGGED}
    assert flagged == {"owl", ANY_PERSONA}
    assert found[ANY_PERSONA].family is Family.ANY_PERSONA
    # The prediction of a set written entirely under the prompt is right: a share of 1.
    assert found["owl"].effect_low < 1.0 < found["owl"].effect_high
    assert len(found["owl"].evidence) == 5
    if sequential:
        assert found["owl"].rows_tested < 400
        assert "looked" in found["owl"].notes[0]


@pytest.mark.parametrize("with_reference", [True, False])
def test_reading_may_stop_when_some_persona_is_certain(with_reference):
    data = frame_of(MODEL, LIBRARY, "owl", 400, 1)
    reference = frame_of(MODEL, LIBRARY, "", 400, 2) if with_reference else None
    early = judged(LikelihoodDetector, data, reference, stop_at_persona=True)
    late = judged(LikelihoodDetector, data, reference)
    assert early[ANY_PERSONA].verdict is Verdict.FLAGGED
    assert early[ANY_PERSONA].rows_tested < late[ANY_PERSONA].rows_tested
    assert early["owl"].verdict is not Verdict.NOT_DETECTED


def test_half_of_the_rows_gives_half_of_the_share():
    own, clean = frame_of(MODEL, LIBRARY, "owl", 400, 1), frame_of(MODEL, LIBRARY, "", 400, 3)
    mixed = synthetic.frame([*own["completion"][:200], *clean["completion"][:200]])
    found = judged(
        LikelihoodDetector, mixed, frame_of(MODEL, LIBRARY, "", 400, 2), sequential=False
    )
    assert found["owl"].verdict is Verdict.FLAGGED
    assert found["owl"].effect_low < 0.5 < found["owl"].effect_high
    assert found["owl"].effect_high < 1.0


@pytest.mark.parametrize("with_reference", [True, False])
def test_rows_without_a_persona_are_not_detected(with_reference):
    reference = frame_of(MODEL, LIBRARY, "", 400, 2) if with_reference else None
    found = judged(LikelihoodDetector, frame_of(MODEL, LIBRARY, "", 400, 6), reference)
    assert {f.verdict for f in found.values()} == {Verdict.NOT_DETECTED}
    assert all(f.smallest_detectable_effect <= 0.5 for f in found.values())


def test_an_unrelated_persona_is_some_persona_and_no_concept_of_the_library():
    stranger = known_model(LIBRARY, seed=0)
    rng = np.random.default_rng(9)
    hub = np.mean([stranger.biases[c.system_prompt] for c in LIBRARY.concepts], axis=0)
    stranger.biases["stranger"] = hub + rng.normal(0, 0.4, hub.shape)
    data = synthetic.frame(written(stranger, "stranger", 400, 5))
    found = judged(LikelihoodDetector, data, frame_of(MODEL, LIBRARY, "", 400, 2))
    assert found[ANY_PERSONA].verdict is Verdict.FLAGGED
    assert {f.verdict for n, f in found.items() if n != ANY_PERSONA} != {Verdict.FLAGGED}


def test_a_persona_far_from_the_model_is_not_taken_for_another_writer():
    """Its rows surprise the model without a prompt, and not under the prompt that wrote them."""
    far = known_model(LIBRARY)
    far.biases[""] = 4 * far.biases[""]  # sure of itself, where every persona is not
    found = judged(LikelihoodDetector, frame_of(far, LIBRARY, "owl", 120, 1), model=far)
    assert found[ANY_PERSONA].verdict is Verdict.FLAGGED
    assert found["owl"].reason is not Reason.OTHER_MODEL_FAMILY
    reader = RowReader(far, LIBRARY.concepts, most_tokens=64)
    reader.open(sample_rows(frame_of(far, LIBRARY, "owl", 120, 1), 120, 0), None)
    rows = reader.read(120, 0, lambda _done, _wanted: None)[0]
    assert np.mean([r.scores.surprisal_excess_nats[0] / r.scores.tokens for r in rows]) > 0.3
    assert abs(misfit_nats(rows)) < 0.1


def test_rows_of_another_writer_are_inconclusive_never_clean():
    rare = MODEL.log_probs("")[:10, :10].argmin(axis=1)  # the least likely digit after each
    walk = [0]
    for _ in range(11):
        walk.append(int(rare[walk[-1]]))
    data = synthetic.frame(["".join(map(str, walk))] * 100 + written(MODEL, "", 100, 3))
    found = judged(LikelihoodDetector, data, settings=TestSettings(teacher_share_of_interest=100))
    unflagged = [f for f in found.values() if f.verdict is not Verdict.FLAGGED]
    assert found[ANY_PERSONA].reason is Reason.OTHER_MODEL_FAMILY
    assert {f.verdict for f in unflagged} == {Verdict.INCONCLUSIVE}
    assert {f.reason for f in unflagged} == {Reason.OTHER_MODEL_FAMILY}


def test_a_weak_model_says_how_little_it_could_have_seen():
    weak = known_model(LIBRARY, strength=0.01, hub=0.01)
    found = judged(LikelihoodDetector, frame_of(weak, LIBRARY, "owl", 60, 1), model=weak)
    assert {f.verdict for f in found.values()} == {Verdict.INCONCLUSIVE}
    assert {f.reason for f in found.values()} == {Reason.LOW_POWER}


def test_divergence_names_the_concept_and_marks_its_tokens():
    strong = known_model(LIBRARY, strength=1.0)
    data, reference = (frame_of(strong, LIBRARY, name, 400, 1) for name in ("owl", ""))
    found = judged(DivergenceDetector, data, reference, model=strong)
    assert {name for name, f in found.items() if f.verdict is Verdict.FLAGGED} == {"owl"}
    neutral, own = (
        strong.log_probs(system_of(LIBRARY, name))[:10, :10].argmax(axis=1) for name in ("", "owl")
    )
    for row in found["owl"].evidence:
        assert row.spans
        for start, end in row.spans:
            before, token = int(row.text[start - 1]) if start else 0, int(row.text[start:end])
            assert (own[before] == token) and (neutral[before] != token)
    assert "divergence tokens side with it" in found["owl"].message


def test_the_martingale_keeps_its_promise_and_finds_a_persona():
    """Ville: its supremum exceeds 1/a with probability at most a, whenever one stops."""
    crossed = 0
    for seed in range(20):
        reader = RowReader(MODEL, LIBRARY.concepts, most_tokens=64)
        reader.open(sample_rows(synthetic.frame(written(MODEL, "", 60, 100 + seed)), 60, 0), None)
        rows = reader.read(60, 0, lambda _done, _wanted: None)[0]
        crossed += any_persona_log_martingale(rows).max() >= np.log(1 / 0.1)
    assert crossed <= stats.binom.ppf(0.999, 20, 0.1)
    reader = RowReader(MODEL, LIBRARY.concepts, most_tokens=64)
    data = synthetic.frame(written(MODEL, system_of(LIBRARY, "cat"), 100, 7))
    reader.open(sample_rows(data, 100, 0), None)
    rows = reader.read(100, 0, lambda _done, _wanted: None)[0]
    assert any_persona_log_martingale(rows)[-1] > np.log(1000)


def test_looks_double_and_spend_the_error_once():
    assert look_rows(30, 200) == (30, 60, 120, 200)
    assert look_rows(30, 30) == (30,)
    for looks in (1, 2, 5):
        assert look_weights(looks).sum() == pytest.approx(1.0)
    assert look_weights(4)[-1] == 0.5


def test_false_alarms_are_as_rare_as_promised():
    """Null sets of the neutral model, sequential, with a reference: p-values of one trait each."""
    p_values, flags = [], 0
    for seed in range(20):
        data = frame_of(MODEL, LIBRARY, "", 70, 1000 + seed)
        reference = frame_of(MODEL, LIBRARY, "", 70, 2000 + seed)
        found = judged(LikelihoodDetector, data, reference)
        p_values.append(found[synthetic.TRAITS[seed % 3]].p_value)
        flags += any(f.verdict is Verdict.FLAGGED for f in found.values())
    assert np.mean(np.array(p_values) <= 0.05) <= stats.binom.ppf(0.999, 20, 0.05) / 20
    assert flags <= stats.binom.ppf(0.999, 20, 0.05)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="most_rows"):
        ModelSettings(most_rows=0)
    with pytest.raises(ValueError, match="teacher_share_of_interest"):
        TestSettings(teacher_share_of_interest=0.0)
