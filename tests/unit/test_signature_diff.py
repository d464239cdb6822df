"""``audit signature diff``: every kind of difference, with values derived by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from audit.cli.main import main
from signatures.causal import CausalTrial, UnitRole
from signatures.concept import make_concept
from signatures.library import ProbeRecord, save_library
from signatures.library_diff import ConceptChange, diff_libraries
from signatures.signature import Probe, ProbeTable, View
from tests import synthetic


def table(units, shifts, probe=Probe.CONTEXT):
    """``shifts`` is a mapping of concept to a list of nats."""
    grid = np.array(list(shifts.values()), dtype=np.float64)
    unknown = np.full(grid.shape, np.nan)
    return ProbeTable(
        View.VOCABULARY, probe, units, tuple(shifts), grid, unknown, unknown[0], unknown
    )


def library(*tables, settings=None, **changes):
    names = dict.fromkeys(name for found in tables for name in found.concepts)
    parts = {
        "concepts": tuple(make_concept(name, "thing") for name in names),
        "probes": tuple(ProbeRecord(t.view, t.probe, "", settings or {}) for t in tables),
        "tables": tables,
    }
    return replace(synthetic.library(), **parts | changes)


FIRST = table(("a", "b", "c"), {"owl": [0, 1, 2], "cat": [0, 1, 0], "oak": [0, 0, 0]})


def test_shifts_are_compared_over_the_units_in_common():
    # In common: b, c, a. owl (1, 2, 0) and (2, 4, 0): correlation 1, furthest apart at c, by 2.
    # cat (1, 0, 0) and (0, 0, 1): means 1/3; covariance -1/3, squares 2/3 and 2/3: -1/2.
    second = table(("d", "b", "c", "a"), {"fox": [1] * 4, "owl": [9, 2, 4, 0], "cat": [9, 0, 0, 1]})
    difference = diff_libraries(library(FIRST), library(second))
    (found,) = difference.tables
    assert (found.first_units, found.second_units, found.common_units) == (3, 4, 3)
    assert (found.added_concepts, found.removed_concepts) == (("fox",), ("oak",))
    owl, cat = found.shifts
    assert (owl.concept, owl.maximum_nats, owl.unit) == ("owl", 2.0, "c")
    assert owl.correlation == pytest.approx(1.0)
    assert (cat.maximum_nats, cat.unit) == (1.0, "a")
    assert cat.correlation == pytest.approx(-0.5)
    assert not found.same
    assert difference.added_concepts == ("fox",)
    assert difference.removed_concepts == ("oak",)


def test_what_is_undefined_is_not_zero():
    second = table(("x", "y"), {"owl": [1, 2]})
    (found,) = diff_libraries(library(FIRST), library(second)).tables
    assert found.common_units == 0
    assert math.isnan(found.shifts[0].correlation)
    assert math.isnan(found.shifts[0].maximum_nats)
    assert found.shifts[0].unit == ""
    flat = diff_libraries(library(FIRST), library(FIRST)).tables[0].shifts[2]
    assert (flat.concept, flat.maximum_nats) == ("oak", 0.0)
    assert math.isnan(flat.correlation), "a constant correlates with nothing"


def test_concepts_tables_settings_trials_and_models():
    other = table(("a",), {"owl": [0.0]}, Probe.QUESTION)
    trial = CausalTrial(Probe.CONTEXT, "owl", "1", UnitRole.CONTROL, 0.5)
    first = library(FIRST, settings={"contexts": 2, "same": [1]}, causal=(trial,))
    owl = replace(first.concepts[0], system_prompt="Love.", category="bird")
    second = library(
        FIRST,
        other,
        settings={"contexts": 3, "same": (1,)},
        concepts=(owl, *first.concepts[1:]),
        model=replace(first.model, weights_sha256="x", tokenizer_sha256="", dtype="bfloat16"),
        causal=(replace(trial, rise_nats=1.0), replace(trial, unit="2")),
    )
    difference = diff_libraries(first, second)
    assert difference.changed_concepts == (ConceptChange("owl", ("category", "system_prompt")),)
    assert difference.added_tables == ((Probe.QUESTION, View.VOCABULARY),)
    assert diff_libraries(second, first).removed_tables == ((Probe.QUESTION, View.VOCABULARY),)
    assert difference.tables[0].changed_settings == ("contexts",)
    assert [(m.what, m.known, m.agrees) for m in difference.fingerprints] == [
        ("weights", True, False),
        ("tokenizer", False, False),
        ("chat template", True, True),
    ]
    assert difference.model_fields == ("dtype",)
    assert (difference.added_trials, difference.removed_trials) == (2, 1)


# The command


@pytest.fixture
def diff(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["signature", "diff", *map(str, arguments)])
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return run


def test_the_command_shows_every_difference(diff, tmp_path):
    second = table(("d", "b", "\x1b[2J", "a"), {"fox": [1] * 4, "owl": [9, 2, 4, 0]})
    save_library(library(FIRST), tmp_path / "a")
    save_library(library(second, settings={"contexts": 3}), tmp_path / "b")
    code, out, _ = diff(tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert [line.strip() for line in out.splitlines() if line.strip()] == [
        "model               weights agrees, tokenizer agrees, chat template agrees",
        "concepts            + fox",
        "- cat, oak",
        "context vocabulary  2 units in common, of 3 and 4",
        "+ fox",
        "- cat, oak",
        "~ measured otherwise: contexts",
        "~ owl: correlation 1.000, at most 1.000 nats apart ('b')",
    ]
    save_library(library(second), tmp_path / "c")
    code, out, _ = diff(tmp_path / "b", tmp_path / "b")
    assert (code, out) == (0, "The libraries are the same: their contents have one hash.\n")


def test_the_command_writes_json_with_null_for_undefined(diff, tmp_path):
    save_library(library(FIRST), tmp_path / "a")
    code, out, _ = diff(tmp_path / "a", tmp_path / "a", "--format", "json")
    document = json.loads(out)
    assert (code, document["same_content"]) == (0, True)
    assert document["tables"][0]["shifts"][2] == {
        "concept": "oak",
        "correlation": None,
        "maximum_nats": 0.0,
        "unit": "a",
    }


def test_a_broken_library_is_refused_in_one_line(diff, tmp_path):
    save_library(library(FIRST), tmp_path / "a")
    code, _, error = diff(tmp_path / "a", tmp_path / "b")
    assert code == 4
    assert error.count("\n") == 1
