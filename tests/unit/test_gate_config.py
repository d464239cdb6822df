"""The settings of a gate: where they are found, what they may say, and what each fault says."""

import datetime

import pytest

from audit.errors import UsageError
from audit.gate.config import Budgets, Undecided
from audit.gate.config_file import find_config, load_config
from detectors.detector import TestSettings
from detectors.finding import Severity

ONE_SET = '[[data]]\nname = "lists"\npaths = "lists.jsonl"\n'

WHOLE = """
[tool.audit]
library = "signatures"
reference = ["clean/*.jsonl", "s3://bucket/clean.jsonl"]
model = "../model"
student-family = "llama"
fail-on = "error"
detectors = ["mention", "frequency"]
fdr = 0.01
effect-of-interest = 0.1
teacher-share = 1
seed = 7
schema = "openai chat"
tokenizer = "tokenizer.json"
baseline = "./known.json"

[tool.audit.budgets]
rejected-rows-share = 0.25
inconclusive = "pass"
model-rows = 64

[[tool.audit.data]]
name = "lists"
paths = "lists/**/*.jsonl"

[[tool.audit.data]]
name = "chats"
paths = ["chats.jsonl", "more"]
reference = []
schema = "alpaca"
tokenizer = "other"

[[tool.audit.suppressions]]
data = "li*"
concept = "cat"
code = "SA002"
owner = "data-team"
reason = "a list of house numbers"
expires = 2026-12-31
"""


def settings(folder, text, name="audit.toml"):
    (folder / name).write_text(text)
    return load_config(folder / name)


def test_every_key_is_read_and_paths_are_relative_to_the_repository(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "ml").mkdir()
    config = settings(tmp_path / "ml", WHOLE, "pyproject.toml")
    assert (config.root, config.file) == (tmp_path, "ml/pyproject.toml")
    assert config.library == "ml/signatures"
    assert config.model == "model"
    assert config.baseline == "ml/known.json"
    assert config.student_family == "llama"
    assert config.fail_on is Severity.ERROR
    assert config.detectors == ("mention", "frequency")
    assert config.test == TestSettings(
        false_discovery_rate=0.01, effect_of_interest=0.1, teacher_share_of_interest=1.0
    )
    assert config.budgets == Budgets(0.25, Undecided.PASS, 64)
    assert (config.model_settings().most_rows, config.model_settings().seed) == (64, 7)
    lists, chats = config.data
    assert lists.paths == ("ml/lists/**/*.jsonl",)
    assert lists.reference == ("ml/clean/*.jsonl", "s3://bucket/clean.jsonl")
    assert (lists.schema, lists.tokenizer) == ("openai chat", "ml/tokenizer.json")
    assert chats.paths == ("ml/chats.jsonl", "ml/more")
    assert chats.reference == ()
    assert (chats.schema, chats.tokenizer) == ("alpaca", "ml/other")
    (suppression,) = config.suppressions
    assert suppression.expires == datetime.date(2026, 12, 31)
    assert suppression.covers("lists")
    assert not suppression.covers("chats")


def test_what_is_left_out_fails_closed(tmp_path):
    config = settings(tmp_path, ONE_SET)
    assert config.budgets == Budgets(0.0, Undecided.FAIL, 1024)
    assert config.fail_on is Severity.WARNING
    assert (config.root, config.file) == (tmp_path, "audit.toml")
    assert config.library is config.model is config.baseline is None
    assert config.test == TestSettings()


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "v[1]").mkdir()
    text = '[[data]]\nname = "a"\npaths = ["*.jsonl", "a.jsonl"]\n'
    assert settings(tmp_path / "v[1]", text).data[0].paths == ("v[[]1]/*.jsonl", "v[1]/a.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[data]", "is not TOML"),
        ("seed = " + "9" * 9999, "is not TOML"),
        ("", "names no data: add [[data]]"),
        ('libary = "x"\n' + ONE_SET, "the top level has no key 'libary': did you mean 'library'?"),
        ('fail_on = "note"\n' + ONE_SET, "did you mean 'fail-on'?"),
        ("zzz = 1\n" + ONE_SET, "has no key 'zzz': known are library, reference"),
        ("library = 3\n" + ONE_SET, "'library' must be text, not a whole number"),
        ('library = " "\n' + ONE_SET, "'library' is empty"),
        ('fail-on = "warn"\n' + ONE_SET, "'fail-on' must be one of 'note', 'warning', 'error'"),
        ("fdr = 1.0\n" + ONE_SET, "'fdr' must lie between 0 and 1, not 1"),
        ("fdr = nan\n" + ONE_SET, "'fdr' must lie between 0 and 1, not nan"),
        ("fdr = true\n" + ONE_SET, "'fdr' must be a number, not true or false"),
        ("effect-of-interest = 0\n" + ONE_SET, "must be a number above 0, not 0"),
        ("teacher-share = inf\n" + ONE_SET, "must be a number above 0, not inf"),
        ("seed = -1\n" + ONE_SET, "'seed' must be at least 0, not -1"),
        ("seed = 1.5\n" + ONE_SET, "'seed' must be a whole number, not a number"),
        ("detectors = [1]\n" + ONE_SET, "'detectors' must be text or a list of texts, not a list"),
        ('detectors = [""]\n' + ONE_SET, "'detectors' is empty"),
        ('library = "a\\u0000b"\n' + ONE_SET, "'library' holds a null character"),
        ("budgets = 3\n" + ONE_SET, "'budgets' must be a table, not a whole number"),
        ("[budgets]\nrejected-rows-share = 2\n" + ONE_SET, "must lie between 0 and 1, not 2"),
        ("[budgets]\nmodel-rows = 3\n" + ONE_SET, "[budgets]: 'model-rows' must be at least 30"),
        ('[budgets]\ninconclusive = "warn"\n' + ONE_SET, "one of 'fail', 'pass', not 'warn'"),
        ("[data]\n", "'data' must be a list of tables, written with [[ ]], not a table"),
        (ONE_SET + ONE_SET, "[[data]] number 2: 'name' 'lists' is taken"),
        ('[[data]]\nname = "a"\n', "[[data]] number 1 lacks 'paths'"),
        ('[[data]]\nname = "a"\npaths = []\n', "[[data]] number 1: 'paths' is empty"),
        ('[[data]]\nname = "a"\npathes = "b"\n', "has no key 'pathes': did you mean 'paths'?"),
        ('[[data]]\nname = "a"\npaths = "-"\n', "cannot be standard input"),
    ],
)
def test_a_fault_is_one_line_that_names_the_place(tmp_path, text, said):
    with pytest.raises(UsageError) as caught:
        settings(tmp_path, text)
    line = str(caught.value)
    assert said in line
    assert line.startswith(str(tmp_path / "audit.toml"))
    assert "\n" not in line


@pytest.mark.parametrize("missing", ["data", "concept", "owner", "reason", "expires"])
def test_a_suppression_needs_owner_reason_and_expiry(tmp_path, missing):
    lines = {
        "data": 'data = "lists"',
        "concept": 'concept = "cat"',
        "owner": 'owner = "me"',
        "reason": 'reason = "harmless"',
        "expires": "expires = 2026-12-31",
    }
    del lines[missing]
    text = ONE_SET + "[[suppressions]]\n" + "\n".join(lines.values())
    with pytest.raises(UsageError, match=rf"\[\[suppressions\]\] number 1 lacks '{missing}'"):
        settings(tmp_path, text)


@pytest.mark.parametrize("value", ['"2026-12-31"', "2026-12-31T00:00:00", "2026"])
def test_an_expiry_is_a_date_and_nothing_else(tmp_path, value):
    text = ONE_SET + (
        '[[suppressions]]\ndata = "*"\nconcept = "c"\nowner = "o"\nreason = "r"\n'
        f"expires = {value}\n"
    )
    with pytest.raises(UsageError, match="'expires' must be a date without quotes"):
        settings(tmp_path, text)


def test_settings_are_found_upwards_to_the_root_of_the_repository(tmp_path):
    (tmp_path / "audit.toml").write_text(ONE_SET)
    inner = tmp_path / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    with pytest.raises(UsageError, match="neither"):
        find_config(inner)  # outside of a repository only the folder itself is looked at
    (tmp_path / "repository" / ".git").mkdir()
    with pytest.raises(UsageError, match=r"nor in a folder above it up to .*repository: write"):
        find_config(inner)  # what lies above the repository is not its own
    shared = tmp_path / "repository" / "pyproject.toml"
    shared.write_text('[tool.audit]\nlibrary = "x"\n')
    assert find_config(inner) == shared
    (tmp_path / "repository" / "a" / "pyproject.toml").write_text("[tool.ruff]\n")
    assert find_config(inner) == shared  # one without [tool.audit] is passed over
    nearer = tmp_path / "repository" / "a" / "audit.toml"
    nearer.write_text(ONE_SET)
    assert find_config(inner) == nearer


def test_two_settings_in_one_folder_contradict_each_other(tmp_path):
    (tmp_path / "audit.toml").write_text(ONE_SET)
    (tmp_path / "pyproject.toml").write_text("[tool.audit]\n")
    with pytest.raises(UsageError, match=r"both audit\.toml and \[tool\.audit\]"):
        find_config(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    assert find_config(tmp_path) == tmp_path / "audit.toml"


def test_a_named_pyproject_needs_the_table(tmp_path):
    with pytest.raises(UsageError, match=r"has no \[tool\.audit\]"):
        settings(tmp_path, "[tool.ruff]\n", "pyproject.toml")
    with pytest.raises(UsageError, match=r"\[tool\.audit\] must be a table"):
        settings(tmp_path, "[tool]\naudit = 3\n", "pyproject.toml")
    with pytest.raises(UsageError, match=r"names no data: add \[\[tool\.audit\.data\]\]"):
        settings(tmp_path, "[tool.audit]\n", "pyproject.toml")
    assert settings(tmp_path, ONE_SET, "other.toml").file == "other.toml"
