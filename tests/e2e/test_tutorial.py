"""The tutorial: every command of the page, in order, prints what the page shows."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.shown_commands import (
    Printed,
    ShownCommand,
    ShownFile,
    assert_printed,
    run_in_order,
    shown_steps,
)

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
STEPS = shown_steps(PAGE)
COMMANDS = [step for step in STEPS if isinstance(step, ShownCommand)]
# What a model computed differs between processors in its last digits.
BY_THE_MODEL = "$MODEL"
FAILS = re.compile(r"audit (?:gate|sanitise|scan|verify)")

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of a clone as the tutorial's commands need."""
    clone = tmp_path_factory.mktemp("tutorial") / "subliminal-audit"
    shutil.copytree(ROOT / "examples", clone / "examples")
    return clone


@pytest.fixture(scope="module")
def printed(
    folder: Path, embedded_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Printed]:
    """What each command printed. Some four minutes of a core."""
    notes = tmp_path_factory.mktemp("printed")
    return run_in_order(STEPS, folder, notes, timeout_s=3600)


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda n: f"{n}")
def test_a_command_prints_what_the_page_shows(printed: list[Printed], number: int) -> None:
    shown, got = COMMANDS[number], printed[number]
    assert_printed(got.text, shown.output, about=BY_THE_MODEL in shown.command)
    if not FAILS.match(shown.command):
        assert got.returncode == 0, got.text


def test_the_files_that_the_page_speaks_of_are_written(
    folder: Path, printed: list[Printed]
) -> None:
    made = folder.parent / "tutorial"
    for name in re.findall(
        r"(?:-o|--output|--receipt) (\S+\.\w+)", "\n".join(shown.command for shown in COMMANDS)
    ):
        assert (made / name).stat().st_size > 0, name
    for page in made.glob("*.html"):
        assert page.read_text().startswith("<!doctype html>"), page


def test_the_settings_and_concepts_are_files_that_the_reader_makes() -> None:
    names = [step.name for step in STEPS if isinstance(step, ShownFile)]
    assert {"suspects.toml", "audit.toml"} <= set(names)


def test_the_set_up_names_what_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for target in re.findall(r"^make (\w+)", PAGE, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    (wanted,) = re.findall(r"--editable '\.\[([\w,]+)\]'", PAGE)
    assert set(wanted.split(",")) <= set(extras)
    assert (ROOT / "requirements.lock").exists()


def file(name: str) -> str:
    return next(step.text for step in STEPS if isinstance(step, ShownFile) and step.name == name)


def test_the_hook_names_what_exists() -> None:
    hooks = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    (repository,) = yaml.safe_load(file(".pre-commit-config.yaml"))["repos"]
    assert {hook["id"] for hook in repository["hooks"]} <= hooks
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert repository["rev"] == f"v{version}"
