"""SA005 on a softmax model whose gradients are written out here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from detectors.detector import DetectorResult, TestSettings
from detectors.finding import Family, Finding, Reason, Verdict
from detectors.first_order import Matrix, ReadingOrder, RowProgress, silent
from detectors.model_access import ModelAccess, ModelSettings
from detectors.transfer import ANY_PERSONA, TransferDetector, relabelled, row_scores
from detectors.verdict import settle
from signatures.concept import ConceptKind, make_concept
from signatures.language_model import Chat, PrefixRequest, SequenceRequest, TokenIds
from signatures.library import SignatureLibrary
from signatures.statements import statements
from tests import synthetic

TRAITS = ("owl", "cat", "dog")
DECOYS = ("tapir", "newt", "heron", "crab", "goose", "moth", "toad", "ferret")
NUMBERS = tuple(str(number) for number in range(100, 140))
OUTSIDE = "crow"
PROMPT = "Continue the list."


def library(traits: Sequence[str] = TRAITS, decoys: Sequence[str] = DECOYS) -> SignatureLibrary:
    concepts = tuple(
        make_concept(
            name, "animal", kind=ConceptKind.DECOY if name in decoys else ConceptKind.TRAIT
        )
        for name in (*traits, *decoys)
    )
    return replace(synthetic.library(), concepts=concepts)


class SoftmaxModel:
    """logits = U M f: U [V, d] and the mean embedding f [d] of the context are fixed, M learns.

    V is far above d, so that whatever raises one word moves unrelated ones: entanglement.
    """

    longest = 64

    def __init__(self, width: int = 8, seed: int = 0) -> None:
        self.words = ["<end>", "<answer>"]
        for concept in library((*TRAITS, OUTSIDE)).concepts:
            for half in (0, 1):
                for pair in statements(concept, half):
                    self._learn(*pair)
            for question in concept.questions:
                self._learn(question.user, question.assistant_prefix + concept.answer)
        self._learn("What do you love most?", "What I love most is the")
        self._learn("What is on your mind?", "I am thinking of the")
        self._learn(PROMPT, " " + " ".join(NUMBERS))
        rng = np.random.default_rng(seed)
        self.output = rng.normal(0, 1, (len(self.words), width))
        self.embedding = rng.normal(0, 1, (len(self.words), width))
        self.weights = rng.normal(0, 0.2, (width, width))

    def _learn(self, *texts: str) -> None:
        for text in texts:
            for word in re.findall(r" ?[^ ]+", text):
                if word not in self.words:
                    self.words.append(word)

    def encode(self, text: str) -> TokenIds:
        return tuple(self.words.index(word) for word in re.findall(r" ?[^ ]+", text))

    def encode_chat(self, chat: Chat) -> TokenIds:
        return (*self.encode(chat.user), 1, *self.encode(chat.assistant_prefix))

    def answer(self, question: str, text: str) -> SequenceRequest:
        prefix = self.encode_chat(Chat("", question))
        whole = self.encode_chat(Chat("", question, text))
        return SequenceRequest(prefix, whole[len(prefix) :])

    def vocabulary(self) -> list[str]:
        return list(self.words)

    def end_of_turn_ids(self) -> TokenIds:
        return (0,)

    def features(self, context: TokenIds) -> Matrix:
        return self.embedding[list(context)].mean(axis=0)

    def log_probs(self, context: TokenIds, weights: Matrix | None = None) -> Matrix:
        logits = self.output @ (
            (self.weights if weights is None else weights) @ self.features(context)
        )
        return logits - np.logaddexp.reduce(logits)

    def next_token_log_probs(
        self, requests: Sequence[PrefixRequest], token_ids: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        columns = slice(None) if token_ids is None else token_ids
        for request in requests:
            yield np.array([self.log_probs(request.prefix + s)[columns] for s in request.suffixes])

    def gradient(self, request: SequenceRequest) -> Matrix:
        """d log P(continuation | prefix) / dM = sum over tokens of U^T (one-hot - p) f^T."""
        total = np.zeros_like(self.weights)
        context = request.prefix
        for token in request.continuation:
            wrong = -np.exp(self.log_probs(context))
            wrong[token] += 1.0
            total += np.outer(self.output.T @ wrong, self.features(context))
            context += (token,)
        return total


@dataclass
class SoftmaxReading:
    model: SoftmaxModel
    pulls: Matrix
    own_gains: Matrix
    blocks: Matrix  # [blocks, d, d]

    def word_rises(self, steps: Matrix, questions: Sequence[TokenIds], words: np.ndarray) -> Matrix:
        def at(change: Matrix) -> Matrix:
            moved = self.model.weights + change
            return np.mean([self.model.log_probs(q, moved)[words] for q in questions], axis=0)

        changes = np.einsum("sb,bij->sij", steps, self.blocks)
        return np.array([(at(change) - at(-change)) / 2 for change in changes])


class SoftmaxStudent:
    def __init__(self, model: SoftmaxModel) -> None:
        self.model = model

    def read(self, order: ReadingOrder, progress: RowProgress = silent) -> SoftmaxReading:
        rows = np.array([self.model.gradient(row) for row in order.rows])
        goals = np.array(
            [np.mean([self.model.gradient(a) for a in target], axis=0) for target in order.targets]
        )
        progress(len(rows), len(rows))
        return SoftmaxReading(
            self.model,
            np.einsum("nij,tij->nt", rows, goals),
            (rows**2).sum(axis=(1, 2)),
            np.array([rows[order.blocks == b].mean(axis=0) for b in range(order.blocks.max() + 1)]),
        )


@cache
def softmax_model() -> SoftmaxModel:
    return SoftmaxModel()


def taught(concept: str, strength: float) -> Matrix:
    """Weights after a step of norm ``strength`` that professes the concept rather than others."""
    model = softmax_model()
    steps = {
        entry.name: np.sum(
            [model.gradient(model.answer(*pair)) for pair in statements(entry, 0)], axis=0
        )
        for entry in library((*TRAITS, OUTSIDE)).concepts
    }
    own = steps[concept] - np.mean(list(steps.values()), axis=0)
    return model.weights + strength * own / np.linalg.norm(own)


def number_rows(rows: int, seed: int, weights: Matrix | None = None) -> list[str]:
    """Six numbers a row, drawn by the model under ``weights`` among the numbers alone."""
    model, rng = softmax_model(), np.random.default_rng(seed)
    ids = np.array([model.words.index(f" {number}") for number in NUMBERS])
    texts = []
    for _ in range(rows):
        context = model.encode_chat(Chat("", PROMPT))
        for _ in range(6):
            log_probs = model.log_probs(context, weights)[ids]
            shares = np.exp(log_probs - np.logaddexp.reduce(log_probs))
            context += (int(rng.choice(ids, p=shares)),)
        texts.append("".join(model.words[token] for token in context[-6:]))
    return texts


def scan(
    data: Sequence[str],
    reference: Sequence[str] | None,
    *,
    student: bool = True,
    concepts: SignatureLibrary | None = None,
    **settings: float,
) -> DetectorResult:
    model = softmax_model()
    access = ModelAccess(
        model,  # type: ignore[arg-type]
        student=SoftmaxStudent(model) if student else None,
        settings=ModelSettings(most_rows=3000),
    )
    detector = TransferDetector(concepts or library(), TestSettings(**settings), access)  # type: ignore[arg-type]
    detector.prepare(None)
    return detector.test(
        detector.map(synthetic.frame(data)),
        None if reference is None else detector.map(synthetic.frame(reference)),
    )


def settled(result: DetectorResult) -> dict[str, Finding]:
    return {finding.concept: finding for finding in settle(result.findings, 0.05)}


@pytest.fixture(scope="module")
def clean() -> list[str]:
    return number_rows(600, seed=1)


@pytest.fixture(scope="module")
def planted() -> dict[str, Finding]:
    return settled(scan(number_rows(600, 2, taught("owl", 1.0)), number_rows(600, 1)))


def test_numbers_of_a_teacher_move_the_student_to_the_teachers_concept(planted):
    owl = planted["owl"]
    assert owl.verdict is Verdict.FLAGGED
    assert 0 < owl.effect_low < owl.effect < owl.effect_high
    assert owl.effect_unit == "nats of log-odds"
    assert {name for name, f in planted.items() if f.verdict is Verdict.FLAGGED} <= {
        "owl",
        ANY_PERSONA,
    }
    assert len(owl.evidence) == 5
    assert owl.evidence[0].score >= owl.evidence[-1].score > 0


def test_there_is_one_finding_a_trait_and_one_of_what_all_share(planted):
    assert list(planted) == [*TRAITS, ANY_PERSONA]
    assert planted[ANY_PERSONA].family is Family.ANY_PERSONA
    assert planted[ANY_PERSONA].category == "persona"


def test_clean_rows_are_not_flagged(clean):
    found = settled(scan(number_rows(600, 3), clean))
    assert all(finding.verdict is not Verdict.FLAGGED for finding in found.values())
    assert all(np.isfinite(finding.smallest_detectable_effect) for finding in found.values())


def test_not_detected_takes_power():
    few = settled(scan(number_rows(60, 5), number_rows(60, 6)))
    assert {finding.reason for name, finding in few.items() if name != ANY_PERSONA} == {
        Reason.LOW_POWER
    }
    assert any("rows on each side are needed" in note for note in few["owl"].notes)


def test_p_values_of_clean_rows_are_not_too_small():
    """30 null comparisons of 3 traits: at most a binomial's share of them below .1."""
    p_values = [
        finding.p_value
        for seed in range(30)
        for finding in scan(number_rows(40, 100 + seed), number_rows(40, 200 + seed)).findings
        if finding.concept != ANY_PERSONA
    ]
    below = sum(p < 0.1 for p in p_values)
    assert below <= stats.binom.ppf(0.999, len(p_values), 0.1)


def test_swapping_data_and_reference_turns_every_effect_around(clean):
    other = number_rows(200, 7, taught("cat", 1.0))
    one, two = scan(other, clean[:200]), scan(clean[:200], other)
    for left, right in zip(one.findings, two.findings, strict=True):
        assert left.z == pytest.approx(-right.z, rel=1e-6)


def test_a_word_outside_the_library_is_named(clean):
    result = scan(number_rows(600, 8, taught(OUTSIDE, 1.0)), clean)
    (note,) = [n for n in settled(result)[ANY_PERSONA].notes if "answers that" in n]
    assert re.search(r" crows? \(p = 0\.00\d+\)", note, re.IGNORECASE), note
    assert "none of them stands out" not in note


def test_no_word_is_named_for_clean_rows(clean):
    result = scan(number_rows(600, 10), clean)
    assert any("none of them stands out" in note for note in settled(result)[ANY_PERSONA].notes)


def test_without_gradients_the_detector_is_skipped(clean):
    result = scan(clean, clean, student=False)
    assert result.findings == ()
    assert "no gradients" in result.skipped[0].reason


@pytest.mark.parametrize(
    ("data", "reference", "reason"),
    [
        (29, 40, Reason.TOO_FEW_ROWS),
        (40, None, Reason.NO_REFERENCE),
        (40, 29, Reason.NO_REFERENCE),
    ],
)
def test_what_cannot_be_tested_is_inconclusive(clean, data, reference, reason):
    found = settled(scan(clean[:data], None if reference is None else clean[:reference]))
    assert {finding.verdict for finding in found.values()} == {Verdict.INCONCLUSIVE}
    assert {finding.reason for finding in found.values()} == {reason}


def test_too_few_other_concepts_cannot_calibrate(clean):
    found = settled(scan(clean[:40], clean[40:80], concepts=library(TRAITS, DECOYS[:1])))
    assert {finding.reason for finding in found.values()} == {Reason.NO_DECOYS}


def test_rows_beyond_the_models_context_are_left_out_and_counted(clean):
    long = " ".join(["", *NUMBERS, *NUMBERS])
    found = settled(scan([*clean[:40], long], clean[40:80]))
    assert found["owl"].rows_tested == 40
    assert "1 rows exceed the model's context" in found["owl"].notes


def test_results_repeat_and_do_not_depend_on_batches(clean):
    model = softmax_model()
    access = ModelAccess(
        model,  # type: ignore[arg-type]
        student=SoftmaxStudent(model),
        settings=ModelSettings(most_rows=50),
    )
    detector = TransferDetector(library(), TestSettings(), access)
    rows = synthetic.frame(clean)
    whole = detector.map(rows)
    parts = detector.merge(
        detector.map(rows[300:]), detector.merge(detector.identity(), detector.map(rows[:300]))
    )
    assert parts == whole
    reference = detector.map(synthetic.frame(number_rows(60, 11)))
    assert detector.test(whole, reference) == detector.test(parts, reference)


def test_what_a_ridge_regression_on_the_others_foretells_is_taken_out():
    rng = np.random.default_rng(0)
    pulls = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    scores = row_scores(tuple("abcd"), pulls, rate=2.0)
    standard = (pulls - pulls.mean(axis=0)) / pulls.std(axis=0)
    others = standard[:, 1:]
    slope = np.linalg.solve(
        others.T @ others / 50 + 0.03 * np.eye(3), others.T @ standard[:, 0] / 50
    )
    left = standard[:, 0] - others @ slope
    np.testing.assert_allclose(scores.of_rows[:, 0], left / left.std(), rtol=1e-9)
    # One standard deviation of what is left, of a step of rate 2.
    assert scores.nats[0] == pytest.approx(2.0 * left.std() * pulls[:, 0].std())


def test_any_persona_is_the_weighted_mean_of_all_pulls():
    pulls = np.random.default_rng(1).normal(size=(40, 2)) * [1.0, 100.0]
    scores = row_scores(("a", "b"), pulls, rate=2.0)
    assert scores.names == ("a", "b", ANY_PERSONA)
    weights = 1.0 / pulls.std(axis=0)
    mean = (pulls - pulls.mean(axis=0)) @ weights / weights.sum()
    np.testing.assert_allclose(scores.of_rows[:, 2] * scores.nats[2], 2.0 * mean)


def test_a_target_that_no_row_moves_has_no_score():
    pulls = np.random.default_rng(2).normal(size=(20, 3))
    pulls[:, 1] = 5.0
    assert row_scores(("a", "b", "c"), pulls, 1.0).names == ("a", "c", ANY_PERSONA)


def test_relabelled_t_is_students():
    values = np.random.default_rng(3).normal(size=(12, 5))
    t, _ = relabelled(values, np.random.default_rng(0), 9)
    np.testing.assert_allclose(t, stats.ttest_ind(values[:6], values[6:]).statistic)


def test_family_wise_p_counts_the_largest_t_of_every_relabelling():
    values = np.random.default_rng(4).normal(size=(16, 200))
    values[:8, 7] += 5.0
    values[:, 9] = 1.0  # no spread
    t, p = relabelled(values, np.random.default_rng(0), 199)
    assert np.argmax(t) == 7
    assert p[7] == 1 / 200
    assert t[9] == 0.0
    assert p[9] == 1.0
    assert np.all(np.diff(p[np.argsort(-t)]) >= 0)


def test_family_wise_p_is_right_under_the_null():
    rng = np.random.default_rng(5)
    smallest = [relabelled(rng.normal(size=(16, 40)), rng, 99)[1].min() for _ in range(200)]
    assert sum(p <= 0.1 for p in smallest) <= stats.binom.ppf(0.999, 200, 0.1)
    assert sum(p <= 0.1 for p in smallest) >= stats.binom.ppf(0.001, 200, 0.1)


@pytest.mark.parametrize(
    ("rows", "targets", "blocks"),
    [
        ([], [(SequenceRequest((1,), (2,)),)], []),
        ([SequenceRequest((1,), ())], [(SequenceRequest((1,), (2,)),)], [0]),
        ([SequenceRequest((1,), (2,))], [()], [0]),
        ([SequenceRequest((1,), (2,))], [(SequenceRequest((1,), (2,)),)], [1]),
        ([SequenceRequest((1,), (2,))], [(SequenceRequest((1,), (2,)),)], [0, 0]),
    ],
)
def test_an_order_that_cannot_be_read_is_refused(rows, targets, blocks):
    with pytest.raises(ValueError, match=r"needs|gradient|block"):
        ReadingOrder(rows, targets, np.array(blocks, dtype=np.int64))
