"""Tables that others measured: what they must hold, and one line for what they do not."""

import numpy as np
import pytest

from audit.errors import AuditError, UsageError
from audit.signature_import import ImportSettings, import_number_table
from signatures.number_trie import NUMBERS, NumberTokens


def load(tmp_path, text, **changes):
    path = tmp_path / "table.csv"
    path.write_text(text)
    settings = {
        "name": "table",
        "model_name": "some/model",
        "model_family": "llama",
        "number_tokens": NumberTokens.WHOLE,
        "category": "animal",
    } | changes
    return import_number_table(path, ImportSettings(**settings))


def test_leading_zeros_are_numbers_of_their_own(tmp_path):
    table = load(tmp_path, "number,owl,cat\n7,1,2\n07,3,4\n007,5,6\n").tables[0]
    found = [table.shift_nats[0, NUMBERS.index(number)] for number in ("7", "07", "007")]
    assert found == [1, 3, 5]
    assert np.isnan(table.neutral_share).all(), "a table of shifts knows no shares"


def test_whole_numbers_in_the_first_rows_do_not_make_a_column_whole(tmp_path):
    rows = "".join(f"{number},1,2\n" for number in range(300)) + "999,1.5,2.5\n"
    table = load(tmp_path, "number,owl,cat\n" + rows).tables[0]
    assert table.shift_nats[0, NUMBERS.index("999")] == 1.5


def test_a_json_table_may_write_numbers_as_numbers(tmp_path):
    path = tmp_path / "table.json"
    path.write_text('[{"number": 7, "owl": 1, "cat": 2}, {"number": 8, "owl": 2.5, "cat": 2}]')
    settings = ImportSettings("t", "m", "llama", NumberTokens.SPLIT, "animal")
    table = import_number_table(path, settings).tables[0]
    assert table.shift_nats[0, NUMBERS.index("8")] == 2.5


def test_a_concept_file_describes_columns(tmp_path):
    concepts = tmp_path / "c.toml"
    concepts.write_text('[[concept]]\nname = "owl"\ncategory = "bird"\nkind = "decoy"\n')
    library = load(tmp_path, "number,owl,cat\n1,1,2\n2,1,3\n", concepts_path=concepts)
    assert [c.category for c in library.concepts] == ["bird", "animal"]
    assert [c.name for c in library.decoys()] == ["owl"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n", "column 'number'"),
        ("number,owl\n1,2\n", "at least two columns"),
        ("number,owl,cat\n1,2,x\n", "full column of numbers"),
        ("number,owl,cat\n1,2,\n", "full column of numbers"),
        ("number,owl,cat\n1,2,3\n1,2,3\n", "repeats a number"),
        ("number,owl,cat\n4321,2,3\n", "none of 0 to 999"),
        ("number,owl,cat\n1,2,inf\n", "not finite"),
        ("number,o*l,cat\n1,2,3\n", "no usable concept"),
        ("number,owl,owl\n1,2,3\n", "same name"),
        ("number,owl,Owl\n1,2,3\n", "two columns of the table are called 'owl'"),
        ("number,owl,cat\n,2,3\n", "not a full column of texts"),
        ("token,owl,cat\na,2,3\na,2,3\n", "repeats a token"),
        ("token,owl,cat\n", "full column of numbers"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(AuditError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_said(tmp_path):
    with pytest.raises(AuditError, match="cannot be read"):
        load(tmp_path, "")


def test_a_concept_file_that_cannot_be_used_is_a_usage_error(tmp_path):
    table, concepts = tmp_path / "t.csv", tmp_path / "c.toml"
    table.write_text("number,owl,cat\n1,0.5,0.25\n")
    concepts.write_text("[[concept]]\nname = 3\n")
    settings = ImportSettings("x", "m", "llama", NumberTokens.SPLIT, "animal", concepts)
    with pytest.raises(UsageError, match=r"c\.toml"):
        import_number_table(table, settings)
