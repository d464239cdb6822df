"""The column contract of the row frame: the only thing a detector knows of a data set.

| column       | type    | meaning                                                          |
|--------------|---------|------------------------------------------------------------------|
| `source`     | String  | where the row came from (a path, a URL, or `<stdin>`)            |
| `line`       | Int64   | 1-based line (text files) or record number (columnar files)      |
| `prompt`     | String  | text that is in the row but that training puts no loss on        |
| `completion` | String  | text that training raises the probability of                     |
| `rejected`   | String? | text that preference training lowers the probability of, or null |
"""

from __future__ import annotations

import polars as pl

ROW_SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(),
    "line": pl.Int64(),
    "prompt": pl.String(),
    "completion": pl.String(),
    "rejected": pl.String(),
}


def empty_rows() -> pl.DataFrame:
    """A row frame with no rows."""
    return pl.DataFrame(schema=ROW_SCHEMA)


def check_rows(rows: pl.DataFrame) -> None:
    """Raise ``ValueError`` if ``rows`` does not have exactly the contract's columns and types."""
    if dict(rows.schema) != ROW_SCHEMA:
        raise ValueError(f"row frame has {dict(rows.schema)}, the contract is {ROW_SCHEMA}")
