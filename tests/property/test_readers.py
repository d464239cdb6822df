"""Whatever rows are written in whatever format, exactly they are read, or the loss is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.dataset import SCHEMAS
from tests.accounts import account_of
from tests.made_rows import MAKERS, Made
from tests.property.damage import damaged
from tests.property.generated import (
    FORMATS,
    TEXT_FORMATS,
    Written,
    examples,
    made_rows,
    pack,
    write,
    write_tokenizer,
)
from tests.reading import ALL_REJECTS_SHOWN, Reading, read, standard_input

# `labels` are flags for some rows and numbers for others: no columnar file holds both.
_MIXED = tuple(name for name in MAKERS if name not in ("prompt", "tokens"))
# In a table its answers are text, also where they look like lists: so TRL trains on such columns.
_NOT_IN_TABLES = "openai-preference"


def mixed(kind: str) -> tuple[str, ...]:
    return tuple(n for n in _MIXED if n != _NOT_IN_TABLES or kind not in ("csv", "tsv"))


def wanted(written: Written, made: list[Made]) -> Reading:
    rows = tuple((line, *m.texts) for line, m in zip(written.lines, made, strict=True))
    return Reading(rows, (), 0, None, "")


def same_rows(reading: Reading, expected: Reading) -> bool:
    return (reading.rows, reading.rejects, reading.broken) == (expected.rows, (), None)


def put(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_rows_of_every_schema_are_made() -> None:
    assert [schema.name for schema in SCHEMAS] == list(MAKERS)


@pytest.mark.parametrize(
    ("schema", "kind"),
    [(s, k) for s in MAKERS for k in FORMATS if s in (*mixed(k), "prompt", "tokens")],
)
@examples(4)
@given(data=st.data())
def test_every_schema_is_read_from_every_format(
    tmp_path: Path, tokenizer: str, schema: str, kind: str, data: st.DataObject
) -> None:
    made = data.draw(made_rows([schema], least=1, most=4))
    written = write(data.draw, kind, made)
    ending, stored = pack(data.draw, written.data)
    name = put(tmp_path, f"a{written.ending}{ending}", stored)
    reading = read(
        name,
        tokenizer=tokenizer if schema == "tokens" else None,
        needs_answers=schema != "prompt",
        batch_rows=data.draw(st.integers(1, 5)),
    )
    assert same_rows(reading, wanted(written, made))
    assert reading.format == ".".join(filter(None, [kind, ending[1:]]))


@pytest.mark.parametrize("kind", FORMATS)
@examples(20)
@given(data=st.data())
def test_what_is_read_depends_on_rows_alone(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Not on the sizes of batches and of what a read gives, nor on the compression."""
    made = data.draw(made_rows(mixed(kind), least=1))
    written = write(data.draw, kind, made)
    expected = wanted(written, made)
    ending, stored = pack(data.draw, written.data)
    batch_rows = data.draw(st.integers(1, 9))
    name = put(tmp_path, f"a{written.ending}{ending}", stored)
    assert same_rows(read(name, batch_rows=batch_rows), expected)
    with standard_input(stored, data.draw(st.integers(1, 9))):
        assert same_rows(read("-", batch_rows=batch_rows), expected)


@pytest.mark.parametrize("schema", [name for name in MAKERS if name != "tokens"])
@examples(4)
@given(data=st.data())
def test_a_schema_that_is_named_is_the_one_that_is_found(
    tmp_path: Path, schema: str, data: st.DataObject
) -> None:
    made = data.draw(made_rows([schema], least=1, most=3))
    written = write(data.draw, "jsonl", made)
    name = put(tmp_path, "a.jsonl", written.data)
    options = {"needs_answers": schema != "prompt"}
    assert read(name, schema=schema, **options) == read(name, **options)


# Damage


@pytest.mark.parametrize("kind", TEXT_FORMATS)
@examples(30)
@given(data=st.data())
def test_damage_is_accounted_for(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    written = write(data.draw, kind, data.draw(made_rows(mixed(kind), least=1)))
    harmed = data.draw(damaged(written.data))
    name = put(tmp_path, f"a{written.ending}", harmed)
    reading = read(name, batch_rows=ALL_REJECTS_SHOWN)
    account_of(reading)(harmed, reading)
    # Its bytes one by one, in batches of another size, give the same.
    if reading.format == kind and not harmed.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        written_again = read(name, batch_rows=1)
        assert written_again == reading


@pytest.mark.parametrize("kind", TEXT_FORMATS)
@examples(20)
@given(data=st.data())
def test_damage_to_packed_bytes_is_told(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """A checksum or a missing end tells: only what is whole may pass for whole."""
    made = data.draw(made_rows(mixed(kind), least=1))
    written = write(data.draw, kind, made)
    ending, stored = pack(data.draw, written.data)
    harmed = data.draw(damaged(stored))
    reading = read(put(tmp_path, f"a{written.ending}{ending}", harmed), batch_rows=20)
    if ending and reading.broken is None and reading.format.endswith(ending):
        lost = len(made) - len(reading)
        # Whole members or frames may be cut off without a trace, and zstd may have no checksum.
        assert lost <= 0 or harmed != stored
