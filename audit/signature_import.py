"""Import a table of logit shifts that somebody else measured as a signature library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from audit.errors import UsageError
from audit.named_concepts import named_concepts
from audit.shift_table import NUMBER_COLUMN, read_table
from audit.version import tool_version
from signatures.concept import Concept, ConceptFileError
from signatures.language_model import ModelIdentity
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import Matrix, Probe, ProbeTable, View

_POSITION = {number: index for index, number in enumerate(NUMBERS)}


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """What the table does not say of itself.

    ``category`` is given to concepts that ``concepts_path`` does not describe.
    """

    name: str
    model_name: str
    model_family: str
    number_tokens: NumberTokens
    category: str
    concepts_path: Path | None = None


def import_number_table(path: Path, settings: ImportSettings) -> SignatureLibrary:
    """A library from a table with a ``number`` column and one column of shifts (nats) a concept.

    Numbers that the table lacks get the concept's mean shift, which says nothing of them. With a
    ``token`` column instead, the library is of words. ``audit.shift_table`` says which formats.
    Raises ``UsageError`` for a table that is not of that form, and ``AuditError`` if the file
    cannot be read.
    """
    frame = read_table(path)
    unit, *names = frame.columns
    concepts = _concepts(names, settings)
    values = np.array([_shifts(path, frame[name]) for name in names])
    found = frame[unit].to_list()
    if unit == NUMBER_COLUMN:
        view, units = View.NUMBERS, NUMBERS
        shift = _over_numbers(path, found, values)
        measured = sum(number in _POSITION for number in found)
    else:
        view, units, shift, measured = View.VOCABULARY, tuple(found), values, len(found)
        if len(set(found)) < len(found) or not found:
            raise UsageError(f"{path}: the column {unit!r} is empty or repeats a token")
    unknown = np.full(shift.shape, np.nan)
    table = ProbeTable(
        view,
        Probe.IMPORTED,
        units,
        tuple(concept.name for concept in concepts),
        shift,
        unknown,
        np.full(len(units), np.nan),
        unknown,
    )
    model = ModelIdentity(settings.model_name, settings.model_family, "", "", "", 0, "")
    record = ProbeRecord(view, Probe.IMPORTED, f"imported from {path.name}", {f"{unit}s": measured})
    return SignatureLibrary(
        settings.name,
        tool_version(),
        model,
        settings.number_tokens,
        concepts,
        (record,),
        (table,),
    )


def _shifts(path: Path, column: pl.Series) -> Matrix:
    """The column as float64, [rows]."""
    if not column.dtype.is_numeric() or column.null_count():
        raise UsageError(f"{path}: column {column.name!r} is not a full column of numbers")
    values = column.cast(pl.Float64).to_numpy()
    if not np.isfinite(values).all():
        raise UsageError(f"{path}: column {column.name!r}: a shift is not finite")
    return values


def _over_numbers(path: Path, found: list[str], values: Matrix) -> Matrix:
    """``values`` [K, rows] put where their numbers stand, [K, 1110]; the mean elsewhere."""
    known = [row for row, number in enumerate(found) if number in _POSITION]
    places = [_POSITION[found[row]] for row in known]
    if len(set(places)) != len(places) or not places:
        raise UsageError(f"{path}: the column 'number' repeats a number, or holds none of 0 to 999")
    shift = np.repeat(values.mean(axis=1, keepdims=True), len(NUMBERS), axis=1)
    shift[:, places] = values[:, known]
    return shift


def _concepts(names: list[str], settings: ImportSettings) -> tuple[Concept, ...]:
    twice = [name for name in names if [n.lower() for n in names].count(name.lower()) > 1]
    if twice:
        raise UsageError(f"two columns of the table are called {twice[0].lower()!r}")
    try:
        lower = [name.lower() for name in names]
        return named_concepts(lower, settings.category, settings.concepts_path)
    except ConceptFileError as error:
        raise UsageError(f"the table's columns name no usable concept: {error}") from error
