"""What the README shows is what the commands print."""

import re
import shlex
from pathlib import Path

import pytest

from tests.e2e.test_command import audit
from tests.shown_commands import assert_printed, shown_commands

ROOT = Path(__file__).parent.parent.parent
SHOWN = {shown.command: shown.output for shown in shown_commands((ROOT / "README.md").read_text())}
EXIT_CODES = {"planted": 1, "prompted": 1, "clean": 0}


def test_the_readme_shows_scans_of_the_examples():
    assert any("planted" in command for command in SHOWN)
    assert any("clean" in command for command in SHOWN)


@pytest.mark.parametrize("command", SHOWN)
def test_a_shown_command_prints_what_is_shown(command):
    result = audit(*shlex.split(command)[1:], cwd=ROOT, columns=100)
    assert result.stderr == b""
    assert_printed(result.stdout.decode(), SHOWN[command])
    name = next((name for name in EXIT_CODES if name in command), None)
    if name is not None:
        assert result.returncode == EXIT_CODES[name]


def test_the_readme_names_the_two_make_commands_that_exist():
    readme, makefile = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
