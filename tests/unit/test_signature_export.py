"""Exported tables: what is written is what a library holds, and ``import`` reads it back."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.cli.main import main
from audit.errors import AuditError, UsageError
from audit.shift_table import TableFormat, encode_table, format_of, read_table
from audit.signature_export import export_shifts
from signatures.concept import make_concept
from signatures.library import ProbeRecord, load_library, save_library
from signatures.signature import Probe, ProbeTable, View
from tests import synthetic

FORMATS = list(TableFormat)


def library(units=("a", "b"), names=("owl", "cat"), probes=(Probe.CONTEXT,)):
    """Shifts by hand: owl 1 and 2, cat 3 and 6."""
    shift = np.array([[1.0, 2.0], [3.0, 6.0]])
    unknown = np.full(shift.shape, np.nan)
    tables = tuple(
        ProbeTable(View.VOCABULARY, p, units, names, shift, unknown, unknown[0], unknown)
        for p in probes
    )
    return replace(
        synthetic.library(),
        concepts=tuple(make_concept(name, "thing") for name in names),
        probes=tuple(ProbeRecord(View.VOCABULARY, probe, "by hand") for probe in probes),
        tables=tables,
    )


def test_the_shifts_and_the_centred_shifts():
    frame = export_shifts(library(), View.VOCABULARY)
    assert frame.to_dict(as_series=False) == {"token": ["a", "b"], "owl": [1, 2], "cat": [3, 6]}
    centred = export_shifts(library(), View.VOCABULARY, centred=True)
    assert centred.to_dict(as_series=False) == {
        "token": ["a", "b"],
        "owl": [-1, -2],
        "cat": [1, 2],
    }


def test_a_probe_is_named_where_there_are_several():
    several = library(probes=(Probe.CONTEXT, Probe.QUESTION))
    assert export_shifts(several, View.VOCABULARY, Probe.QUESTION).height == 2
    with pytest.raises(UsageError, match="several vocabulary tables: choose a probe of context, q"):
        export_shifts(several, View.VOCABULARY)
    with pytest.raises(UsageError, match="has no numbers table; its numbers probes: none"):
        export_shifts(several, View.NUMBERS)
    with pytest.raises(UsageError, match=r"has no finetuned vocabulary table; its .* context, qu"):
        export_shifts(several, View.VOCABULARY, Probe.FINETUNED)


def test_a_concept_called_like_the_units_is_refused():
    with pytest.raises(UsageError, match="is called 'token' like a column of units"):
        export_shifts(library(names=("token", "cat")), View.VOCABULARY)


def test_csv_is_what_a_spreadsheet_may_open():
    frame = pl.DataFrame(
        {"token": ["=1+1", " @x", "'-", "plain", "'", "-5"], "owl": [-0.5] * 6, "+cat": [0.1] * 6},
        schema_overrides={"owl": pl.Float32, "+cat": pl.Float32},
    )
    assert encode_table(frame, TableFormat.CSV).decode().splitlines() == [
        "token,owl,'+cat",
        "'=1+1,-0.5,0.1",
        "' @x,-0.5,0.1",
        "''-,-0.5,0.1",
        "plain,-0.5,0.1",
        "',-0.5,0.1",
        "'-5,-0.5,0.1",
    ]


UNITS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.text(st.sampled_from("'=+-@\t\r\n ,\"0a\x00"), max_size=5),
    ),
    min_size=1,
    max_size=5,
    unique=True,
)
SHIFTS = st.floats(-1e3, 1e3, width=32)


@pytest.mark.parametrize("table_format", FORMATS)
@settings(max_examples=100, deadline=None)
@given(units=UNITS, data=st.data())
def test_any_unit_and_column_comes_back(tmp_path_factory, table_format, units, data):
    if table_format is TableFormat.SAFETENSORS:
        pytest.importorskip("safetensors")
    names = data.draw(UNITS.filter(lambda n: len(n) > 1 and not {"", "token", "number"} & set(n)))
    columns = {
        name: data.draw(st.lists(SHIFTS, min_size=len(units), max_size=len(units)))
        for name in names
    }
    frame = pl.DataFrame(
        {"token": units, **columns}, schema_overrides=dict.fromkeys(names, pl.Float32)
    )
    path = tmp_path_factory.mktemp("table") / f"table.{table_format}"
    path.write_bytes(encode_table(frame, table_format))
    again = read_table(path)
    assert again.columns == frame.columns
    assert again["token"].to_list() == units
    for name in names:
        assert again[name].cast(pl.Float32).to_list() == frame[name].to_list()


@pytest.mark.parametrize(
    ("name", "found"),
    [("a.CSV", TableFormat.CSV), ("a.safetensors", TableFormat.SAFETENSORS), ("a.txt", None)],
)
def test_the_suffix_says_the_format(tmp_path, name, found):
    assert format_of(tmp_path / name) is found


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[" * 100_000, b"PAR1" * 30, b"[1, 2]"])
def test_what_is_no_table_is_said_in_one_line(tmp_path, suffix, content):
    path = tmp_path / f"table.{suffix}"
    path.write_bytes(content)
    with pytest.raises(AuditError) as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def tensors(tmp_path, shift, **changes):
    numpy_format = pytest.importorskip("safetensors.numpy")
    metadata = {"unit": "number", "units": '["1", "2"]', "concepts": '["owl", "cat"]'} | changes
    path = tmp_path / "table.safetensors"
    numpy_format.save_file({"shift_nats": shift}, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": '["1"]'}, "fits not the names"),
        ({"concepts": '["owl", "owl"]'}, "same name"),
        ({"unit": "owl"}, "same name"),
        ({"unit": "other"}, "needs a column 'number' or 'token'"),
        ({"units": "[1, 2]"}, "cannot be read"),
        ({"units": "nope"}, "cannot be read"),
    ],
)
def test_tensors_that_fit_not_their_names(tmp_path, changes, message):
    path = tensors(tmp_path, np.ones((2, 2), dtype=np.float32), **changes)
    with pytest.raises(AuditError, match=message):
        read_table(path)


# The commands


@pytest.fixture
def audit(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["signature", *map(str, arguments)])
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return run


IMPORT = ("--model-name", "m", "--model-family", "llama", "--number-tokens", "split")


@pytest.mark.parametrize("table_format", FORMATS)
@pytest.mark.parametrize("centred", [[], ["--centred"]])
def test_an_exported_library_is_imported_as_it_was(audit, tmp_path, table_format, centred):
    saved = save_library(synthetic.library(), tmp_path / "library")
    path = tmp_path / f"shifts.{table_format}"
    code, out, _ = audit("export", tmp_path / "library", "-o", path, *centred)
    assert code == 0
    size = path.stat().st_size
    assert out == f"{path}: 1,110 units x 15 concepts, {size:,} bytes\n"
    assert audit("import", path, "-o", tmp_path / "again", "--category", "x", *IMPORT)[0] == 0
    table, again = (
        load_library(tmp_path / "library").tables[0],
        load_library(tmp_path / "again").tables[0],
    )
    assert (again.units, again.concepts) == (table.units, table.concepts)
    expected = table.centred_nats() if centred else table.shift_nats
    np.testing.assert_array_equal(again.shift_nats, expected.astype(np.float32))
    assert saved.tables[0].view is again.view


def test_words_are_imported_too(audit, tmp_path):
    save_library(library(units=("=a", "\u202eb")), tmp_path / "library")
    path = tmp_path / "shifts.csv"
    assert audit("export", tmp_path / "library", "-o", path, "--view", "vocabulary")[0] == 0
    assert audit("import", path, "-o", tmp_path / "again", "--category", "x", *IMPORT)[0] == 0
    again = load_library(tmp_path / "again")
    assert again.tables[0].view is View.VOCABULARY
    assert again.tables[0].units == ("=a", "\u202eb")
    assert again.probes[0].settings == {"tokens": 2}


def test_json_is_a_list_of_objects(audit, tmp_path):
    save_library(library(), tmp_path / "library")
    path = tmp_path / "out"
    arguments = ("-o", path, "--view", "vocabulary", "--format", "json")
    assert audit("export", tmp_path / "library", *arguments)[0] == 0
    assert json.loads(path.read_text())[1] == {"token": "b", "owl": 2.0, "cat": 6.0}


def test_an_unknown_suffix_and_a_folder_that_is_not_there(audit, tmp_path):
    save_library(synthetic.library(), tmp_path / "library")
    code, _, error = audit("export", tmp_path / "library", "-o", tmp_path / "x.xlsx")
    assert code == 4
    assert "the suffix says no format; end it in .csv, .parquet, .json, .safetensors" in error
    code, _, error = audit("export", tmp_path / "library", "-o", tmp_path / "no" / "x.csv")
    assert code == 2
    assert "x.csv: cannot be written" in error
