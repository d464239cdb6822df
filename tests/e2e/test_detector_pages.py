"""The examples of the detectors' pages: what runs without a model prints what is shown."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.shown_commands import assert_printed, run_in_order, shown_commands

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    page.stem: commands
    for page in sorted((ROOT / "docs" / "detectors").glob("*.md"))
    if (commands := shown_commands(page.read_text()))
}


def test_the_detectors_that_need_no_model_have_such_an_example() -> None:
    assert {"SA001", "SA002"} <= set(PAGES)


@pytest.mark.parametrize("code", PAGES)
def test_the_example_of_a_page_prints_what_is_shown(code: str, tmp_path: Path) -> None:
    clone, notes = tmp_path / "clone", tmp_path / "notes"
    notes.mkdir()
    shutil.copytree(ROOT / "examples", clone / "examples")
    commands = PAGES[code]
    printed = run_in_order(commands, clone, notes, timeout_s=300)
    for shown, got in zip(commands, printed, strict=True):
        assert_printed(got.text, shown.output)
    # The last command of an example finds what the example is of.
    assert printed[-1].returncode == 1
