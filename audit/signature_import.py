"""Import a table of logit shifts that somebody else measured as a signature library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from audit.errors import AuditError, UsageError
from audit.version import tool_version
from signatures.concept import Concept, ConceptFileError, load_concepts, make_concept
from signatures.language_model import ModelIdentity
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import Probe, ProbeTable, View


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
    """A library from a CSV with a ``number`` column and one column of shifts (nats) a concept.

    Numbers that the table lacks get the concept's mean shift, which says nothing of them.
    Raises ``UsageError`` for a table that is not of that form, and ``AuditError`` if the file
    cannot be read.
    """
    try:
        frame = pl.read_csv(path, schema_overrides={"number": pl.String})
    except (OSError, pl.exceptions.PolarsError) as error:
        detail = " ".join(str(error).split())[:200]
        raise AuditError(f"{path}: cannot be read as CSV: {detail}") from error
    if "number" not in frame.columns or len(frame.columns) < 3:
        raise UsageError(
            f"{path}: needs a column 'number' and at least two columns of shifts, one a concept"
        )
    position = {number: index for index, number in enumerate(NUMBERS)}
    rows = [position.get(number) for number in frame["number"].to_list()]
    known = [(source, row) for source, row in enumerate(rows) if row is not None]
    if len({row for _, row in known}) != len(known) or not known:
        raise UsageError(f"{path}: the column 'number' repeats a number, or holds none of 0 to 999")
    names = [column for column in frame.columns if column != "number"]
    concepts = _concepts(names, settings)
    shift = np.empty((len(names), len(NUMBERS)))
    for index, name in enumerate(names):
        column = frame[name]
        if not column.dtype.is_numeric() or column.null_count():
            raise UsageError(f"{path}: column {name!r} is not a full column of numbers")
        values = column.cast(pl.Float64).to_numpy()
        shift[index] = values.mean()
        shift[index, [row for _, row in known]] = values[[source for source, _ in known]]
    if not np.isfinite(shift).all():
        raise UsageError(f"{path}: a shift is not finite")
    unknown = np.full(shift.shape, np.nan)
    table = ProbeTable(
        View.NUMBERS,
        Probe.IMPORTED,
        NUMBERS,
        tuple(concept.name for concept in concepts),
        shift,
        unknown,
        np.full(len(NUMBERS), np.nan),
        unknown,
    )
    model = ModelIdentity(settings.model_name, settings.model_family, "", "", "", 0, "")
    record = ProbeRecord(
        View.NUMBERS, Probe.IMPORTED, f"imported from {path.name}", {"numbers": len(known)}
    )
    return SignatureLibrary(
        settings.name,
        tool_version(),
        model,
        settings.number_tokens,
        concepts,
        (record,),
        (table,),
    )


def _concepts(names: list[str], settings: ImportSettings) -> tuple[Concept, ...]:
    described = {}
    if settings.concepts_path is not None:
        described = {concept.name: concept for concept in load_concepts(settings.concepts_path)}
    try:
        return tuple(
            described.get(name.lower()) or make_concept(name.lower(), settings.category)
            for name in names
        )
    except ConceptFileError as error:
        raise UsageError(f"the table's columns name no usable concept: {error}") from error
