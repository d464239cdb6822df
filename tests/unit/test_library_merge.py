"""Merging: what can be joined is, in any grouping alike; what cannot is refused in one line."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.cli.main import main
from signatures.causal import CausalTrial, UnitRole
from signatures.concept import Concept, Question
from signatures.language_model import ModelIdentity
from signatures.library import (
    LibraryError,
    ProbeRecord,
    SignatureLibrary,
    load_library,
    save_library,
)
from signatures.library_merge import LeftOut, merge_libraries
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, ProbeTable, View

IDENTITY = ModelIdentity("model", "llama", "a" * 64, "b" * 64, "c" * 64, 10, "float32")
NAMES = ("owl", "cat", "oak", "elm")
CATEGORY = {"owl": "animal", "cat": "animal", "oak": "tree", "elm": "tree"}
NUMBERS = ("1", "2", "3")
WORDS = ("a", "b", "c", "d", "e", "f")


def concept(name):
    asked = Question(f"Which {CATEGORY[name]}?", "The")
    return Concept(name, CATEGORY[name], f"{name}s", (name,), "Love.", questions=(asked,))


def value(name, unit, scale=1.0):
    """What every library measures for this concept and unit."""
    return scale * (NAMES.index(name) + 1) / (ord(unit[0]) % 32 + 1)


def table(view, names, units, probe=Probe.CONTEXT, offset=0.0):
    shape = (len(names), len(units))
    grid = np.array([[value(name, unit) for unit in units] for name in names]).reshape(shape)
    neutral = np.array([1 / (8 + ord(unit[0])) for unit in units])
    return ProbeTable(view, probe, units, names, grid + offset, grid, neutral, grid / 100)


def library(
    *tables, name="first", concepts=None, settings=None, descriptions="measured", causal=()
):
    used = dict.fromkeys(n for t in tables for n in t.concepts)
    chosen = concepts if concepts is not None else tuple(concept(n) for n in used)

    def record(t):
        asked = {CATEGORY[n]: [f"Which {CATEGORY[n]}?"] for n in t.concepts}
        own = {"contexts": 2, "questions": asked} if settings is None else settings
        return ProbeRecord(t.view, t.probe, descriptions, own)

    return SignatureLibrary(
        name,
        "test",
        IDENTITY,
        NumberTokens.SPLIT,
        chosen,
        tuple(map(record, tables)),
        tables,
        causal,
    )


def normal(merged):
    """Everything that a library says, comparable."""
    return (
        replace(merged, tables=(), probes=()),
        [(r.view, r.probe, r.description, dict(r.settings)) for r in merged.probes],
        [
            (
                t.view,
                t.probe,
                t.units,
                t.concepts,
                t.shift_nats.tolist(),
                t.spread_nats.tolist(),
                t.neutral_share.tolist(),
                t.concept_share.tolist(),
            )
            for t in merged.tables
        ],
    )


def test_concepts_of_one_probe_are_joined_over_the_words_in_common():
    first = library(table(View.VOCABULARY, ("owl", "oak"), ("a", "b", "c")), name="first")
    second = library(table(View.VOCABULARY, ("cat",), ("d", "c", "b")), name="second")
    merged = merge_libraries([first, second])
    (joined,) = merged.library.tables
    assert joined.units == ("b", "c")
    assert joined.concepts == ("owl", "oak", "cat")
    assert [c.name for c in merged.library.concepts] == ["owl", "oak", "cat"]
    # value: (position of the concept + 1) / (position of the letter + 1), by hand
    assert joined.shift_nats.tolist() == [[1 / 3, 1 / 4], [3 / 3, 3 / 4], [2 / 3, 2 / 4]]
    assert merged.left_out == (
        LeftOut("first", View.VOCABULARY, Probe.CONTEXT, 1, 2),
        LeftOut("second", View.VOCABULARY, Probe.CONTEXT, 1, 2),
    )
    asked = merged.library.probes[0].settings["questions"]
    assert asked == {"animal": ["Which animal?"], "tree": ["Which tree?"]}
    assert merged.library.name == "first"


def test_tables_of_different_probes_stand_side_by_side():
    first = library(table(View.NUMBERS, ("owl",), NUMBERS))
    second = library(table(View.NUMBERS, ("cat",), NUMBERS, Probe.QUESTION))
    merged = merge_libraries([first, second]).library
    assert [(t.probe, t.concepts) for t in merged.tables] == [
        (Probe.CONTEXT, ("owl",)),
        (Probe.QUESTION, ("cat",)),
    ]


def test_numbers_in_another_order_are_the_same_numbers():
    first = library(table(View.NUMBERS, ("owl",), NUMBERS))
    second = library(table(View.NUMBERS, ("cat",), NUMBERS[::-1]))
    (joined,) = merge_libraries([first, second]).library.tables
    assert joined.units == NUMBERS
    np.testing.assert_array_equal(
        joined.shift_nats, table(View.NUMBERS, ("owl", "cat"), NUMBERS).shift_nats
    )


TRIAL = CausalTrial(Probe.CONTEXT, "owl", "1", UnitRole.ENTANGLED, 0.5)


def test_causal_trials_are_united():
    other = replace(TRIAL, unit="2")
    first = library(table(View.NUMBERS, ("owl",), NUMBERS), causal=(TRIAL,))
    second = library(table(View.NUMBERS, ("owl",), NUMBERS), causal=(other, TRIAL))
    assert merge_libraries([first, second]).library.causal == (TRIAL, other)


OWL = table(View.NUMBERS, ("owl",), NUMBERS)
CAT = table(View.NUMBERS, ("cat",), NUMBERS)


def of_model(**changes):
    return replace(library(CAT, name="second"), model=replace(IDENTITY, **changes))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (of_model(weights_sha256="x"), "different models (the weights differs)"),
        (of_model(tokenizer_sha256="x"), "the tokenizer differs"),
        (of_model(chat_template_sha256=""), "the chat template differs"),
        (of_model(dtype="bfloat16"), "dtype differs ('float32' and 'bfloat16')"),
        (
            replace(library(CAT, name="second"), number_tokens=NumberTokens.WHOLE),
            "one tokenizer splits numbers",
        ),
        (
            library(
                CAT, name="second", concepts=(concept("cat"), replace(concept("owl"), plural="x"))
            ),
            "the concept 'owl' differs in 'plural'",
        ),
        (library(CAT, name="second", settings={"contexts": 3}), "'contexts' differs"),
        (library(table(View.NUMBERS, ("cat",), NUMBERS[:2]), name="second"), "different numbers"),
        (
            library(replace(CAT, neutral_share=CAT.neutral_share + 2e-6), name="second"),
            "shares differ by up to 2e-06",
        ),
        (
            library(replace(CAT, neutral_share=CAT.neutral_share * np.nan), name="second"),
            "only one measured the neutral",
        ),
        (
            library(table(View.NUMBERS, ("owl",), NUMBERS, offset=1.0), name="second"),
            "'owl' was measured twice with different shift_nats",
        ),
        (
            library(OWL, name="second", causal=(replace(TRIAL, rise_nats=0.25),)),
            "the causal trial of '1' for 'owl' has two results",
        ),
        (
            library(CAT, name="second", settings={"contexts": 2, "questions": {"fish": []}}),
            "'questions' differs",
        ),
    ],
)
def test_what_is_not_comparable_is_refused_in_one_line(second, message):
    first = library(OWL, causal=(TRIAL,))
    with pytest.raises(LibraryError) as caught:
        merge_libraries([first, second])
    assert message in str(caught.value)
    assert "'first' and 'second'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nearly_equal_neutral_shares_are_the_same():
    second = library(replace(CAT, neutral_share=CAT.neutral_share + 5e-7))
    (joined,) = merge_libraries([library(OWL), second]).library.tables
    np.testing.assert_array_equal(joined.neutral_share, OWL.neutral_share)


def test_of_two_measurements_the_first_can_be_preferred():
    first = library(OWL, causal=(TRIAL,))
    second = library(
        table(View.NUMBERS, ("owl", "cat"), NUMBERS, offset=1.0),
        causal=(replace(TRIAL, rise_nats=0.25),),
    )
    merged = merge_libraries([first, second], prefer_first=True).library
    np.testing.assert_array_equal(merged.tables[0].shift_nats[0], OWL.shift_nats[0])
    np.testing.assert_array_equal(merged.tables[0].shift_nats[1], CAT.shift_nats[0] + 1)
    assert merged.causal == (TRIAL,)


def test_imported_libraries_need_the_same_model_name_and_family():
    unknown = replace(IDENTITY, weights_sha256="", tokenizer_sha256="", chat_template_sha256="")
    first, second = (replace(library(t), model=unknown) for t in (OWL, CAT))
    assert len(merge_libraries([first, second]).library.concepts) == 2
    for changes in ({"name": "other"}, {"family": "qwen2"}):
        with pytest.raises(LibraryError, match=f"{next(iter(changes))} differs"):
            merge_libraries([first, replace(second, model=replace(unknown, **changes))])
    renamed = replace(library(CAT), model=replace(IDENTITY, name="elsewhere"))
    assert merge_libraries([library(OWL), renamed]).library.model == IDENTITY


def test_the_halves_of_the_one_that_ships_make_it_whole_again(tmp_path):
    whole = load_library(BUNDLED_LIBRARY)
    animals = tuple(c.name for c in whole.concepts if c.category == "animal")

    def part(names):
        # A question table says which questions were asked for each category.
        categories = {whole.concept(name).category for name in names}
        records = tuple(
            replace(
                record,
                settings={
                    key: {c: value[c] for c in categories} if key == "questions" else value
                    for key, value in record.settings.items()
                },
            )
            for record in whole.probes
        )
        return replace(
            whole,
            concepts=tuple(whole.concept(name) for name in names),
            probes=records,
            tables=tuple(found.select_concepts(names) for found in whole.tables),
            causal=tuple(trial for trial in whole.causal if trial.concept in names),
        )

    others = tuple(c.name for c in whole.concepts if c.category != "animal")
    merged = merge_libraries([part(animals), part(others)])
    assert merged.left_out == ()
    order = (*animals, *others)
    expected = replace(
        whole,
        concepts=tuple(whole.concept(name) for name in order),
        tables=tuple(found.select_concepts(order) for found in whole.tables),
        causal=tuple(
            sorted(whole.causal, key=lambda trial: order.index(trial.concept) >= len(animals))
        ),
    )
    hashes = {
        save_library(found, tmp_path / name).content_sha256
        for name, found in (("merged", merged.library), ("expected", expected))
    }
    assert len(hashes) == 1


# Any libraries of one model


def subsets(values, least=1):
    return st.lists(st.sampled_from(values), min_size=least, unique=True).map(tuple)


@st.composite
def libraries(draw, name):
    kinds = draw(
        st.lists(
            st.sampled_from(
                [
                    (View.NUMBERS, Probe.CONTEXT),
                    (View.VOCABULARY, Probe.CONTEXT),
                    (View.VOCABULARY, Probe.QUESTION),
                ]
            ),
            min_size=1,
            unique=True,
        )
    )
    tables = []
    for view, probe in kinds:
        units = (
            tuple(draw(st.permutations(NUMBERS)))
            if view is View.NUMBERS
            else tuple(draw(st.permutations(WORDS)))[: draw(st.integers(4, len(WORDS)))]
        )
        offset = draw(st.sampled_from([0.0] * 9 + [0.5]))
        tables.append(table(view, draw(subsets(NAMES)), units, probe, offset))
    used = dict.fromkeys(n for t in tables for n in t.concepts)
    trials = tuple(
        CausalTrial(
            Probe.CONTEXT, n, unit, UnitRole.CONTROL, draw(st.sampled_from([0.5] * 9 + [1.0]))
        )
        for n in used
        for unit in draw(subsets(NUMBERS, least=0))
    )
    described = draw(st.sampled_from(["measured", "by A; by B", "by B"]))
    return library(*tables, name=name, descriptions=described, causal=trials)


def outcome(*parts, prefer_first):
    try:
        return merge_libraries(parts, prefer_first=prefer_first).library
    except LibraryError as error:
        assert "\n" not in str(error)
        return None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(libraries("a"), libraries("b"), libraries("c"), st.booleans())
def test_grouping_does_not_matter(a, b, c, prefer_first):
    def merge(*parts):
        return outcome(*parts, prefer_first=prefer_first) if None not in parts else None

    left, right, at_once = merge(merge(a, b), c), merge(a, merge(b, c)), merge(a, b, c)
    assert (left is None) == (at_once is None)
    if left is not None:
        assert normal(left) == normal(at_once)
    if left is not None and right is not None:
        assert normal(left) == normal(right)


@settings(max_examples=100, deadline=None)
@given(libraries("a"), libraries("b"))
def test_nothing_is_lost_and_nothing_invented(a, b):
    merged = merge_libraries([a, b], prefer_first=True)
    joined = merged.library
    assert {c.name for c in joined.concepts} == {c.name for lib in (a, b) for c in lib.concepts}
    kinds = {(t.view, t.probe) for lib in (a, b) for t in lib.tables}
    assert {(t.view, t.probe) for t in joined.tables} == kinds
    for found in joined.tables:
        parts = [
            t
            for lib in (a, b)
            for t in lib.tables
            if (t.view, t.probe) == (found.view, found.probe)
        ]
        assert set(found.units) == set.intersection(*(set(part.units) for part in parts))
        assert set(found.concepts) == set.union(*(set(part.concepts) for part in parts))
        for row, name in enumerate(found.concepts):
            source = next(part for part in parts if name in part.concepts)
            for column, unit in enumerate(found.units):
                expected = source.shift_nats[source.concepts.index(name), source.units.index(unit)]
                assert found.shift_nats[row, column] == expected
    again = merge_libraries([a, a])
    assert normal(again.library) == normal(a)
    assert again.left_out == ()


# The command


def merge(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["signature", "merge", *map(str, arguments)])
    shown = capsys.readouterr()
    return caught.value.code, shown.out.splitlines(), shown.err


def test_the_command_says_what_was_left_out(capsys, tmp_path):
    save_library(library(table(View.VOCABULARY, ("owl",), ("a", "b", "c"))), tmp_path / "a")
    save_library(library(table(View.VOCABULARY, ("cat",), ("b", "c"))), tmp_path / "b")
    code, lines, _ = merge(capsys, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "ab")
    assert code == 0
    assert lines[0] == (
        f"{tmp_path / 'a'}: 1 unit of the context vocabulary table left out, 2 are in common"
    )
    assert lines[1].startswith(f"{tmp_path / 'ab'}: 2 concepts, 0 decoys, 1 table,")
    merged = load_library(tmp_path / "ab")
    assert merged.name == "first"
    assert merged.tables[0].concepts == ("owl", "cat")


def test_the_command_refuses_by_the_folders_names_and_writes_nothing(capsys, tmp_path):
    save_library(library(OWL), tmp_path / "a")
    save_library(library(table(View.NUMBERS, ("owl",), NUMBERS, offset=1.0)), tmp_path / "b")
    code, _, error = merge(capsys, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "ab")
    assert code == 4
    assert error.count("\n") == 1
    assert f"'{tmp_path / 'a'}' and '{tmp_path / 'b'}'" in error
    assert not (tmp_path / "ab").exists()
    arguments = (tmp_path / "a", tmp_path / "b", "-o", tmp_path / "ab", "--prefer", "first")
    assert merge(capsys, *arguments, "--name", "both")[0] == 0
    assert load_library(tmp_path / "ab").name == "both"
    assert merge(capsys, tmp_path / "a", "-o", tmp_path / "c")[0] == 4
