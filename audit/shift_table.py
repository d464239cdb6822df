"""Tables of shifts as files: a column of units and one column of nats a concept.

The column ``number`` or ``token`` holds the units. CSV, Parquet and JSON (a list of objects) hold
the columns as they are; safetensors holds ``shift_nats`` [concepts, units] and the names as JSON
texts in its metadata.
"""

from __future__ import annotations

import enum
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from audit.errors import AuditError, MissingExtraError, UsageError

NUMBER_COLUMN = "number"
TOKEN_COLUMN = "token"
UNIT_COLUMNS = (NUMBER_COLUMN, TOKEN_COLUMN)

_TENSOR = "shift_nats"
# Polars panics, rather than raising, on some corrupt files.
_READ_ERRORS = (
    PolarsError,
    PanicException,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
)
# What spreadsheets take for a formula (also full-width), after any space or quote.
_FORMULA = re.compile(r"['\s]*[=+\-@＝＋－＠\t\r]")


class TableFormat(enum.StrEnum):
    """Formats of shift tables; the value is the suffix of their files."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    SAFETENSORS = "safetensors"


def format_of(path: Path) -> TableFormat | None:
    """The format that the suffix says, or None."""
    suffix = path.suffix.lower().removeprefix(".")
    return TableFormat(suffix) if suffix in set(TableFormat) else None


def encode_table(frame: pl.DataFrame, table_format: TableFormat) -> bytes:
    """The file's bytes. The first column of ``frame`` holds the units, the others float32.

    Raises ``MissingExtraError`` for safetensors without the package.
    """
    if table_format is TableFormat.CSV:
        unit = frame.columns[0]
        safe = frame.with_columns(
            pl.Series(unit, [_escape(text) for text in frame[unit].to_list()], dtype=pl.String)
        )
        safe.columns = [_escape(name) for name in frame.columns]
        return safe.write_csv().encode()
    if table_format is TableFormat.JSON:
        return frame.write_json().encode()
    if table_format is TableFormat.PARQUET:
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        return buffer.getvalue()
    return _to_safetensors(frame)


def read_table(path: Path) -> pl.DataFrame:
    """The table in a file, its units (text) in the first column. No suffix we know means CSV.

    Raises ``AuditError`` if the file cannot be read, ``UsageError`` if it has no column of units or
    two columns of one name, and ``MissingExtraError`` for safetensors without the package.
    """
    table_format = format_of(path) or TableFormat.CSV
    try:
        data = path.read_bytes()
        frame = _decode(data, table_format)
    except (*_READ_ERRORS, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        name = table_format.upper() if table_format is not TableFormat.PARQUET else "Parquet"
        raise AuditError(f"{path}: cannot be read as {name}: {detail}") from error
    if len(set(frame.columns)) < len(frame.columns):
        raise UsageError(f"{path}: two columns have the same name")
    unit = next((column for column in UNIT_COLUMNS if column in frame.columns), None)
    if unit is None or len(frame.columns) < 3:
        raise UsageError(
            f"{path}: needs a column '{NUMBER_COLUMN}' or '{TOKEN_COLUMN}' "
            "and at least two columns of shifts, one a concept"
        )
    if frame[unit].dtype.is_integer():
        frame = frame.with_columns(pl.col(unit).cast(pl.String))
    if frame[unit].dtype != pl.String or frame[unit].null_count():
        raise UsageError(f"{path}: the column {unit!r} is not a full column of texts")
    return frame.select(unit, pl.exclude(unit))


def _decode(data: bytes, table_format: TableFormat) -> pl.DataFrame:
    if table_format is TableFormat.CSV:
        return _from_csv(data)
    if table_format is TableFormat.JSON:
        return pl.read_json(io.BytesIO(data), infer_schema_length=None)
    if table_format is TableFormat.PARQUET:
        return pl.read_parquet(io.BytesIO(data))
    return _from_safetensors(data)


def _from_csv(data: bytes) -> pl.DataFrame:
    header = pl.read_csv(io.BytesIO(data), has_header=False, n_rows=1, infer_schema=False)
    names = [_unescape(str(name)) for name in header.row(0)]
    frame = pl.read_csv(
        io.BytesIO(data),
        schema_overrides=dict.fromkeys(UNIT_COLUMNS, pl.String),
        infer_schema_length=None,
    )
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name")
    frame.columns = names
    return frame.with_columns(
        pl.Series(unit, [_unescape(text) for text in frame[unit].to_list()], dtype=pl.String)
        for unit in UNIT_COLUMNS
        if unit in names and frame[unit].dtype == pl.String and not frame[unit].null_count()
    )


def _escape(text: str) -> str:
    """A text that no spreadsheet takes for a formula: with a quote before it where it might be."""
    return f"'{text}" if _FORMULA.match(text) else text


def _unescape(text: str) -> str:
    """The inverse of ``_escape``; leaves what it never writes as it is."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text[1:]) else text


def _to_safetensors(frame: pl.DataFrame) -> bytes:
    package = _safetensors()
    shifts = frame.drop(frame.columns[0]).to_numpy().T
    metadata = {
        "unit": frame.columns[0],
        "units": json.dumps(frame[frame.columns[0]].to_list()),
        "concepts": json.dumps(frame.columns[1:]),
    }
    written: bytes = package.numpy.save(
        {_TENSOR: np.ascontiguousarray(shifts, dtype=np.float32)}, metadata=metadata
    )
    return written


def _from_safetensors(data: bytes) -> pl.DataFrame:
    package = _safetensors()
    try:
        shifts = package.numpy.load(data)[_TENSOR]
    except package.SafetensorError as error:
        raise ValueError(str(error)) from error
    # The package gives the metadata of files only; the format starts with its header's length.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header["__metadata__"]
    units, concepts = json.loads(metadata["units"]), json.loads(metadata["concepts"])
    if shifts.shape != (len(concepts), len(units)):
        raise ValueError(f"{_TENSOR} has shape {shifts.shape}, which fits not the names")
    columns = {str(name): shifts[index] for index, name in enumerate(concepts)}
    if len(columns) < len(concepts) or metadata["unit"] in columns:
        raise ValueError("two columns have the same name")
    return pl.DataFrame({metadata["unit"]: pl.Series(units, dtype=pl.String), **columns})


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("a safetensors table", "safetensors", "models") from error
    return safetensors
