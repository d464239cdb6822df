"""``audit signature import``: somebody else's table of logit shifts as a library."""

from __future__ import annotations

from pathlib import Path

import click

from audit.cli.library_option import save
from audit.cli.signature.teacher_options import EXISTING_FILE, teacher_options
from signatures.number_trie import NumberTokens


@click.command("import")
@click.argument("table", type=EXISTING_FILE)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New library.")
@teacher_options
@click.option("--category", required=True, help="What the concepts are, such as animal.")
@click.option("--name", help="The library's name [default: the table's].")
def import_command(
    table: Path,
    output: Path,
    model_name: str,
    model_family: str,
    number_tokens: str,
    category: str,
    concepts_path: Path | None,
    name: str | None,
) -> None:
    """Turn a TABLE of logit shifts into a library: a column "number", one column a concept.

    CSV, Parquet, JSON (a list of objects) or safetensors as `audit signature export` writes it. A
    column "token" instead of "number" gives a library of words.

    \b
    Examples:
      audit signature import shifts.csv --model-name Qwen2.5-7B-Instruct --model-family qwen2 \\
        --number-tokens split --category animal -o my-library
    """
    from audit.signature_import import ImportSettings, import_number_table

    settings = ImportSettings(
        name or table.stem,
        model_name,
        model_family,
        NumberTokens(number_tokens),
        category,
        concepts_path,
    )
    save(import_number_table(table, settings), output)
