"""``docs/libraries.md``: what it shows is what the commands print, and its tables are complete."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audit.cli.main import main
from audit.cli.signature import signature_group
from signatures.library import FORMAT_VERSION
from signatures.library_manifest import Manifest
from signatures.signature import Probe, View

PAGE = (Path(__file__).parent.parent.parent / "docs" / "libraries.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
# Hashes and sizes depend on the versions of the tool and of Polars.
VARIES = re.compile(r"[0-9a-f]{64}|(?<=content )[0-9a-f]{12}|[\d,]+(?= bytes)")


def same(text):
    return [VARIES.sub("#", line).rstrip() for line in text.splitlines() if line.strip()]


def run(command, capsys):
    """Standard output of a command; those of ours in this process, which is faster."""
    if command.startswith("audit "):
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command)[1:])
        shown = capsys.readouterr()
        assert (caught.value.code, shown.err) == (0, ""), command
        return shown.out
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), command
    return result.stdout


def test_the_commands_print_what_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    scripts = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", scripts, prepend=os.pathsep)
    blocks = BLOCKS
    if not (shutil.which("openssl") and shutil.which("model_signing")):
        blocks = [block for block in BLOCKS if "openssl" not in block]
    for block in blocks:
        for shown in block.removeprefix("$ ").split("\n$ "):
            command, _, output = shown.partition("\n")
            assert same(run(command, capsys)) == same(output), command


@pytest.mark.parametrize("name", ["list", "check", "diff", "merge", "export", "sign"])
def test_every_command_has_a_section(name):
    assert name in signature_group.list_commands(None)
    assert re.search(rf"^### .*\b{name}\b", PAGE, re.MULTILINE)


def test_every_field_and_kind_of_table_is_named():
    assert f"format version {FORMAT_VERSION}" in PAGE
    for field in set(Manifest.__slots__) - {"table_concepts"}:
        assert f"`{field}`" in PAGE, field
    for name in (*Probe, *View):
        assert f"`{name}`" in PAGE, name
