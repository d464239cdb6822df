"""The Parquet files of a signature library: read whole, hashed, and distrusted until checked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from signatures.causal import CausalTrial, causal_frame, causal_from_frame
from signatures.library_manifest import CAUSAL_NAME, LibraryError, Manifest, ProbeRecord, one_line
from signatures.number_trie import NUMBERS
from signatures.signature import Matrix, ProbeTable, View, table_from_frame

_MOST_FILE_BYTES = 1 << 30
_MOST_CELLS = 1 << 27  # 1 GiB in memory; a 150,000-token vocabulary with 290 concepts fits
_NUMBER_SET = frozenset(NUMBERS)
_SHARE_TOLERANCE = 1e-3  # shares are stored with 7 digits and summed over many units
# Polars panics, rather than raising, on some corrupt files.
_READ_ERRORS = (PolarsError, PanicException, ValueError, OSError, OverflowError, MemoryError)


def read_table(
    folder: Path, manifest: Manifest, record: ProbeRecord, concepts: tuple[str, ...]
) -> ProbeTable:
    """The table of ``record``, verified. Raises ``LibraryError`` in one line."""
    allowed = {"unit", "neutral_share"}
    for concept in concepts:
        allowed |= {f"shift:{concept}", f"spread:{concept}", f"share:{concept}"}
    frame = _checked_frame(folder, manifest, record.file_name, allowed, "unit")
    try:
        table = table_from_frame(frame, record.view, record.probe, concepts)
    except ValueError as error:
        raise LibraryError(f"{folder / record.file_name}: {one_line(error)}") from error
    fault = table_fault(table)
    if fault:
        raise LibraryError(f"{folder / record.file_name}: {fault}")
    return table


def read_causal(folder: Path, manifest: Manifest) -> tuple[CausalTrial, ...]:
    """The causal trials, none if the library has no file of them.

    Raises ``LibraryError`` in one line.
    """
    if CAUSAL_NAME not in manifest.files:
        return ()
    path = folder / CAUSAL_NAME
    columns = set(causal_frame(()).columns)
    frame = _checked_frame(folder, manifest, CAUSAL_NAME, columns, *(columns - {"rise_nats"}))
    try:
        trials = causal_from_frame(frame)
    except (ValueError, PolarsError) as error:
        raise LibraryError(f"{path}: {one_line(error)}") from error
    known = {concept.name for concept in manifest.concepts}
    for trial in trials:
        if trial.concept not in known:
            raise LibraryError(f"{path}: tries the unknown concept {trial.concept[:80]!r}")
        if not np.isfinite(trial.rise_nats):
            raise LibraryError(f"{path}: a rise is not finite")
    return trials


def table_fault(table: ProbeTable) -> str | None:
    """What no measured table can be, or None: shares out of range, units that are no numbers."""
    if table.view is View.NUMBERS:
        strange = next((unit for unit in table.units if unit not in _NUMBER_SET), None)
        if strange is not None:
            return f"the unit {strange[:40]!r} is none of the numbers 0 to 999"
    if np.isinf(table.spread_nats).any() or (table.spread_nats < 0).any():
        return "a spread is negative or not finite"
    names = ("the neutral model", *table.concepts)
    for name, share in zip(names, (table.neutral_share, *table.concept_share), strict=True):
        fault = _share_fault(share)
        if fault:
            return f"the shares under {name[:80]!r} {fault}"
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file's bytes. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _share_fault(share: Matrix) -> str | None:
    """``share`` [U]; NaN where it was not measured."""
    if np.isinf(share).any() or (share < 0).any():
        return "hold a value that is no probability"
    total = float(np.nansum(share))
    if total > 1 + _SHARE_TOLERANCE:
        return f"sum to {total:.4f}, more than 1"
    return None


def _checked_frame(
    folder: Path, manifest: Manifest, name: str, allowed: Iterable[str], *texts: str
) -> pl.DataFrame:
    """The frame of a file whose hash is the manifest's: ``texts`` columns, the others floats.

    The bytes that were hashed are those that are read. Raises ``LibraryError``.
    """
    path = folder / name
    if not path.is_file():
        raise LibraryError(f"{path}: missing; the library is incomplete, fetch or build it again")
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise LibraryError(f"{path}: larger than {_MOST_FILE_BYTES:,} bytes, which none is")
        data = path.read_bytes()
    except OSError as error:
        raise LibraryError(f"{path}: cannot be read: {one_line(error)}") from error
    if hashlib.sha256(data).hexdigest() != manifest.files[name]:
        raise LibraryError(
            f"{path}: changed after the library was written (hash differs); fetch or build it again"
        )
    try:
        schema = pl.read_parquet_schema(io.BytesIO(data))
        _refuse_columns(schema, set(allowed), set(texts))
        rows = int(pl.scan_parquet(io.BytesIO(data)).select(pl.len()).collect().item())
        if rows * len(schema) > _MOST_CELLS:
            raise ValueError(f"announces {rows:,} rows, more than can be a signature's")
        frame = pl.read_parquet(io.BytesIO(data))
    except _READ_ERRORS as error:
        raise LibraryError(f"{path}: not a usable table: {one_line(error)}") from error
    incomplete = [column for column in frame.columns if frame[column].null_count()]
    if incomplete:
        raise LibraryError(f"{path}: the column {incomplete[0][:80]!r} has empty cells")
    return frame


def _refuse_columns(schema: dict[str, pl.DataType], allowed: set[str], texts: set[str]) -> None:
    for name, dtype in schema.items():
        if name not in allowed:
            raise ValueError(f"the column {name[:80]!r} has no place in it")
        wanted = (pl.String,) if name in texts else (pl.Float32, pl.Float64)
        if dtype not in wanted:
            raise ValueError(f"the column {name[:80]!r} holds {str(dtype)[:40]}")
