"""What docs/gate.md says is what the gate has."""

import json
import re
from pathlib import Path

import pytest

import audit.report
from audit.cli.main import cli
from audit.gate import config_file
from audit.gate.baseline import entry_of, render_baseline
from audit.gate.config import Undecided
from audit.gate.config_file import load_config
from audit.gate.result import GateVerdict, HoldKind
from audit.gate.run import LONGEST_SUPPRESSION_DAYS
from audit.report.gate_formats import GATE_FORMATS
from audit.report.gate_words import SOON_DAYS
from tests.unit.test_report_examples import owl

PAGE = (Path(__file__).parent.parent.parent / "docs" / "gate.md").read_text()
SCHEMA = json.loads((Path(audit.report.__file__).parent / "gate.schema.json").read_text())
ROWS = re.findall(r"^\| (.*?) \| (.*?) \|", PAGE, re.MULTILINE)
NAMES = {name for first, _ in ROWS for name in re.findall(r"`([^`]+)`", first)}


def test_the_example_is_read(tmp_path):
    (example,) = re.findall(r'```toml title="audit.toml"\n(.*?)```', PAGE, re.DOTALL)
    (tmp_path / "audit.toml").write_text(example)
    config = load_config(tmp_path / "audit.toml")
    assert [data.name for data in config.data] == ["numbers", "chats"]
    assert config.data[1].reference == ("data/clean_chats.parquet",)
    assert config.budgets.inconclusive is Undecided.FAIL
    assert [s.owner for s in config.suppressions] == ["data-team"]


@pytest.mark.parametrize(
    "keys",
    [
        [key for key in config_file._TOP_KEYS if key not in ("data", "budgets", "suppressions")],
        config_file._DATA_KEYS,
        config_file._BUDGET_KEYS,
        config_file._SUPPRESSION_KEYS,
        list(GateVerdict),
        list(HoldKind),
        list(GATE_FORMATS),
        list(SCHEMA["properties"]),
        ["[[data]]", "[budgets]", "[[suppressions]]"],
    ],
)
def test_every_name_is_in_a_table(keys):
    assert set(map(str, keys)) <= NAMES


def test_every_key_of_an_entry_is_described():
    entries = SCHEMA["properties"]["sets"]["items"]["properties"]
    inner = (entries["holds"]["items"], entries["accepted"]["items"])
    baseline = json.loads(render_baseline((entry_of("d", owl(), "f" * 64),)))
    for names in (entries, *(i["properties"] for i in inner), baseline, baseline["entries"][0]):
        for name in names:
            assert f"`{name}`" in PAGE, name


def test_exit_codes_endings_and_days_are_those_of_the_code():
    for verdict in GateVerdict:
        assert f"| `{verdict.value}` | {int(verdict.exit_code)} |" in PAGE
    for format_ in GATE_FORMATS.values():
        assert f"| {', '.join(f'`{ending}`' for ending in format_.endings)} |" in PAGE
    assert f"more than {LONGEST_SUPPRESSION_DAYS} days" in PAGE
    assert f"within {SOON_DAYS} days" in PAGE


@pytest.mark.parametrize("name", ["gate", "baseline"])
def test_every_option_that_the_page_names_exists(name):
    options = {o for c in ("gate", "baseline") for p in cli.get_command(None, c).params
               for o in p.opts}  # fmt: skip
    assert set(re.findall(r"`?(--[a-z][a-z-]+)", PAGE)) <= options
    assert all(getattr(p, "help", None) for p in cli.get_command(None, name).params
               if p.name not in ("dtype", "help"))  # fmt: skip
