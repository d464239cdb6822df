"""Signature libraries on disk: what is written comes back, what was changed is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from signatures.library import MANIFEST_NAME, LibraryError, load_library, save_library
from signatures.signature import Probe, View
from tests import synthetic


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "library"
    return save_library(synthetic.library(), folder), folder


def test_round_trip(saved):
    library, folder = saved
    again = load_library(folder)
    assert again.content_sha256 == library.content_sha256 != ""
    assert again.concepts == library.concepts
    assert again.model == library.model
    assert [c.name for c in again.traits()] == list(synthetic.TRAITS)
    np.testing.assert_allclose(
        again.tables[0].shift_nats, library.tables[0].shift_nats, rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(again.tables[0].neutral_share.sum(), 1, rtol=1e-5)


def test_the_same_content_has_the_same_hash(saved, tmp_path):
    again = save_library(synthetic.library(), tmp_path / "again")
    assert again.content_sha256 == saved[0].content_sha256
    other = save_library(synthetic.library(seed=1), tmp_path / "other")
    assert other.content_sha256 != saved[0].content_sha256


def test_an_imported_table_keeps_what_it_does_not_know_undefined(tmp_path):
    save_library(synthetic.library(probe=Probe.IMPORTED), tmp_path / "library")
    table = load_library(tmp_path / "library").tables[0]
    assert np.isnan(table.neutral_share).all()
    assert np.isnan(table.concept_share).all()


def test_a_changed_table_is_refused(saved):
    _, folder = saved
    path = next(folder.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LibraryError, match="changed after the library was written"):
        load_library(folder)


def test_a_changed_manifest_is_refused(saved):
    _, folder = saved
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["concepts"][0]["name"] = "innocent"
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(LibraryError, match="manifest was changed"):
        load_library(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format_version": 99}', "[" * 100_000])
def test_what_is_no_manifest_is_refused_in_one_line(saved, text):
    _, folder = saved
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(LibraryError) as caught:
        load_library(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_refused(saved):
    _, folder = saved
    next(folder.glob("*.parquet")).unlink()
    with pytest.raises(LibraryError, match="incomplete"):
        load_library(folder)


def test_no_library_says_how_to_build_one(tmp_path):
    with pytest.raises(LibraryError, match="audit signature build"):
        load_library(tmp_path)


def test_a_library_is_replaced_whole_and_anything_else_is_left_alone(saved, tmp_path):
    _, folder = saved
    new = save_library(synthetic.library(seed=1), folder)
    assert load_library(folder).content_sha256 == new.content_sha256
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(LibraryError, match="choose another folder"):
        save_library(synthetic.library(), precious)
    assert (precious / "thesis.txt").read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"library", "precious"}


@pytest.mark.parametrize("name", ["index.html", ".git"])
def test_a_library_with_something_else_beside_it_is_left_alone(saved, name):
    _, folder = saved
    (folder / name).write_text("mine")
    with pytest.raises(LibraryError, match=name):
        save_library(synthetic.library(seed=1), folder)
    assert load_library(folder).content_sha256 == saved[0].content_sha256


def test_other_programs_have_a_manifest_json_too(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / MANIFEST_NAME).write_text('{"short_name": "My web app"}')
    with pytest.raises(LibraryError, match="something else than a signature library"):
        save_library(synthetic.library(), tmp_path / "app")
    (tmp_path / "file").write_text("")
    with pytest.raises(LibraryError, match="is no folder"):
        save_library(synthetic.library(), tmp_path / "file")


def test_a_link_is_followed_and_kept(saved, tmp_path):
    library, folder = saved
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert load_library(link).content_sha256 == library.content_sha256
    new = save_library(synthetic.library(seed=1), link)
    assert link.is_symlink()
    assert load_library(folder).content_sha256 == new.content_sha256


def test_a_folder_may_be_called_like_a_pattern(tmp_path):
    library = save_library(synthetic.library(), tmp_path / "a[1]*?")
    assert load_library(tmp_path / "a[1]*?").content_sha256 == library.content_sha256


def test_when_the_new_one_cannot_take_its_place_the_old_one_stays(saved, monkeypatch):
    library, folder = saved
    rename = Path.rename

    def refuse_staging(path, target):
        if path.name.startswith(".library-") and target == folder:
            raise OSError("disk on fire")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_staging)
    with pytest.raises(LibraryError, match="disk on fire"):
        save_library(synthetic.library(seed=1), folder)
    assert load_library(folder).content_sha256 == library.content_sha256
    assert [path.name for path in folder.parent.iterdir()] == ["library"]


def test_files_that_the_manifest_does_not_name_are_not_opened(saved):
    library, folder = saved
    (folder / "signature.sig").write_text("a signature")
    (folder / "README.md").write_text("notes")
    assert load_library(folder).content_sha256 == library.content_sha256


def test_tables_measured_in_real_contexts_come_before_questions():
    library = synthetic.library()
    assert [t.probe for t in library.tables_of(View.NUMBERS)] == [Probe.CONTEXT]
    question = synthetic.library(probe=Probe.QUESTION)
    assert [t.probe for t in question.tables_of(View.NUMBERS)] == [Probe.QUESTION]
    assert library.tables_of(View.VOCABULARY) == ()
