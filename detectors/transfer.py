"""SA005 transfer: where would one training step on these rows move this model?

Every row's gradient meets the gradient of every concept's answers: that is by how much a small step
on the row would raise the concept's log-odds. Rows of the data are compared with rows of the
reference, and the statistic is calibrated by the other concepts' on the same rows. The words that
the step raises most are named, whatever the library holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.concept_tests import MINIMUM_NULL_CONCEPTS, ConceptTest, test_concepts
from detectors.detector import DetectorInfo, DetectorResult, Skipped, TestSettings, unsettled
from detectors.finding import ANY_PERSONA, Family, Finding, Reason
from detectors.first_order import Matrix, Reading, ReadingOrder, Target
from detectors.model_access import ModelAccess
from detectors.model_evidence import clusters_of
from detectors.row_sample import RowSample, SampledRow
from detectors.sampled import SampledDetector
from detectors.statistics import MINIMUM_CLUSTERS, MeanComparison, compare_row_scores
from signatures.concept import Concept, Question
from signatures.language_model import Chat, LanguageModel, PrefixRequest, SequenceRequest, TokenIds
from signatures.library import SignatureLibrary
from signatures.statements import statements
from signatures.vocabulary import word_token_ids

EFFECT_OF_INTEREST_SD = 0.1
"""Of naming a concept, in standard deviations of one row's score: below what a fine-tuned teacher's
set was measured to show on rows that nothing here was chosen on, 0.13 to 0.18."""

PERSONA_EFFECT_OF_INTEREST_SD = 0.25
"""Of moving all concepts alike: about half of what that set was measured to show, 0.44 to 0.48."""

_STATEMENT_HALF = 0
"""The bundled signatures' half; teachers to test with are taught the other one."""

_RIDGE = 0.03
"""Added to correlations of 1 on the diagonal: concepts are up to 0.98 alike in what moves them."""

_BLOCKS = 16
"""Of rows, in each arm: the replicates of the search for words."""

_STEP_NATS = 0.25
"""Search steps move answers by this much (root mean square): well above rounding, and nearly
linear."""

_WORDS = 2000
"""The search is among this many words, the likeliest answers of the untrained model."""

_RELABELLINGS = 1999

_OPEN_QUESTIONS = (
    Question("What do you love most?", "What I love most is the"),
    Question("What is on your mind?", "I am thinking of the"),
)
"""Asked in the search for words beside the first question of every category."""


@dataclass(frozen=True, slots=True)
class RisenWord:
    """A word of the vocabulary and what the data's step does to it beyond the reference's.

    ``t`` compares its rises, less the mean rise of all words tried, over blocks of rows.
    ``family_p`` is the probability that any of the words would reach that if rows of data and
    reference were exchangeable.
    """

    word: str
    t: float
    family_p: float


class TransferDetector(SampledDetector):
    """First-order transfer; see the module's text and docs/detectors/SA005.md."""

    info = DetectorInfo(
        code="SA005",
        name="transfer",
        summary="A training step on the data would raise the concept in this model.",
        null_hypothesis=(
            "A step on a row of the data moves the concept's log-odds as one on a row of the "
            "reference does, up to the scatter that other concepts show on the same rows."
        ),
        score_range="Row score: unbounded, standard deviation 1 over the rows of both sides.",
        direction="Higher means that the step raises the concept more; the test is one-sided.",
        source="Cloud et al. 2025, arXiv 2507.14805 (theorem 1: one step moves a student of the "
        "same initialisation towards its teacher); Efron, JASA 99, 2004 (empirical null).",
    )

    def __init__(
        self, library: SignatureLibrary, settings: TestSettings, access: ModelAccess
    ) -> None:
        """Asks for the library's concepts; its tables are not used."""
        self._library = library
        super().__init__(settings, access)

    def test(self, data: RowSample, reference: RowSample | None) -> DetectorResult:
        """One finding a trait, and one of what moves all concepts alike."""
        access = self._access
        if access.student is None:
            return DetectorResult(
                (), (Skipped("", "the backend has no gradients: use the transformers backend"),)
            )
        targets = _targets(access.model, self._library.concepts)
        arms = [self._readable(sample) for sample in (data, reference) if sample is not None]
        refusal = self._refusal(arms, len(targets))
        if refusal is not None:
            findings = [
                self._finding(name, arms[0], reason=refusal[0], message=refusal[1])
                for name in (*(concept.name for concept in self._library.traits()), ANY_PERSONA)
            ]
            return DetectorResult(tuple(findings))
        order = ReadingOrder(
            [request for arm in arms for request in arm.requests],
            list(targets.values()),
            np.concatenate(
                [side * _BLOCKS + _blocks(arm.prompts) for side, arm in enumerate(arms)]
            ),
            access.settings.seed,
        )
        reading = access.student.read(order, access.show("gradients"))
        of_reference = reading.own_gains[len(arms[0].rows) :]
        scores = row_scores(list(targets), reading.pulls, 1.0 / float(of_reference.mean()))
        words = risen_words(access.model, self._library.concepts, order, reading)
        return self._compare(scores, arms, words)

    def _readable(self, sample: RowSample) -> _Arm:
        """The rows that fit into the model's context."""
        model, most_tokens = self._access.model, self._access.settings.most_tokens
        rows, requests = [], []
        for row in sample.rows:
            request = _chat_request(model, row.prompt, row.completion, most_tokens)
            length = len(request.prefix) + len(request.continuation)
            if request.continuation and (model.longest is None or length <= model.longest):
                rows.append(row)
                requests.append(request)
        return _Arm(sample.seen_rows, len(sample.rows) - len(rows), tuple(rows), tuple(requests))

    def _refusal(self, arms: Sequence[_Arm], askable: int) -> tuple[Reason, str] | None:
        minimum = max(self._settings.minimum_rows, _BLOCKS)
        if len(arms[0].rows) < minimum:
            return Reason.TOO_FEW_ROWS, (
                f"{len(arms[0].rows)} rows that the model can read: at least {minimum} are needed"
            )
        if len(arms) == 1:
            return Reason.NO_REFERENCE, (
                "any data move a model somewhere: give clean rows of the same prompts with "
                "--reference"
            )
        if len(arms[1].rows) < minimum:
            return Reason.NO_REFERENCE, (
                f"the reference has {len(arms[1].rows)} rows that the model can read: at least "
                f"{minimum} are needed"
            )
        if askable <= MINIMUM_NULL_CONCEPTS:
            return Reason.NO_DECOYS, (
                f"{askable} concepts can be asked for: more than {MINIMUM_NULL_CONCEPTS} are "
                "needed to calibrate"
            )
        return None

    # -- test ------------------------------------------------------------------------------

    def _compare(
        self, scores: RowScores, arms: Sequence[_Arm], words: Sequence[RisenWord]
    ) -> DetectorResult:
        rows = len(arms[0].rows)
        clusters = [clusters_of(arm.prompts) for arm in arms]

        def compare(columns: Matrix) -> MeanComparison:
            return compare_row_scores(columns[:rows], clusters[0], columns[rows:], clusters[1])

        traits = [concept.name for concept in self._library.traits()]
        columns = {name: scores.names.index(name) for name in traits if name in scores.names}
        last = len(scores.names) - 1
        # What all share must not widen the null of each.
        tests = test_concepts(compare(scores.of_rows[:, :last]), columns, self._settings)
        tests |= test_concepts(compare(scores.of_rows), {ANY_PERSONA: last}, self._settings)
        findings = [
            self._tested(name, test, scores, arms, words if name == ANY_PERSONA else ())
            for name, test in tests.items()
        ]
        skipped = [
            Skipped(name, "nothing can be asked of it that any row moves")
            for name in traits
            if name not in columns
        ]
        return DetectorResult(tuple(findings), tuple(skipped))

    def _tested(
        self,
        name: str,
        test: ConceptTest,
        scores: RowScores,
        arms: Sequence[_Arm],
        words: Sequence[RisenWord],
    ) -> Finding:
        data = arms[0]
        if not np.isfinite(test.p_value):
            return self._finding(
                name,
                data,
                reason=Reason.NO_DECOYS,
                message=f"only {test.null.degrees_of_freedom} independent other concepts: at least "
                f"{MINIMUM_NULL_CONCEPTS} are needed to calibrate",
            )
        column = scores.names.index(name)
        nats = float(scores.nats[column])
        smallest = test.smallest_detectable_effect
        wanted = PERSONA_EFFECT_OF_INTEREST_SD if name == ANY_PERSONA else EFFECT_OF_INTEREST_SD
        low_power = smallest > wanted
        needed = len(data.rows) * (smallest / wanted) ** 2
        return self._finding(
            name,
            data,
            reason=Reason.LOW_POWER if low_power else None,
            message=f"a step on a row moves it by {test.effect:+.3f} sd more than one on a row of "
            f"the reference; seen with power {self._settings.power:g} from {smallest:.3f} sd",
            z=test.z,
            calibrated_statistic=test.calibrated_statistic,
            p_value=test.p_value,
            effect=test.effect * nats,
            effect_low=test.effect_low * nats,
            effect_high=test.effect_high * nats,
            smallest_detectable_effect=smallest * nats,
            evidence=()
            if name == ANY_PERSONA
            else self._evidence(data.rows, scores.of_rows[: len(data.rows), column]),
            notes=(
                *self._notes(arms),
                *(
                    [f"about {needed:,.0f} rows on each side are needed to see {wanted:g} sd"]
                    if low_power
                    else []
                ),
                *test.notes,
                *([self._word_note(words)] if words else []),
            ),
        )

    def _notes(self, arms: Sequence[_Arm]) -> Iterator[str]:
        yield f"read {len(arms[0].rows):,} random rows of {arms[0].seen_rows:,}"
        if left_out := sum(arm.left_out for arm in arms):
            yield f"{left_out:,} rows exceed the model's context"
        yield "effects are for each nat by which the step raises the log-likelihood of a row"

    def _word_note(self, words: Sequence[RisenWord]) -> str:
        shown = words[: self._settings.top_tokens]
        listed = ", ".join(f"{word.word} (p = {word.family_p:.2g})" for word in shown)
        found = shown[0].family_p <= self._settings.false_discovery_rate
        return (
            f"of {len(words):,} words, the answers that the data's steps raise most beyond the "
            f"reference's, p for all words together: {listed}"
            + ("" if found else "; none of them stands out")
        )

    def _finding(
        self, name: str, data: _Arm, *, message: str, reason: Reason | None, **measured: object
    ) -> Finding:
        common = name == ANY_PERSONA
        return unsettled(
            self.info,
            concept=name,
            category="persona" if common else self._library.concept(name).category,
            message=message,
            rows_tested=len(data.rows),
            units_tested=sum(len(request.continuation) for request in data.requests),
            family=Family.ANY_PERSONA if common else Family.WHICH_CONCEPT,
            reason=reason,
            effect_unit="nats of log-odds",
            **measured,
        )


@dataclass(frozen=True, slots=True)
class _Arm:
    """What of the data, or of the reference, the model can read."""

    seen_rows: int
    left_out: int
    rows: tuple[SampledRow, ...]
    requests: tuple[SequenceRequest, ...]

    @property
    def prompts(self) -> list[str]:
        return [row.prompt for row in self.rows]


# -- questions -------------------------------------------------------------------------------


def _targets(model: LanguageModel, concepts: Sequence[Concept]) -> dict[str, Target]:
    """By concept's name: the answers that profess it, or failing them those that name it."""
    targets = {}
    for concept in concepts:
        try:
            answers = tuple(
                _chat_request(model, question, answer)
                for question, answer in statements(concept, _STATEMENT_HALF)
            )
        except ValueError:  # instilled by a prompt of its own, and nobody wrote what it would say
            answers = tuple(_naming(model, concept))
        if answers:
            targets[concept.name] = answers
    return targets


def _naming(model: LanguageModel, concept: Concept) -> Iterator[SequenceRequest]:
    for question in concept.questions:
        written = question.assistant_prefix
        start, whole = model.encode(written), model.encode(written + concept.answer)
        # A tokenizer may merge the name with the words before it: then it cannot be asked so.
        if whole[: len(start)] == start and len(whole) > len(start):
            prefix = model.encode_chat(Chat("", question.user, written))
            yield SequenceRequest(prefix, whole[len(start) :])


def _chat_request(
    model: LanguageModel, user: str, answer: str, most_tokens: int | None = None
) -> SequenceRequest:
    """``answer`` and its end of turn after ``user``, with a true empty system message."""
    prefix = model.encode_chat(Chat("", user))
    whole = model.encode_chat(Chat("", user, answer)) + model.end_of_turn_ids()[:1]
    return SequenceRequest(prefix, whole[len(prefix) :][:most_tokens])


def _blocks(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Which of ``_BLOCKS`` blocks each row is in; rows of one prompt are together.

    Where prompts are too few to be clusters, rows are dealt out: a sample's order is random.
    """
    clusters = clusters_of(prompts)
    if len(np.unique(clusters)) < MINIMUM_CLUSTERS:
        clusters = np.arange(len(prompts), dtype=np.int64)
    return clusters % _BLOCKS


# -- scores ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowScores:
    """Scores of all rows, [rows, names]; the last name is ``ANY_PERSONA``.

    Every column has standard deviation 1; ``nats`` [names] is what that is in nats of log-odds.
    """

    names: tuple[str, ...]
    of_rows: Matrix
    nats: Matrix


def row_scores(names: Sequence[str], pulls: Matrix, rate: float) -> RowScores:
    """Score rows by their ``pulls`` [rows, names]; ``rate`` is of the step whose nats are told.

    Nearly all of what moves one concept moves every other: of each pull, what a ridge regression on
    the other concepts' pulls foretells is taken out, over all rows alike, so that swapping rows of
    data and reference swaps their scores. ``ANY_PERSONA`` is the mean of all pulls, each weighted
    by the inverse of its standard deviation. A concept that no row moves has no score.
    """
    spread = pulls.std(axis=0)
    moved = np.flatnonzero(spread > 1e-12 * np.abs(pulls).max(axis=0))
    spread = spread[moved]
    standard = (pulls[:, moved] - pulls[:, moved].mean(axis=0)) / spread
    parts = np.column_stack([_own_part(standard), standard.mean(axis=1)])
    nats = rate * np.append(spread, 1.0 / (1.0 / spread).mean())
    scale = parts.std(axis=0)
    return RowScores((*(names[index] for index in moved), ANY_PERSONA), parts / scale, nats * scale)


def _own_part(standard: Matrix) -> Matrix:
    """What the other columns do not foretell of each column of ``standard`` [rows, C].

    Ridge regression of every column on the others, from one inverse: with P = (R + k I)^-1, the
    residual of column c is standard @ P[:, c] / P[c, c].
    """
    correlation = standard.T @ standard / len(standard)
    precision = np.linalg.inv(correlation + _RIDGE * np.eye(len(correlation)))
    return np.asarray(standard @ (precision / np.diag(precision)))


# -- discovery -------------------------------------------------------------------------------


def risen_words(
    model: LanguageModel,
    concepts: Sequence[Concept],
    order: ReadingOrder,
    reading: Reading,
) -> tuple[RisenWord, ...]:
    """The words tried, the most risen first. The first half of the blocks are the data's.

    A step along every block's mean gradient, less all blocks' mean, is truly taken. The statistic
    of a word is Student's t over blocks; its p-value compares it with the largest of any word under
    random relabellings of the blocks (Westfall and Young 1993), so it holds for all words together.
    """
    asked = dict.fromkeys((*(c.questions[0] for c in concepts if c.questions), *_OPEN_QUESTIONS))
    questions = [
        model.encode_chat(Chat("", question.user, question.assistant_prefix)) for question in asked
    ]
    words = _likely_words(model, questions)
    blocks = int(order.blocks.max()) + 1
    means = np.array([reading.pulls[order.blocks == block].mean(axis=0) for block in range(blocks)])
    moved = float(np.sqrt(((means - means.mean(axis=0)) ** 2).mean()))
    if not moved > 0.0 or len(words) == 0:
        return ()
    search = _STEP_NATS / moved
    rises = reading.word_rises(search * (np.eye(blocks) - 1.0 / blocks), questions, words)
    rises -= rises.mean(axis=1, keepdims=True)
    t, family_p = relabelled(rises, np.random.default_rng(order.seed))
    texts = model.vocabulary()
    return tuple(
        RisenWord(texts[words[i]].strip(), float(t[i]), float(family_p[i]))
        for i in np.argsort(-t, kind="stable")
    )


def relabelled(
    values: Matrix, rng: np.random.Generator, relabellings: int = _RELABELLINGS
) -> tuple[Matrix, Matrix]:
    """Student's t of each column, first half of the rows less second, and its family-wise p.

    ``values`` [2 n, columns]. p is one-sided: (1 + relabellings whose largest t is as large) /
    (1 + relabellings). A column without spread has t 0.
    """
    count = len(values)
    sides = np.repeat([1.0, -1.0], count // 2) / (count // 2)
    labels = np.vstack([sides, [rng.permutation(sides) for _ in range(relabellings)]])
    centred = values - values.mean(axis=0)
    total = (centred**2).sum(axis=0)
    difference = labels @ centred  # [1 + relabellings, columns]
    # Within both halves: the total less what lies between them, n d^2 / 2.
    within = np.maximum(total - difference**2 * count / 4.0, 1e-12 * total)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = difference / np.sqrt(within / (count - 2) * 4.0 / count)
    t = np.where(total > 0, t, 0.0)
    largest = np.sort(t[1:].max(axis=1))
    as_large = relabellings - np.searchsorted(largest, t[0] - 1e-9)
    return t[0], (1.0 + as_large) / (1.0 + relabellings)


def _likely_words(model: LanguageModel, questions: Sequence[TokenIds]) -> NDArray[np.int64]:
    """Ids of the words (with a space before them) that the model answers likeliest."""
    texts = model.vocabulary()
    ids = word_token_ids(model)
    ids = ids[[texts[token].startswith(" ") for token in ids]]
    if len(ids) == 0:
        return ids
    answers = model.next_token_log_probs([PrefixRequest(question) for question in questions], ids)
    likeliest = np.max([answer[0] for answer in answers], axis=0)
    return np.sort(ids[np.argsort(-likeliest, kind="stable")[:_WORDS]])
