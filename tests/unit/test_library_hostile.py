"""Libraries from strangers: whatever is in them, they open as saved or are refused in one line."""

import copy
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signatures.causal import CausalTrial, UnitRole
from signatures.concept import Concept, make_concept
from signatures.language_model import ModelIdentity
from signatures.library import (
    CAUSAL_NAME,
    MANIFEST_NAME,
    LibraryError,
    ProbeRecord,
    SignatureLibrary,
    load_library,
    save_library,
)
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, ProbeTable, View

TABLE_NAME = "context-vocabulary.parquet"


def small_library(units=("a", "b"), names=("owl", "cat"), settings=None):
    shape = (len(names), len(units))
    shift = np.arange(np.prod(shape), dtype=np.float64).reshape(shape) / 8
    share = np.full(shape, 0.25)
    table = ProbeTable(View.VOCABULARY, Probe.CONTEXT, units, names, shift, shift, share[0], share)
    concepts = tuple(Concept(name, "thing", f"{name}s", (name,), "You love it.") for name in names)
    return SignatureLibrary(
        "small",
        "test",
        ModelIdentity("model", "llama", "0" * 64, "1" * 64, "2" * 64, 10, "float32"),
        NumberTokens.SPLIT,
        concepts,
        (ProbeRecord(View.VOCABULARY, Probe.CONTEXT, "by hand", settings or {"contexts": 2}),),
        (table,),
        (CausalTrial(Probe.CONTEXT, names[0], units[0], UnitRole.ENTANGLED, 0.5),),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "library"
    save_library(small_library(), folder)
    return folder


def seal(folder: Path, manifest: dict) -> None:
    """Write the manifest with the hashes that its folder and content have: as an attacker would."""
    for name in manifest["files"] if isinstance(manifest.get("files"), dict) else ():
        if (folder / Path(name).name).is_file():
            data = (folder / Path(name).name).read_bytes()
            manifest["files"][name] = hashlib.sha256(data).hexdigest()
    content = {key: value for key, value in manifest.items() if key != "content_sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    manifest["content_sha256"] = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    (folder / MANIFEST_NAME).write_text(
        json.dumps(manifest, ensure_ascii=False), encoding="utf-8", errors="surrogatepass"
    )


def opens_or_is_refused(folder: Path) -> SignatureLibrary | None:
    try:
        return load_library(folder)
    except LibraryError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 800
        return None


EVERY_TIME = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@EVERY_TIME
@given(
    name=st.sampled_from([MANIFEST_NAME, TABLE_NAME, CAUSAL_NAME]),
    where=st.integers(0, 10**6),
    new=st.binary(max_size=6),
    cut=st.integers(0, 6),
)
def test_changed_bytes_change_nothing_or_are_refused(saved, tmp_path, name, where, new, cut):
    folder = tmp_path / "changed"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    data = (folder / name).read_bytes()
    start = where % len(data)
    (folder / name).write_bytes(data[:start] + new + data[start + cut :])
    found = opens_or_is_refused(folder)
    if found is not None:
        expected = load_library(saved)
        assert found.content_sha256 == expected.content_sha256
        assert (found.concepts, found.probes, found.model, found.causal) == (
            expected.concepts,
            expected.probes,
            expected.model,
            expected.causal,
        )
        np.testing.assert_array_equal(found.tables[0].shift_nats, expected.tables[0].shift_nats)


@EVERY_TIME
@given(
    name=st.sampled_from([TABLE_NAME, CAUSAL_NAME]),
    where=st.integers(0, 10**6),
    new=st.binary(max_size=4),
    cut=st.integers(0, 4),
)
def test_a_forged_table_opens_as_a_table_or_is_refused(saved, tmp_path, name, where, new, cut):
    folder = tmp_path / "forged"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    data = (folder / name).read_bytes()
    start = where % len(data)
    (folder / name).write_bytes(data[:start] + new + data[start + cut :])
    seal(folder, json.loads((saved / MANIFEST_NAME).read_text()))
    found = opens_or_is_refused(folder)
    if found is not None:
        assert np.isfinite(found.tables[0].shift_nats).all()
        assert len(set(found.tables[0].units)) == len(found.tables[0].units)
        assert np.nansum(found.tables[0].neutral_share) <= 1.001


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from places(child, (*path, index))


def put(document, path, value):
    if not path:
        return value
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return document


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", "numbers", "learned", "\ud800", "owl"]),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.just(["x"] * 20_000),
)


@EVERY_TIME
@given(data=st.data(), odd=ODD)
def test_a_forged_manifest_opens_or_is_refused(saved, tmp_path, data, odd):
    folder = tmp_path / "forged"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    manifest = json.loads((saved / MANIFEST_NAME).read_text())
    path = data.draw(st.sampled_from(list(places(manifest))[1:]))
    put(manifest, path, odd)
    seal(folder, manifest)
    opens_or_is_refused(folder)


def forged(saved, tmp_path, change):
    folder = tmp_path / "forged"
    shutil.copytree(saved, folder)
    manifest = json.loads((saved / MANIFEST_NAME).read_text())
    change(manifest)
    seal(folder, manifest)
    with pytest.raises(LibraryError) as caught:
        load_library(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def deep():
    value = []
    for _ in range(200):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["files"].update({"../outside.parquet": "0" * 64}), "disagree about '../out"),
        (lambda m: m["probes"][0].update(probe="../outside"), "Invalid enum value"),
        (lambda m: m["probes"].append(copy.deepcopy(m["probes"][0])), "stands in it twice"),
        (lambda m: m["concepts"].append(m["concepts"][0]), "stands in it twice"),
        (lambda m: m["probes"][0].update(concepts=["owl", "fox"]), "unknown concept 'fox'"),
        (lambda m: m["probes"][0].update(concepts=[]), "holds no concept"),
        (lambda m: m["probes"][0]["settings"].update(x=deep()), "nested deeper than 32"),
        (lambda m: m["concepts"][0].update(forms="owl"), "Expected `array`"),
        (lambda m: m["concepts"][0].update(secret=1), "unknown field 'secret'"),
        (lambda m: m["model"].update(vocabulary_size=True), "Expected `int`"),
        (lambda m: m.update(extra=1), "unknown field `extra`"),
        (lambda m: m["concepts"].pop(), "unknown concept 'cat'"),
        (lambda m: m.update(files=["x"]), "Expected `object`"),
    ],
)
def test_a_forged_manifest_is_refused_for_what_it_forges(saved, tmp_path, change, message):
    assert message in forged(saved, tmp_path, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.with_columns(neutral_share=pl.lit(0.6, pl.Float32)), "sum to 1.2000"),
        (lambda f: f.with_columns(pl.lit(-0.1).alias("share:cat")), "'cat' hold a value"),
        (lambda f: f.with_columns(pl.lit(float("inf")).alias("shift:owl")), "not finite"),
        (lambda f: f.with_columns(pl.lit(-1.0).alias("spread:owl")), "negative"),
        (lambda f: f.with_columns(pl.lit("a").alias("unit")), "not unique"),
        (lambda f: f.with_columns(pl.lit(1).alias("shift:owl")), "holds Int32"),
        (lambda f: f.with_columns(pl.lit(None, pl.Float64).alias("shift:owl")), "empty cells"),
        (lambda f: f.with_columns(pl.lit(1.0).alias("shift:fox")), "has no place in it"),
        (lambda f: f.drop("shift:owl"), "'owl' has no shift column"),
        (lambda f: f.drop("unit"), "units are missing"),
    ],
)
def test_a_forged_table_is_refused_for_what_it_forges(saved, tmp_path, change, message):
    folder = tmp_path / "forged"
    shutil.copytree(saved, folder)
    change(pl.read_parquet(folder / TABLE_NAME)).write_parquet(folder / TABLE_NAME)
    seal(folder, json.loads((saved / MANIFEST_NAME).read_text()))
    with pytest.raises(LibraryError) as caught:
        load_library(folder)
    assert message in str(caught.value)


def test_a_bomb_is_refused_before_it_is_unpacked(saved, tmp_path):
    folder = tmp_path / "bomb"
    shutil.copytree(saved, folder)
    pl.DataFrame({"unit": ["a"]}).select(
        pl.col("unit").repeat_by(80_000_000).explode(),
        pl.lit(0.0, pl.Float32).alias("shift:owl"),
    ).write_parquet(folder / TABLE_NAME, compression="zstd")
    assert (folder / TABLE_NAME).stat().st_size < 2_000_000
    seal(folder, json.loads((saved / MANIFEST_NAME).read_text()))
    with pytest.raises(LibraryError, match="announces 80,000,000 rows"):
        load_library(folder)


def test_two_meanings_of_one_key_are_refused(saved, tmp_path):
    folder = tmp_path / "twice"
    shutil.copytree(saved, folder)
    text = (
        (folder / MANIFEST_NAME)
        .read_text()
        .replace('"name": "small"', '"name": "x","name": "small"')
    )
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(LibraryError, match="a key stands twice"):
        load_library(folder)


UNIQUE_TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    min_size=2,
    max_size=4,
    unique=True,
).map(tuple)


@EVERY_TIME
@given(units=UNIQUE_TEXTS, names=UNIQUE_TEXTS)
def test_any_unicode_name_and_unit_comes_back(tmp_path, units, names):
    library = save_library(small_library(units, names), tmp_path / "odd")
    again = load_library(tmp_path / "odd")
    assert again.tables[0].units == units
    assert again.tables[0].concepts == names
    assert again.concepts == library.concepts
    assert again.causal == library.causal
    np.testing.assert_array_equal(again.tables[0].shift_nats, library.tables[0].shift_nats)


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (small_library(units=("\ud800", "b")), "surrogates"),
        (small_library(settings={"rate": float("nan")}), "not JSON compliant"),
        (small_library(settings={"path": Path("x")}), "not JSON serializable"),
        (replace(small_library(), concepts=(make_concept("owl", "thing"),)), "unknown concept"),
        (replace(small_library(), concepts=small_library().concepts * 2), "stands in it twice"),
    ],
)
def test_what_could_not_be_opened_is_not_saved(tmp_path, library, message):
    good = save_library(small_library(), tmp_path / "library")
    with pytest.raises(LibraryError, match=message):
        save_library(library, tmp_path / "library")
    assert load_library(tmp_path / "library").content_sha256 == good.content_sha256
    assert [path.name for path in tmp_path.iterdir()] == ["library"]
