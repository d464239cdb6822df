import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from audit.atomic import atomic_write
from audit.errors import AuditError, UsageError
from audit.report import formats
from audit.report.formats import FORMATS, format_for_path, write_outputs
from tests.unit.test_report_examples import flagged_result


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.txt", "terminal"), ("a.json", "json"), ("a.sarif", "sarif"), ("a.md", "markdown"),
        ("a.sarif.json", "sarif"), ("A.SARIF.JSON", "sarif"), ("x/y.v2.json", "json"),
        ("a.junit.xml", "junit"), ("a.xml", "junit"),
    ],
)  # fmt: skip
def test_the_ending_names_the_format(path: str, name: str) -> None:
    assert format_for_path(Path(path)) == name


def test_an_unknown_ending_is_a_usage_error_that_names_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        format_for_path(Path("report.docx"))
    assert all(e in str(caught.value) for f in FORMATS.values() for e in f.endings)


def test_importing_the_table_loads_neither_rich_nor_a_renderer() -> None:
    code = (
        "import sys, audit.report.formats; "
        "print([m for m in sys.modules if m == 'rich' or m.startswith('audit.report.')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['audit.report.formats']"


def test_every_format_is_written_and_says_the_verdict(tmp_path: Path) -> None:
    ending = {name: f.endings[0] if f.endings else f".{name}" for name, f in FORMATS.items()}
    outputs = [(name, tmp_path / f"report{ending[name]}") for name in FORMATS]
    write_outputs(flagged_result(), outputs)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for _, p in outputs)
    for _, path in outputs:
        text = path.read_text(encoding="utf-8")
        assert "flagged" in text.lower()
        assert "not-json" in text
        assert "owl" in text
    assert json.loads((tmp_path / "report.json").read_text())["schema_version"] == 1


def test_a_bad_request_writes_nothing(tmp_path: Path) -> None:
    good = ("json", tmp_path / "a.json")
    with pytest.raises(UsageError, match="unknown report format 'pdf'"):
        write_outputs(flagged_result(), [good, ("pdf", tmp_path / "a.pdf")])
    with pytest.raises(UsageError, match="two reports"):
        write_outputs(flagged_result(), [good, ("sarif", tmp_path / "x/../a.json")])
    assert list(tmp_path.iterdir()) == []


def test_a_renderer_that_fails_touches_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(formats.FORMATS, "broken", formats.Format((".x",), "json:nothing"))
    with pytest.raises(AttributeError):
        write_outputs(
            flagged_result(), [("json", tmp_path / "a.json"), ("broken", tmp_path / "a.x")]
        )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"cannot write the report .*No such file"):
        write_outputs(flagged_result(), [("json", tmp_path / "no/a.json")])


def test_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_atomic_write_keeps_the_old_file_if_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_atomic_write_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(b"old")
    link = tmp_path / "link.json"
    link.symlink_to("real.json")
    atomic_write(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


def test_atomic_write_does_not_replace_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic_write(pipe, b"report")
        assert os.read(reader, 100) == b"report"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
