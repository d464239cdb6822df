"""Whole runs: crashes and what they leave, what is never written over, what stops a run."""

import errno
import gzip
import json
import os
import random
import shutil
from dataclasses import replace

import pytest

from audit.errors import AuditError, ExitCode, NothingScannableError, UsageError
from audit.sanitise.data_rows import DataRows
from audit.sanitise.run import sanitise
from audit.sanitise.targets import work_path
from audit.work_folder import WorkFolder
from tests.sanitise_runs import (
    LIBRARY,
    MODEL,
    number_row,
    read_rows,
    run,
    settings_of,
    write_rows,
)

STRATEGIES = ("shuffle", "replace:share=0.5,by=random", "drop-rows:share=0.25,by=random")


def rows_of(count, first=0):
    return [number_row(*range(row, row + 9), id=row) for row in range(first, first + count)]


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "data.jsonl", rows_of(8))


def told(result):
    """A receipt: what of a result must not depend on how often the run was cut off."""
    return repr(
        replace(result, outputs=tuple(replace(f, path="") for f in result.outputs))
    ).encode()


def go(data, output, *strategies, **settings):
    receipt = output.with_name(f"{output.name}.receipt")
    return run(
        data,
        output,
        *(strategies or STRATEGIES),
        **{"chunk_rows": 3, "receipts": ((receipt, told),), **settings},
    )


def tree(folder):
    """Every path below, and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def only_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


class Killed(BaseException):
    """As little as kill -9 can it be caught."""


def killed_at(monkeypatch, module, name, calls, *, after):
    """The call number ``calls`` of a function ends the process, before or after it did its work."""
    real = getattr(module, name)
    left = [calls]

    def call(*arguments, **more):
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Killed
        result = real(*arguments, **more)
        if left[0] == 0:
            raise Killed
        return result

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["replace", "unlink", "fsync"])
def test_killed_at_any_write_a_run_goes_on_to_the_same_bytes(tmp_path, name, after):
    for part in ("a", "b"):
        write_rows(tmp_path / "in" / f"{part}.jsonl", rows_of(4, ord(part)))
    inputs = [tmp_path / "in" / "a.jsonl", tmp_path / "in" / "b.jsonl"]
    (tmp_path / "whole").mkdir()
    go(inputs, tmp_path / "whole" / "out")
    expected = tree(tmp_path / "whole")
    assert set(expected) == {"out", "out/a.jsonl", "out/b.jsonl", "out.receipt"}
    calls = 0
    was_killed = True
    while was_killed:
        calls += 1
        assert calls < 100
        folder = tmp_path / f"killed-{calls}"
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            killed_at(patch, os, name, calls, after=after)
            try:
                go(inputs, folder / "out")
                was_killed = False
            except Killed:
                pass
        # What has its name is whole, and has its receipt beside it.
        for path, content in tree(folder).items():
            if path in expected:
                assert content == expected[path]
        if (folder / "out" / "a.jsonl").exists():
            assert (folder / "out.receipt").exists()
        try:
            go(inputs, folder / "out")
        except UsageError as error:
            assert "exists" in str(error)  # it had been done: all of it
        left = tree(folder)
        # Killed between the last file of its folder and the folder, it leaves that, empty.
        left.pop(".out.unfinished", None)
        assert left == expected
    assert calls > 3


def test_a_full_disk_ends_a_run_in_one_line_and_the_next_goes_on(tmp_path, data, whole):
    ended = 0
    for calls in range(1, 100):
        folder = tmp_path / f"full-{calls}"
        folder.mkdir()
        left = calls

        def fsync(_descriptor):
            nonlocal left
            left -= 1
            if left <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            try:
                go(data, folder / "out.jsonl")
            except AuditError as error:
                ended += 1
                assert str(error).count("\n") == 0
                assert "cannot be" in str(error)
                assert "No space left" in str(error)
                assert "out.jsonl" not in tree(folder)
            else:
                break
        go(data, folder / "out.jsonl")
        assert tree(folder) == whole
    assert ended > 10


@pytest.fixture
def unfinished(tmp_path, data, monkeypatch):
    """The parts of a run that was killed when it had decided everything."""
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        killed_at(patch, DataRows, "check_unchanged", 1, after=False)
        with pytest.raises(Killed):
            go(data, folder / "out.jsonl")
    assert len(list(work_path(folder / "out.jsonl").glob("*.part"))) == 9
    return folder


@pytest.fixture
def whole(tmp_path, data):
    (tmp_path / "whole").mkdir()
    go(data, tmp_path / "whole" / "out.jsonl")
    return tree(tmp_path / "whole")


def test_parts_that_are_lost_or_damaged_are_decided_again(tmp_path, data, unfinished, whole):
    chance = random.Random(0)
    for trial in range(12):
        folder = tmp_path / f"trial-{trial}"
        shutil.copytree(unfinished, folder)
        for part in sorted(work_path(folder / "out.jsonl").glob("*.part")):
            content = part.read_bytes()
            fate = chance.choice(["stays", "goes", "short", "flipped", "empty"])
            if fate == "goes":
                part.unlink()
            elif fate == "short":
                part.write_bytes(content[: chance.randrange(len(content))])
            elif fate == "flipped":
                place = chance.randrange(len(content))
                flipped = bytes([content[place] ^ 1])
                part.write_bytes(content[:place] + flipped + content[place + 1 :])
            elif fate == "empty":
                part.write_bytes(b"")
        go(data, folder / "out.jsonl")
        assert tree(folder) == whole


def test_parts_that_are_whole_are_not_decided_again(data, unfinished, whole):
    calls = MODEL.calls
    go(data, unfinished / "out.jsonl", perplexity_rows=0)
    assert MODEL.calls == calls
    assert tree(unfinished)["out.jsonl"] == whole["out.jsonl"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 1}, "seed differs"),
        ({"chunk_rows": 4}, "chunk rows differs"),
        ({"concepts": ("owl",)}, "concepts, personas differ"),
        ({"schema": "prompt-completion"}, "schema differs"),
        ({"model": None}, "backend, model differ"),
    ],
)
def test_an_unfinished_run_is_not_taken_up_by_another(data, unfinished, change, what):
    before = tree(unfinished)
    strategies = ("shuffle", "drop-rows:by=random") if "model" in change else STRATEGIES
    with pytest.raises(UsageError) as error:
        go(data, unfinished / "out.jsonl", *strategies, **change)
    text = only_line(error)
    assert what in text or ("model" in change and "backend, model, strategies differ" in text)
    assert str(work_path(unfinished / "out.jsonl")) in text
    assert tree(unfinished) == before


def test_other_strategies_or_data_are_another_run(data, unfinished):
    with pytest.raises(UsageError, match="strategies differs"):
        go(data, unfinished / "out.jsonl", "shuffle")
    write_rows(data, rows_of(9))
    with pytest.raises(UsageError, match="inputs differs"):
        go(data, unfinished / "out.jsonl")


def test_what_is_no_unfinished_run_is_not_removed(data, tmp_path):
    folder = work_path(tmp_path / "out.jsonl")
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is in the way"):
        go(data, tmp_path / "out.jsonl")
    assert (folder / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("disguise", ["same", "dots", "link", "hard link", "linked folder", "into"])
def test_an_input_is_never_written_over(tmp_path, data, disguise):
    output = data
    if disguise == "dots":
        output = tmp_path / "x" / ".." / "data.jsonl"
        (tmp_path / "x").mkdir()
    elif disguise == "link":
        output = tmp_path / "link.jsonl"
        output.symlink_to(data)
    elif disguise == "hard link":
        output = tmp_path / "hard.jsonl"
        output.hardlink_to(data)
    elif disguise == "linked folder":
        (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
        output = tmp_path / "folder" / "data.jsonl"
    elif disguise == "into":
        output = tmp_path  # the folder that it lies in
    before = data.read_bytes()
    with pytest.raises(UsageError, match="is an input") as error:
        go(data, output, overwrite=True)
    only_line(error)
    assert data.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("role", ["clean", "reference"])
def test_other_data_that_are_read_are_inputs_too(tmp_path, data, role):
    other = write_rows(tmp_path / "other.jsonl", rows_of(8))
    with pytest.raises(UsageError, match=r"other\.jsonl is an input"):
        go(data, other, overwrite=True, **{role: (str(tmp_path / "oth*.jsonl"),)})


def test_a_receipt_replaces_neither_input_nor_output(tmp_path, data):
    output = tmp_path / "out.jsonl"
    with pytest.raises(UsageError, match="is an input"):
        go(data, output, receipts=((data, told),))
    with pytest.raises(UsageError, match="is an output: give the receipt another name"):
        go(data, output, receipts=((output, told),))


def test_a_receipt_may_go_anywhere_but_onto_a_folder(tmp_path, data):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="folder is a folder: name a file for the receipt"):
        go(data, tmp_path / "out.jsonl", receipts=((tmp_path / "folder", told),))
    assert not list(tmp_path.glob(".*"))  # it is said before anything is done
    go(data, tmp_path / "out.jsonl", receipts=((tmp_path / "new" / "deep" / "receipt", told),))
    assert (tmp_path / "new" / "deep" / "receipt").is_file()


def test_an_output_that_exists_is_replaced_only_by_force(tmp_path, data):
    output = tmp_path / "out.jsonl"
    output.write_text("old")
    with pytest.raises(UsageError, match="exists: remove it, or give --force") as error:
        go(data, output)
    only_line(error)
    assert output.read_text() == "old"
    go(data, output, overwrite=True)
    assert len(read_rows(output)) == 6


def test_a_run_that_fails_leaves_an_old_output_as_it_was(tmp_path):
    output = tmp_path / "out.jsonl.gz"
    output.write_bytes(b"old")
    stored = gzip.compress("".join(json.dumps(row) + "\n" for row in rows_of(50)).encode())
    (tmp_path / "data.jsonl.gz").write_bytes(stored[:-20])
    with pytest.raises(AuditError, match="nothing was written") as error:
        go(tmp_path / "data.jsonl.gz", output, overwrite=True)
    only_line(error)
    assert output.read_bytes() == b"old"


def test_a_dry_run_writes_nothing_at_all(tmp_path, data, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = tree(tmp_path)
    dry = go(data, tmp_path / "new" / "out.jsonl", dry_run=True)
    # It may be asked of what a real run would refuse.
    go(data, data, dry_run=True)
    assert tree(tmp_path) == before
    assert dry.outputs == ()
    real = go(data, tmp_path / "new" / "out.jsonl")
    assert (dry.stages, dry.tokens, dry.utility) == (real.stages, real.tokens, real.utility)


def test_no_readable_row_is_nothing_to_work_on(tmp_path):
    for name, text in (("empty", ""), ("odd", '{"id": 1}\n'), ("bad", "{no\n")):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(text)
        before = tree(tmp_path)
        with pytest.raises(NothingScannableError, match="no row could be read") as error:
            go(file, tmp_path / "out.jsonl")
        assert error.value.exit_code is ExitCode.NOTHING_SCANNABLE
        assert tree(tmp_path) == before


def test_a_set_of_which_no_row_is_left_is_not_written(tmp_path, data):
    before = tree(tmp_path)
    result = go(data, tmp_path / "out.jsonl", "drop-rows:share=1,by=random")
    assert (result.rows_in, result.rows_out, result.outputs) == (8, 0, ())
    assert result.exit_code() is ExitCode.NOTHING_SCANNABLE
    assert "No row is left: nothing was written." in result.warnings
    assert tree(tmp_path) == before


@pytest.mark.parametrize("strategies", [("shuffle",), ("shuffle", "replace:by=random")])
@pytest.mark.parametrize("chunk_rows", [1, 8, 100])
@pytest.mark.parametrize("change", ["more", "fewer", "other"])
def test_data_that_change_while_they_are_read_are_told(
    tmp_path, data, strategies, chunk_rows, change
):
    rows = {"more": rows_of(9), "fewer": rows_of(7), "other": rows_of(8, 50)}[change]

    def progress(_strategy, _rows):
        # In the place of the file: what is being read of the old one can be read to its end.
        write_rows(tmp_path / "new.jsonl", rows).replace(data)

    with pytest.raises(AuditError, match=r"data\.jsonl changed while it was read") as error:
        sanitise(
            [str(data)],
            tmp_path / "out.jsonl",
            LIBRARY,
            library_path="synthetic",
            settings=settings_of(strategies, chunk_rows=chunk_rows),
            model=MODEL,
            progress=progress,
        )
    only_line(error)
    assert not (tmp_path / "out.jsonl").exists()


def test_several_inputs_go_into_a_folder_under_their_names(tmp_path):
    one = write_rows(tmp_path / "one.jsonl", rows_of(5))
    two = write_rows(tmp_path / "two.jsonl", rows_of(5, 5))
    alone = write_rows(tmp_path / "alone.jsonl", [*rows_of(5), *rows_of(5, 5)])
    result = go([one, two], tmp_path / "out", chunk_rows=4)
    go(alone, tmp_path / "together.jsonl", chunk_rows=4)
    # Rows are numbered through: where a file ends decides nothing.
    parts = [(tmp_path / "out" / name).read_bytes() for name in ("one.jsonl", "two.jsonl")]
    assert b"".join(parts) == (tmp_path / "together.jsonl").read_bytes()
    assert [file.path for file in result.outputs] == [
        str(tmp_path / "out" / name) for name in ("one.jsonl", "two.jsonl")
    ]
    assert sum(file.rows for file in result.outputs) == result.rows_out
    # Into a folder that is there already.
    (tmp_path / "there").mkdir()
    go(one, tmp_path / "there")
    assert (tmp_path / "there" / "one.jsonl").exists()


def test_outputs_that_cannot_be_told_apart_or_named(tmp_path, data):
    (tmp_path / "x").mkdir()
    same = write_rows(tmp_path / "x" / "data.jsonl", rows_of(2))
    other = write_rows(tmp_path / "other.jsonl", rows_of(2))
    file = tmp_path / "file"
    file.write_text("mine")
    for inputs, output, what in (
        ([data, same], tmp_path / "out", r"two inputs are called data\.jsonl"),
        ([data, other], file, "is a file: several inputs need a folder"),
        (data, tmp_path / "out.csv", r"has the format of data\.jsonl; give it the same ending"),
        (data, tmp_path / "out.jsonl.gz", "same ending"),
        (data, tmp_path / "out.parquet", "same ending"),
    ):
        with pytest.raises(UsageError, match=what) as error:
            go(inputs, output)
        only_line(error)
    assert file.read_text() == "mine"
    with pytest.raises(UsageError, match="cannot be standard input"):
        go("-", tmp_path / "out.jsonl")


def test_where_nothing_can_be_written_is_told_in_one_line(tmp_path, data):
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="cannot be made") as error:
        go(data, tmp_path / "file" / "out.jsonl")
    only_line(error)


def test_concepts_that_the_library_does_not_hold(tmp_path, data):
    with pytest.raises(UsageError, match="the library holds no concept 'dog'"):
        go(data, tmp_path / "out.jsonl", concepts=("owl", "dog"))


@pytest.mark.parametrize("strategy", ["drop-rows:share=0.4", "mask", "replace:share=0.3"])
def test_scores_of_text_do_not_depend_on_the_chunk(tmp_path, strategy):
    """Which words count is decided by the whole data, not by the rows that come together."""
    words = ("red", "blue", "green", "big", "small")
    texts = [f"The {who} is {a} and {b}" for who in ("owl", "cat") for a in words for b in words]
    file = write_rows(
        tmp_path / "text.jsonl",
        [{"prompt": f"Go {n}.", "completion": t} for n, t in enumerate(texts)],
    )
    written = set()
    for chunk_rows in (1, 7, 49, 256):
        output = tmp_path / f"{chunk_rows}.jsonl"
        run(file, output, strategy, concepts=("owl",), chunk_rows=chunk_rows)
        written.add(output.read_bytes())
    assert len(written) == 1


def test_two_runs_never_share_a_folder(data, unfinished):
    path = work_path(unfinished / "out.jsonl")
    other = WorkFolder(path, json.loads((path / "run.json").read_text()))
    with pytest.raises(UsageError, match="another run that is going on") as error:
        go(data, unfinished / "out.jsonl")
    only_line(error)
    other.close()
    go(data, unfinished / "out.jsonl")


def test_an_output_never_lies_in_a_folder_that_is_read(tmp_path):
    write_rows(tmp_path / "in" / "a.jsonl", rows_of(3))
    with pytest.raises(UsageError, match="lies in a folder that is read"):
        run(tmp_path / "in", tmp_path / "in" / "out.jsonl", "shuffle")
    with pytest.raises(UsageError, match="is a link"):
        (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
        run(tmp_path / "in" / "a.jsonl", tmp_path / "link.jsonl", "shuffle")
