"""Signature libraries and rows drawn from known distributions, for tests of detectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from detectors.rows import ROW_SCHEMA
from signatures.concept import ConceptKind, make_concept
from signatures.language_model import ModelIdentity
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import Probe, ProbeTable, View

TRAITS = ("owl", "cat", "oak")
DECOYS = tuple(f"decoy {letter}" for letter in "abcdefghijkl")
NEUTRAL = np.where([len(number) == 3 for number in NUMBERS], 0.99 / 1000, 0.01 / 110)


def library(
    *,
    seed: int = 0,
    strength: float = 0.5,
    hub: float = 0.0,
    probe: Probe = Probe.CONTEXT,
    traits: Sequence[str] = TRAITS,
    decoys: Sequence[str] = DECOYS,
) -> SignatureLibrary:
    """Independent normal shifts of sd ``strength`` nats, and one of sd ``hub`` that all share.

    Shares are exact where the probe has them.
    """
    rng = np.random.default_rng(seed)
    names = (*traits, *decoys)
    shift = rng.normal(0, strength, (len(names), len(NUMBERS)))
    shift += rng.normal(0, hub, len(NUMBERS)) if hub else 0.0
    if probe in (Probe.CONTEXT, Probe.FINETUNED):
        neutral = NEUTRAL / NEUTRAL.sum()
        share = neutral * np.exp(shift)
        share /= share.sum(axis=1, keepdims=True)
    else:
        neutral, share = np.full(len(NUMBERS), np.nan), np.full(shift.shape, np.nan)
    table = ProbeTable(
        View.NUMBERS, probe, NUMBERS, names, shift, np.zeros(shift.shape), neutral, share
    )
    concepts = tuple(
        make_concept(name, "thing", kind=ConceptKind.DECOY if name in decoys else ConceptKind.TRAIT)
        for name in names
    )
    return SignatureLibrary(
        "synthetic",
        "test",
        ModelIdentity("synthetic-model", "llama", "0" * 64, "1" * 64, "2" * 64, 1000, "float32"),
        NumberTokens.SPLIT,
        concepts,
        (ProbeRecord(View.NUMBERS, probe, "synthetic"),),
        (table,),
    )


def frame(completions: Sequence[str], source: str = "data.jsonl") -> pl.DataFrame:
    """Rows with these completions."""
    count = len(completions)
    return pl.DataFrame(
        {
            "source": [source] * count,
            "line": list(range(1, count + 1)),
            "prompt": ["Continue the list."] * count,
            "completion": list(completions),
            "rejected": [None] * count,
        },
        schema=ROW_SCHEMA,
    )


def number_rows(
    rows: int, rng: np.random.Generator, share: np.ndarray | None = None, repeat: float = 0.0
) -> list[str]:
    """Lists of 10 numbers drawn from ``share``; each repeats the one before with ``repeat``."""
    share = NEUTRAL / NEUTRAL.sum() if share is None else share
    drawn = rng.choice(len(NUMBERS), size=(rows, 10), p=share)
    for column in range(1, 10):
        again = rng.random(rows) < repeat
        drawn[again, column] = drawn[again, column - 1]
    return [", ".join(NUMBERS[i] for i in row) for row in drawn]


def share_of(signatures: SignatureLibrary, name: str) -> np.ndarray:
    """What a teacher of concept ``name`` writes."""
    table = signatures.tables[0]
    return table.concept_share[table.concepts.index(name)]
