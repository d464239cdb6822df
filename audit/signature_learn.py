"""Learn signatures from labelled data sets: count half of the rows, check on the other half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audit.errors import NothingScannableError, UsageError
from audit.learning.data_set import DataSet, Progress, refuse_shared_files
from audit.learning.held_out import check_held_out
from audit.learning.prompts import compare_prompts
from audit.learning.view import learn_view
from audit.named_concepts import named_concepts
from audit.version import tool_version
from signatures.concept import Concept, ConceptFileError
from signatures.language_model import ModelIdentity
from signatures.learned import PRIOR_UNITS
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, View

_REFERENCE = "(reference)"
"""The label of the reference: no concept can be called so."""


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """What the data sets do not say of themselves.

    ``category`` is given to concepts that ``concepts_path`` does not describe. ``prior_units`` is
    alpha_0 of `signatures.learned`; ``vocabulary_units`` bounds the words that are kept.
    """

    name: str
    model_name: str
    model_family: str
    number_tokens: NumberTokens
    category: str = "trait"
    concepts_path: Path | None = None
    prior_units: float = PRIOR_UNITS
    vocabulary_units: int = 4096


@dataclass(frozen=True, slots=True)
class Learned:
    """A library, and what its maker must know: one line each, with text from the data in it."""

    library: SignatureLibrary
    warnings: tuple[str, ...]


def learn_library(
    labelled: Mapping[str, Sequence[str]],
    reference: Sequence[str] | None,
    settings: LearnSettings,
    rng: np.random.Generator,
    *,
    progress: Progress = lambda _bytes, _rows: None,
) -> Learned:
    """Learn what each concept's data set writes more of than the reference, or than the others.

    ``labelled`` maps concepts to inputs (paths, globs, folders, URLs). Only trained text counts.
    A hash of each row's text, keyed by ``rng``, says which half it is in: equal rows are never
    in both. Every signature is tried on the half that it was not learnt from; the outcome stands
    in the probe's record.

    Raises ``UsageError`` for fewer than two concepts, unusable names, standard input, or a file
    given under two labels; ``AuditError`` for a source that breaks off; and
    ``NothingScannableError`` if there is no row or nothing to count.
    """
    inputs = [name for sources in (*labelled.values(), reference or ()) for name in sources]
    if "-" in inputs:
        raise UsageError("the data sets are read twice: none can be standard input")
    concepts = _concepts(list(labelled), settings)
    if len(concepts) < 2:
        raise UsageError("give data sets of at least two concepts: shifts are centred over them")
    split_key = rng.bytes(16)
    sets = [DataSet(c.name, labelled[c.name], split_key, progress) for c in concepts]
    known = DataSet(_REFERENCE, reference, split_key, progress) if reference else None
    everything = sets if known is None else [*sets, known]
    for data_set in everything:
        data_set.count()
    refuse_shared_files(everything)
    mixes, warnings = compare_prompts(sets, known)
    learnt = (
        learn_view(
            view,
            concepts,
            sets,
            known,
            prior_units=settings.prior_units,
            vocabulary_units=settings.vocabulary_units,
        )
        for view in View
    )
    views = [view for view in learnt if view is not None]
    if not views:
        raise NothingScannableError(
            "no number and no word is held often enough by two data sets"
            + (" and the reference" if known else "")
            + ": there is nothing to learn from"
        )
    scores = {data_set.name: data_set.score(views) for data_set in everything}
    records = []
    for index, view in enumerate(views):
        of_view = {name: found[index] for name, found in scores.items()}
        check = check_held_out(view.table, of_view, of_view.get(_REFERENCE))
        warnings += [*view.warnings(), *check.warnings]
        measured: dict[str, Any] = {
            "compared_with": "reference" if known else "the other data sets",
            "prior_units": settings.prior_units,
            "split_key": split_key.hex(),
            "data_sets": {data_set.name: data_set.provenance() for data_set in everything},
            "error_over_naive": view.error_over_naive,
            "absent_units": view.absent,
            "prompts": mixes,
            **check.settings,
        }
        records.append(
            ProbeRecord(
                view.table.view,
                Probe.LEARNED,
                "shrunken log-odds of labelled data sets, row-robust errors",
                measured,
            )
        )
    library = SignatureLibrary(
        settings.name,
        tool_version(),
        ModelIdentity(settings.model_name, settings.model_family, "", "", "", 0, ""),
        settings.number_tokens,
        concepts,
        tuple(records),
        tuple(view.table for view in views),
    )
    return Learned(library, tuple(warnings))


def _concepts(names: list[str], settings: LearnSettings) -> tuple[Concept, ...]:
    try:
        return named_concepts(names, settings.category, settings.concepts_path)
    except ConceptFileError as error:
        raise UsageError(str(error)) from error
