"""What the documentation says is what the code has."""

import re
from pathlib import Path

import pytest

from detectors.detector import TestSettings
from detectors.registry import (
    detector_factory,
    detector_names,
    model_detector_factory,
    model_detector_names,
)
from tests import synthetic
from tests.shown_commands import BLOCK
from tests.unit.test_help import audit_calls, checked

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("factory", [*map(detector_factory, detector_names())])
def test_every_detector_has_a_page_with_every_part(factory):
    info = factory(synthetic.library(), TestSettings()).info
    assert_has_a_page(info)


@pytest.mark.parametrize("name", model_detector_names())
def test_every_model_based_detector_has_a_page_with_every_part(name):
    assert_has_a_page(model_detector_factory(name).info)


def assert_has_a_page(info):
    page = (ROOT / "docs" / "detectors" / f"{info.code}.md").read_text()
    assert page.startswith(f"# {info.code} {info.name}\n")
    for part in ("What it does", "Why it matters", "Null hypothesis", "Score", "Direction"):
        assert part in page, part
    for part in ("Known problems", "Example", "References"):
        assert f"**{part}.**" in page, part


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_of_the_table_has_help_and_an_entry_in_the_readme():
    from audit.cli.main import cli

    readme = (ROOT / "README.md").read_text()
    for name in cli.list_commands(None):
        assert cli.get_command(None, name).help
        assert f"audit {name}" in readme


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=str)
def test_every_command_that_a_page_names_can_be_parsed(page):
    for block in BLOCK.finditer(page.read_text()):
        for line in block["text"].replace("\\\n", " ").splitlines():
            # Three dots stand for what the reader puts in.
            if re.match(r"(\$ )?(.* \| )?audit ", line) and " ..." not in line:
                for call in audit_calls(line.removeprefix("$ ")):
                    checked(call)


def test_every_word_of_a_verdict_is_explained():
    from audit.errors import ExitCode
    from audit.scan_result import Outcome
    from audit.verify.verdict import Transfer
    from detectors.compose import Gap
    from detectors.finding import Reason

    page = (ROOT / "docs" / "verdicts.md").read_text()
    for word in (*Outcome, *Reason, *Gap, *Transfer, *(str(int(code)) for code in ExitCode)):
        assert re.search(rf"^\| `?{word}`? \|", page, re.MULTILINE), word


def test_every_arm_and_every_verdict_is_described():
    from audit.verify.transfer_statistics import Arm
    from audit.verify.verdict import Transfer

    page = (ROOT / "docs" / "verify.md").read_text()
    for name in (*Arm, *Transfer):
        assert f"| `{name}` |" in page, name


def test_every_strategy_and_every_reason_is_described():
    from audit.sanitise.registry import AUTO, strategy_infos
    from audit.sanitise.strategy import Why

    page = (ROOT / "docs" / "sanitise.md").read_text()
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL))
    assert set(sections) == {AUTO, *(info.name for info in strategy_infos())}
    for info in strategy_infos():
        for parameter in info.parameters:
            described = sections[info.name] + (sections["drop-rows"] if info.name == "mask" else "")
            assert f"`{parameter.name}`" in described, (info.name, parameter.name)
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {str(why) for why in Why}
