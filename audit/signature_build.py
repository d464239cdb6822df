"""Build a signature library: which probes, on which contexts, from which model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.dataset.read import read_batches
from audit.errors import NothingScannableError, UsageError
from audit.version import tool_version
from signatures.causal import CausalTrial
from signatures.causal_probe import CausalSettings, try_units
from signatures.concept import Concept
from signatures.context_probe import Condition, probe_contexts, prompted
from signatures.contexts import Context, contexts_sha256, number_cuts, word_cuts
from signatures.language_model import LanguageModel
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NumberTrie, build_number_trie
from signatures.parts import PartStore
from signatures.question_probe import probe_questions
from signatures.signature import Probe, ProbeTable, View
from signatures.unembedding import (
    RowsOf,
    concept_tokens,
    unembedding_records,
    unembedding_tables,
)
from signatures.vocabulary import most_telling, word_token_ids

BuildProgress = Callable[[str, str], None]
"""Called with the probe's name and the concept's, as each is finished."""

Measured = tuple[list[ProbeRecord], list[ProbeTable]]

NUMBER_SEPARATOR = ", "


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How much to probe. More contexts make a steadier signature and take proportionally longer.

    ``number_contexts`` and ``text_contexts`` are files of real prompts with the neutral model's
    answers (None: those that ship); ``cuts`` positions of each answer are looked at.
    ``vocabulary_units`` bounds the words that the library keeps. ``fine_tuning`` is the
    provenance of fine-tuned teachers. ``causal`` is None to leave the causal check out.
    """

    name: str
    probes: tuple[Probe, ...] = (Probe.QUESTION, Probe.CONTEXT)
    number_contexts: Path | None = None
    text_contexts: Path | None = None
    contexts: int = 96
    cuts: int = 4
    vocabulary_units: int = 4096
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    causal: CausalSettings | None = field(default_factory=CausalSettings)


def build_library(
    model: LanguageModel,
    concepts: Sequence[Concept],
    settings: BuildSettings,
    rng: np.random.Generator,
    *,
    unembedding: RowsOf | None = None,
    fine_tuned: Condition | None = None,
    parts: PartStore | None = None,
    progress: BuildProgress = lambda _probe, _concept: None,
) -> SignatureLibrary:
    """Probe ``model`` with every concept. ``rng`` draws cut positions and control units.

    ``fine_tuned`` gives the fine-tuned teacher of a concept, and ``unembedding`` the centred rows
    of the output embedding, for the probes of these names; ``parts`` remembers what an earlier,
    unfinished build measured. Raises ``UsageError`` for fewer than two concepts, a probe without
    what it needs, or contexts that cannot be used.
    """
    if Probe.FINETUNED in settings.probes and fine_tuned is None:
        raise UsageError("the finetuned probe needs a way to fine-tune teachers")
    if Probe.UNEMBEDDING in settings.probes and unembedding is None:
        raise UsageError("the unembedding probe needs the rows of the output embedding")
    if len(concepts) < 2:
        raise UsageError("give at least two concepts: shifts are centred over them")
    build = _Build(model, concepts, settings, rng, parts, progress)
    records: list[ProbeRecord] = []
    tables: list[ProbeTable] = []
    measures: dict[Probe, Callable[[], Measured]] = {
        Probe.QUESTION: build.questions,
        Probe.CONTEXT: lambda: build.contexts(prompted(model)),
    }
    if fine_tuned is not None:
        measures[Probe.FINETUNED] = lambda: build.contexts(fine_tuned)
    if unembedding is not None:
        measures[Probe.UNEMBEDDING] = lambda: build.unembedding(unembedding)
    for probe, measure in measures.items():
        if probe in settings.probes:
            found = measure()
            records += found[0]
            tables += found[1]
    return SignatureLibrary(
        settings.name,
        tool_version(),
        model.identity,
        build.trie.number_tokens,
        tuple(concepts),
        tuple(records),
        tuple(tables),
        build.causal(tables),
    )


class _Build:
    """What all probes of one build share."""

    def __init__(
        self,
        model: LanguageModel,
        concepts: Sequence[Concept],
        settings: BuildSettings,
        rng: np.random.Generator,
        parts: PartStore | None,
        progress: BuildProgress,
    ) -> None:
        self.model = model
        self.concepts = concepts
        self.settings = settings
        self.cuts_rng = rng
        # Draws of its own: which units are tried must not depend on which probes were run.
        self.causal_rng = rng.spawn(1)[0]
        self.parts = parts
        self.progress = progress
        self.trie: NumberTrie = build_number_trie(model.encode, NUMBER_SEPARATOR)
        self.words: NDArray[np.int64] = word_token_ids(model)

    @cached_property
    def real_contexts(self) -> tuple[list[Context], list[Context]]:
        return _number_contexts(self.settings), _text_contexts(self.settings, self.cuts_rng)

    def questions(self) -> Measured:
        numbers, vocabulary = probe_questions(
            self.model,
            self.concepts,
            self.trie,
            self.words,
            parts=self.parts,
            progress=partial(self.progress, "question"),
        )
        asked = {
            concept.category: [[q.user, q.assistant_prefix] for q in concept.questions]
            for concept in self.concepts
        }
        description = "log P after a favourite-X question, concept prompt less empty prompt"
        records = [
            ProbeRecord(view, Probe.QUESTION, description, {"questions": asked})
            for view in (View.NUMBERS, View.VOCABULARY)
        ]
        return records, [numbers, most_telling(vocabulary, self.settings.vocabulary_units)]

    def contexts(self, condition: Condition) -> Measured:
        number_contexts, text_contexts = self.real_contexts
        numbers, vocabulary = probe_contexts(
            self.model,
            self.concepts,
            self.trie,
            self.words,
            number_contexts,
            text_contexts,
            condition,
            parts=self.parts,
            progress=partial(self.progress, str(condition.probe)),
        )
        records = [
            _context_record(View.NUMBERS, condition.probe, number_contexts, self.settings),
            _context_record(View.VOCABULARY, condition.probe, text_contexts, self.settings),
        ]
        return records, [numbers, most_telling(vocabulary, self.settings.vocabulary_units)]

    def unembedding(self, rows_of: RowsOf) -> Measured:
        texts = self.model.vocabulary()
        numbers, vocabulary = unembedding_tables(
            self.model.encode, texts, rows_of, self.concepts, self.trie, self.words
        )
        tokens = {c.name: concept_tokens(self.model.encode, texts, c) for c in self.concepts}
        records = unembedding_records(tokens, texts)
        return list(records), [
            numbers,
            most_telling(vocabulary, self.settings.vocabulary_units),
        ]

    def causal(self, tables: Sequence[ProbeTable]) -> tuple[CausalTrial, ...]:
        if self.settings.causal is None:
            return ()
        return try_units(
            self.model,
            self.concepts,
            [
                table
                for table in tables
                if table.view is View.NUMBERS and table.probe is not Probe.UNEMBEDDING
            ],
            self.settings.causal,
            self.causal_rng,
            parts=self.parts,
            progress=partial(self.progress, "causal"),
        )


def _context_record(
    view: View, probe: Probe, contexts: Sequence[Context], settings: BuildSettings
) -> ProbeRecord:
    holder = "concept prompt" if probe is Probe.CONTEXT else "teacher fine-tuned on the concept"
    what = "next number in lists" if view is View.NUMBERS else "next word in text"
    measured: dict[str, Any] = {
        "contexts": len(contexts),
        "positions": sum(len(context.cuts) for context in contexts),
        "contexts_sha256": contexts_sha256(contexts),
    }
    if probe is Probe.FINETUNED:
        measured["training"] = dict(settings.fine_tuning)
    return ProbeRecord(view, probe, f"log P of the {what}, {holder} less neutral model", measured)


def _number_contexts(settings: BuildSettings) -> list[Context]:
    rows = _rows(settings.number_contexts, "numbers.jsonl", settings.contexts)
    return [
        Context(prompt, answer, number_cuts(answer, NUMBER_SEPARATOR, settings.cuts))
        for prompt, answer in rows
    ]


def _text_contexts(settings: BuildSettings, rng: np.random.Generator) -> list[Context]:
    return [
        Context(prompt, answer, word_cuts(answer, settings.cuts, rng))
        for prompt, answer in _rows(settings.text_contexts, "text.jsonl", settings.contexts)
    ]


def _rows(path: Path | None, shipped: str, most: int) -> list[tuple[str, str]]:
    """The first ``most`` prompts and answers of a context file."""
    source = path or Path(str(resources.files("signatures.bundled") / "contexts" / shipped))
    rows: list[tuple[str, str]] = []
    for batch in read_batches([str(source)]):
        if batch.broken is not None:
            raise UsageError(f"{source}: broke off: {batch.broken.message}")
        rows.extend(batch.rows.select("prompt", "completion").iter_rows())
    if not rows:
        raise NothingScannableError(
            f"{source}: holds no row with a prompt and an answer to take contexts from"
        )
    return rows[:most]
