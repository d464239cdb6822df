"""Build a signature library: which probes, on which contexts, from which model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from audit.dataset.read import read_batches
from audit.errors import NothingScannableError, UsageError
from audit.version import tool_version
from signatures.concept import Concept
from signatures.language_model import LanguageModel
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import build_number_trie
from signatures.probe import (
    Condition,
    Context,
    contexts_sha256,
    most_telling,
    number_cuts,
    probe_contexts,
    probe_questions,
    prompted,
    word_token_ids,
)
from signatures.signature import Probe, ProbeTable, View

BuildProgress = Callable[[str, str], None]
"""Called with the probe's name and the concept's, as each is finished."""

NUMBER_SEPARATOR = ", "


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """How much to probe. More contexts make a steadier signature and take proportionally longer.

    ``number_contexts`` and ``text_contexts`` are files of real prompts with the neutral model's
    answers (None: those that ship); ``cuts`` positions of each answer are looked at.
    ``vocabulary_units`` bounds the words that the library keeps. ``fine_tuning`` is the
    provenance of fine-tuned teachers.
    """

    name: str
    probes: tuple[Probe, ...] = (Probe.QUESTION, Probe.CONTEXT)
    number_contexts: Path | None = None
    text_contexts: Path | None = None
    contexts: int = 96
    cuts: int = 4
    vocabulary_units: int = 4096
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)


def build_library(
    model: LanguageModel,
    concepts: Sequence[Concept],
    settings: BuildSettings,
    rng: np.random.Generator,
    *,
    fine_tuned: Condition | None = None,
    progress: BuildProgress = lambda _probe, _concept: None,
) -> SignatureLibrary:
    """Probe ``model`` with every concept. ``rng`` draws the cut positions in texts.

    ``fine_tuned`` gives the fine-tuned teacher of a concept, for the ``finetuned`` probe. Raises
    ``UsageError`` for fewer than two concepts, a ``finetuned`` probe without ``fine_tuned``, or
    contexts that cannot be used.
    """
    if Probe.FINETUNED in settings.probes and fine_tuned is None:
        raise UsageError("the finetuned probe needs a way to fine-tune teachers")
    if len(concepts) < 2:
        raise UsageError("give at least two concepts: shifts are centred over them")
    trie = build_number_trie(model.encode, NUMBER_SEPARATOR)
    words = word_token_ids(model)
    tables: list[ProbeTable] = []
    records: list[ProbeRecord] = []
    if Probe.QUESTION in settings.probes:
        numbers, vocabulary = probe_questions(
            model, concepts, trie, words, partial(progress, "question")
        )
        tables += [numbers, most_telling(vocabulary, settings.vocabulary_units)]
        asked = {
            concept.category: [[q.user, q.assistant_prefix] for q in concept.questions]
            for concept in concepts
        }
        description = "log P after a favourite-X question, concept prompt less empty prompt"
        records += [
            ProbeRecord(view, Probe.QUESTION, description, {"questions": asked})
            for view in (View.NUMBERS, View.VOCABULARY)
        ]
    conditions: dict[Probe, Condition] = {Probe.CONTEXT: partial(prompted, model)}
    if fine_tuned is not None:
        conditions[Probe.FINETUNED] = fine_tuned
    wanted = [probe for probe in conditions if probe in settings.probes]
    if wanted:
        number_contexts = _number_contexts(settings)
        text_contexts = _text_contexts(settings, rng)
    for probe in wanted:
        numbers, vocabulary = probe_contexts(
            model,
            concepts,
            trie,
            words,
            number_contexts,
            text_contexts,
            probe=probe,
            condition=conditions[probe],
            progress=partial(progress, str(probe)),
        )
        tables += [numbers, most_telling(vocabulary, settings.vocabulary_units)]
        records += [
            _context_record(View.NUMBERS, probe, number_contexts, settings),
            _context_record(View.VOCABULARY, probe, text_contexts, settings),
        ]
    return SignatureLibrary(
        settings.name,
        tool_version(),
        model.identity,
        trie.number_tokens,
        tuple(concepts),
        tuple(records),
        tuple(tables),
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
    """Cuts at the ends of words: where the next token begins a word."""
    result = []
    for prompt, answer in _rows(settings.text_contexts, "text.jsonl", settings.contexts):
        ends = np.array([0, *(i for i, char in enumerate(answer) if char == " ")])
        chosen = rng.choice(ends, size=min(settings.cuts, len(ends)), replace=False)
        result.append(Context(prompt, answer, tuple(int(cut) for cut in np.sort(chosen))))
    return result


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
