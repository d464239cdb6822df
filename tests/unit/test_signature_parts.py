"""Parts of a build on disk: found again for the same question, and for no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from audit.signature_parts import PartFolder
from signatures.language_model import ModelIdentity
from signatures.parts import recall

MODEL = ModelIdentity("name", "llama", "a" * 64, "b" * 64, "c" * 64, 10, "float32")


def test_arrays_come_back_exactly(tmp_path: Path) -> None:
    arrays = {"shift": np.array([0.1, -2.5e-17, np.nan]), "share": np.array([1.0, 2.0, 3.0])}
    PartFolder(tmp_path / "parts", MODEL).put({"probe": "x", "units": [1, 2]}, arrays)
    found = PartFolder(tmp_path / "parts", MODEL).get({"units": [1, 2], "probe": "x"})
    assert found is not None
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)


def test_another_model_or_question_finds_nothing(tmp_path: Path) -> None:
    PartFolder(tmp_path, MODEL).put({"probe": "x"}, {"a": np.zeros(2)})
    assert PartFolder(tmp_path, MODEL).get({"probe": "y"}) is None
    assert PartFolder(tmp_path, replace(MODEL, weights_sha256="d" * 64)).get({"probe": "x"}) is None
    assert PartFolder(tmp_path, replace(MODEL, dtype="bfloat16")).get({"probe": "x"}) is None
    assert PartFolder(tmp_path, replace(MODEL, name="moved")).get({"probe": "x"}) is not None


def test_removing_leaves_what_is_not_a_part(tmp_path: Path) -> None:
    store = PartFolder(tmp_path / "parts", MODEL)
    store.put({"probe": "x"}, {"a": np.zeros(2)})
    (tmp_path / "parts" / "mine.txt").write_text("keep")
    store.remove()
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["mine.txt"]
    (tmp_path / "parts" / "mine.txt").unlink()
    store.remove()
    assert not (tmp_path / "parts").exists()


def test_one_missing_part_measures_all(tmp_path: Path) -> None:
    store = PartFolder(tmp_path, MODEL)
    store.put({"probe": "x"}, {"a": np.zeros(1)})
    measured = [{"a": np.ones(1)}, {"a": np.ones(1)}]
    keys = [{"probe": "x"}, {"probe": "y"}]
    assert recall(store, keys, lambda: measured) == measured
    again = recall(store, keys, list)
    assert [float(arrays["a"][0]) for arrays in again] == [1.0, 1.0]
    assert (store.measured, store.found) == (3, 3)
