"""``audit signature list``: every library that is there, also those that do not open."""

import json
import re

import pytest

from audit.cli.main import main
from signatures.library import save_library
from signatures.library_listing import BrokenLibrary, list_libraries
from tests import synthetic


@pytest.fixture
def shelf(tmp_path):
    """Two libraries, one of them signed; one broken; another program's manifest; a hidden one."""
    for name in ("b", "deep/a", "broken", ".hidden/c"):
        save_library(synthetic.library(), tmp_path / name)
    (tmp_path / "deep" / "a" / "signature.sig").write_text("x")
    (tmp_path / "broken" / "manifest.json").write_text('{"content_sha256": "')
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"short_name": "My web app"}')
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


def test_all_libraries_of_a_folder_in_order(shelf):
    found = list(list_libraries(shelf))
    assert [entry.folder.relative_to(shelf).as_posix() for entry in found] == [
        "b",
        "broken",
        "deep/a",
    ]
    b, broken, a = found
    assert isinstance(broken, BrokenLibrary)
    assert "not readable as a manifest" in broken.reason
    assert (b.signed, a.signed) == (False, True)
    assert a.size_bytes == b.size_bytes + 1
    assert b.size_bytes == sum(path.stat().st_size for path in b.folder.iterdir())
    assert (b.traits, b.decoys) == ({"thing": 3}, {"thing": 12})
    assert [(t.probe, t.view, t.concepts, t.units) for t in b.tables] == [
        ("context", "numbers", 15, 1110)
    ]


def test_a_library_itself_and_a_folder_that_is_none(shelf):
    (found,) = list_libraries(shelf / "b")
    assert found.folder == shelf / "b"
    (app,) = list_libraries(shelf / "app")
    assert "library format None" in app.reason


@pytest.fixture
def listed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["signature", "list", *map(str, arguments)])
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return run


def test_the_one_that_ships_is_listed_by_default(listed):
    code, out, _ = listed()
    assert code == 0
    assert out.splitlines()[0].strip() == "smollm2-135m-instruct"
    assert "SmolLM2-135M-Instruct (llama), number tokens: split" in out
    assert re.search(r"signed +no", out)


def test_a_broken_one_is_shown_and_fails_the_list(listed, shelf):
    code, out, _ = listed(shelf)
    assert code == 2
    assert out.count("synthetic-model (llama)") == 2
    assert "does not open" in out
    code, out, _ = listed(shelf / "b", shelf / "deep", "--format", "json")
    assert code == 0
    assert [entry["signed"] for entry in json.loads(out)] == [False, True]


def test_no_library_is_said(listed, tmp_path):
    code, _, error = listed(tmp_path)
    assert code == 4
    assert error == (
        f"audit: no signature library in {tmp_path}; build one with `audit signature build`\n"
    )
