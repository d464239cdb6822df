"""What is done of a run is kept part by part, and never taken up by another run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit.errors import AuditError, UsageError
from audit.verify.students import Checkpoint
from audit.work_folder import WorkFolder, is_unfinished

RUN = {"data": "a", "seed": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


@pytest.fixture
def folder(path: Path) -> Iterator[WorkFolder]:
    with closing(WorkFolder(path, RUN)) as made:
        yield made


def test_a_part_is_read_as_it_was_kept_also_by_a_later_run(folder, path):
    assert folder.load("one") is None
    folder.save("one", b"\x00 body")
    folder.save("empty", b"")
    folder.save("one", b"another body")
    folder.close()
    with closing(WorkFolder(path, dict(reversed(RUN.items())))) as again:
        assert again.load("one") == b"another body"
        assert again.load("empty") == b""
        again.discard("one")
        again.discard("one")  # what is not there is no matter
        assert again.load("one") is None


@pytest.mark.parametrize("kept", [0, 10, 31, 32, 40])
def test_a_part_that_is_not_whole_is_none(folder, path, kept):
    folder.save("one", b"some body")
    (part,) = path.glob("*.part")
    part.write_bytes(part.read_bytes()[:kept])
    assert folder.load("one") is None
    folder.save("one", b"again")
    assert folder.load("one") == b"again"


def test_a_byte_that_flipped_is_seen(folder, path):
    folder.save("one", b"some body")
    (part,) = path.glob("*.part")
    whole = part.read_bytes()
    for place in range(len(whole)):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert folder.load("one") is None


def test_a_checkpoint_is_a_part_of_the_folder(folder):
    checkpoint = Checkpoint(folder, "student-checkpoint")
    assert checkpoint.load() is None
    checkpoint.save(b"state")
    checkpoint.save(b"later state")
    assert checkpoint.load() == folder.load("student-checkpoint") == b"later state"
    checkpoint.discard()
    assert checkpoint.load() is None


def test_another_run_is_refused_by_what_differs_once_something_is_done(folder, path):
    folder.save("one", b"body")
    folder.close()
    with pytest.raises(
        UsageError, match="options or versions: seed differs; give the same"
    ) as told:
        WorkFolder(path, {"data": "a", "seed": 2})
    assert "\n" not in str(told.value)
    with pytest.raises(UsageError, match="data, seed differ;"):
        WorkFolder(path, {"data": "b"})
    (path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="its description is damaged"):
        WorkFolder(path, RUN)
    assert [part.name for part in path.glob("*.part")] == ["one.part"]


def test_a_run_of_which_nothing_is_done_makes_way_for_another(folder, path):
    folder.close()
    with closing(WorkFolder(path, {"data": "b"})):
        assert json.loads((path / "run.json").read_bytes()) == {"data": "b"}


def test_a_second_run_at_the_same_time_is_refused(folder, path):
    folder.save("one", b"body")
    with pytest.raises(UsageError, match=f"{path} belongs to another run that is going on"):
        WorkFolder(path, RUN)
    folder.close()
    WorkFolder(path, RUN).close()


def test_a_lock_goes_with_the_folder_that_held_it(path):
    WorkFolder(path, RUN)  # nothing keeps it
    WorkFolder(path, RUN).close()


def test_a_folder_of_something_else_is_left_as_it_is(path):
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is in the way: it is no unfinished run"):
        WorkFolder(path, RUN)
    assert [file.name for file in path.iterdir()] == ["notes.txt"]


def test_what_a_killed_run_had_begun_to_write_of_its_description_is_nothing(path):
    path.mkdir(parents=True)
    (path / ".run.json.0123.tmp").write_text("{")
    with closing(WorkFolder(path, RUN)):
        assert is_unfinished(path)


def test_a_finished_run_leaves_nothing(folder, path):
    folder.save("one", b"body")
    (path / "student-adapter").mkdir()
    (path / "student-adapter" / "weights").write_bytes(b"w")
    assert is_unfinished(path)
    folder.remove()
    assert not path.exists()
    assert not is_unfinished(path)


def test_a_folder_that_cannot_be_written_to_is_one_line(folder, path):
    folder.remove()
    with pytest.raises(AuditError, match=r"cannot be written: .*what is done is kept") as told:
        folder.save("one", b"body")
    assert "\n" not in str(told.value)
