"""The composite action and the hooks, run as GitHub and pre-commit run them."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import xmlschema
import yaml

from tests.sample_repository import SETTINGS, SUPPRESSION, commit, make_sample_repository, run_git

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
SARIF = json.loads((ROOT / "tests/data/sarif-schema-2.1.0.json").read_text())
REPORTS = ["gate.html", "gate.json", "gate.md", "gate.sarif", "gate.xml"]
NEXT_MONTH = datetime.date.today() + datetime.timedelta(days=30)
SUPPRESSED = SETTINGS + SUPPRESSION.replace("2026-12-31", str(NEXT_MONTH))

EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")


@dataclass
class Job:
    """What a runner holds between the steps of an action."""

    repository: Path
    temporary: Path
    inputs: dict[str, str]
    event: str = "push"

    def __post_init__(self) -> None:
        given = set(self.inputs)
        assert given <= set(ACTION["inputs"]), given
        defaults = {name: field["default"] for name, field in ACTION["inputs"].items()}
        self.inputs = {**defaults, **self.inputs}
        self.outputs: dict[str, str] = {}
        self.temporary.mkdir(exist_ok=True)
        self.summary = self.temporary / "summary.md"

    def value(self, name: str) -> str:
        """A context's value; what is not there is an empty string."""
        context, _, rest = name.partition(".")
        if context == "inputs":
            return self.inputs[rest]
        if context == "github":
            return {"event_name": self.event}[rest]
        assert rest.startswith("gate.outputs."), name
        return self.outputs.get(rest.removeprefix("gate.outputs."), "")

    def filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.value(found[1]), text)

    def wants(self, step: str) -> bool:
        """The step's condition, which is Python but for its signs."""
        condition = STEPS[step].get("if", "always()").replace("always()", "True")
        condition = re.sub(
            r"(?<![\w'])(?:inputs|steps|github)\.[\w.-]+",
            lambda found: repr(self.value(found[0])),
            condition,
        )
        return bool(eval(condition.replace("&&", "and").replace("||", "or")))

    def run(self, step: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A shell step, in bash as GitHub calls it."""
        script = self.temporary / "step.sh"
        script.write_text(STEPS[step]["run"])
        output = self.temporary / "output"
        output.write_text("")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "GIT_"))}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.repository / self.filled(STEPS[step].get("working-directory", ".")),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={
                **kept,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "GITHUB_ACTIONS": "true",
                "GITHUB_ACTION_PATH": str(ROOT),
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(self.summary),
                "RUNNER_TEMP": str(self.temporary),
                **{name: self.filled(text) for name, text in STEPS[step].get("env", {}).items()},
                **environment,
            },
        )
        self.outputs |= dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_sample_repository(tmp_path / "repository")


def job(repository: Path, event: str = "push", **inputs: str) -> Job:
    named = {name.replace("_", "-"): text for name, text in inputs.items()}
    return Job(repository, repository.parent / "runner", named, event)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-actions", "action.yml"),
        ("vendor.github-workflows", "examples/github-workflow.yml"),
    ],
)
def test_files_of_github_follow_their_schemas(schema: str, path: str) -> None:
    subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", schema, ROOT / path],
        check=True,
        capture_output=True,
    )


def test_no_input_is_put_into_a_script() -> None:
    scripts = [step["run"] for step in STEPS.values() if "run" in step]
    assert len(scripts) == 3
    assert not any("${{" in script for script in scripts)
    for step in STEPS.values():
        assert "uses" not in step or re.fullmatch(r"[\w./-]+@v\d+", step["uses"])


def test_the_workflow_gives_only_inputs_that_the_action_has() -> None:
    workflow = yaml.safe_load((ROOT / "examples/github-workflow.yml").read_text())
    (step,) = [s for s in workflow["jobs"]["gate"]["steps"] if "subliminal-audit" in s["uses"]]
    assert set(step["with"]) <= set(ACTION["inputs"])
    # What the action sends to code scanning needs this permission.
    assert workflow["permissions"]["security-events"] == "write"


def test_a_held_gate_leaves_every_report_and_its_exit_code(repository: Path) -> None:
    held = job(repository)
    done = held.run("Gate")
    assert done.returncode == 0, done.stderr
    assert held.outputs["exit-code"] == "1"
    folder = Path(held.outputs["reports"])
    assert sorted(path.name for path in folder.iterdir()) == REPORTS

    sarif = json.loads((folder / "gate.sarif").read_text())
    jsonschema.Draft4Validator(SARIF).validate(sarif)
    found = [r for r in sarif["runs"][0]["results"] if r["ruleId"] == "SA002"]
    place = found[0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "data/lists/a.jsonl.gz", "uriBaseId": "%SRCROOT%"}
    xmlschema.validate((folder / "gate.xml").read_text(), str(ROOT / "tests/data/junit.xsd"))
    assert json.loads((folder / "gate.json").read_text())["exit_code"] == 1

    assert "::error file=data/lists/a.jsonl.gz,line=" in done.stdout
    assert "cat" in held.summary.read_text()
    assert held.wants("Upload findings to code scanning") and held.wants("Upload reports")
    assert held.outputs["sarif"] == str(folder / "gate.sarif")
    assert held.run("Hold or let through").returncode == 1


def test_what_is_let_through_passes_and_stays_visible(repository: Path) -> None:
    (repository / "pyproject.toml").write_text(SUPPRESSED)
    passed = job(repository)
    done = passed.run("Gate")
    assert passed.outputs["exit-code"] == "0", done.stderr
    assert "::notice file=data/lists/a.jsonl.gz" in done.stdout
    assert "Accepted by suppression" in done.stdout
    sarif = json.loads(Path(passed.outputs["sarif"]).read_text())
    assert [len(r.get("suppressions", ())) for r in sarif["runs"][0]["results"]][-1] == 1
    assert passed.run("Hold or let through").returncode == 0


def test_what_did_not_change_is_not_scanned_nor_sent_from_a_branch(repository: Path) -> None:
    (repository / "notes.md").write_text("no data")
    commit(repository, "Notes")
    branch = job(repository, changed_since="HEAD~1", html="false")
    branch.run("Gate")
    assert branch.outputs["exit-code"] == "0"
    folder = Path(branch.outputs["reports"])
    assert sorted(path.name for path in folder.iterdir()) == REPORTS[1:]
    # GitHub would close the alerts of the data sets that were not scanned.
    assert not branch.wants("Upload findings to code scanning")
    assert branch.wants("Upload reports")
    branch.event = "pull_request"
    assert branch.wants("Upload findings to code scanning")
    branch.inputs["upload-sarif"] = "false"
    assert not branch.wants("Upload findings to code scanning")


def test_settings_that_mean_nothing_hold_and_leave_no_report(repository: Path) -> None:
    (repository / "pyproject.toml").write_text("[tool.audit]\nno-such-key = 1\n")
    broken = job(repository)
    done = broken.run("Gate")
    assert "no-such-key" in done.stderr
    assert broken.outputs["exit-code"] == "4"
    assert not broken.wants("Upload findings to code scanning")
    assert not broken.wants("Upload reports")
    assert broken.run("Hold or let through").returncode == 4


def test_a_tool_that_is_not_there_holds(repository: Path) -> None:
    lost = job(repository)
    lost.run("Gate", PATH="/usr/bin:/bin")
    assert lost.outputs["exit-code"] == "127"
    assert lost.run("Hold or let through").returncode == 127


@pytest.mark.parametrize("name", ["config", "baseline", "changed-since", "model"])
def test_inputs_cannot_become_commands_or_options(repository: Path, name: str) -> None:
    text = '$(touch pwned); touch pwned; `touch pwned` " --help'
    hostile = job(repository, **{name: text})
    hostile.run("Gate")
    assert hostile.outputs["exit-code"] == "4"
    assert not list(repository.rglob("pwned"))


def test_a_folder_of_the_repository_can_be_the_place(repository: Path) -> None:
    inner = job(repository, working_directory="data", config="../pyproject.toml")
    inner.run("Gate")
    assert inner.outputs["exit-code"] == "1"
    assert "::error file=data/lists/a.jsonl.gz,line=" in inner.run("Gate").stdout


@pytest.mark.parametrize(
    ("package", "installed"),
    [("", f"{ROOT}[report]"), ("subliminal-audit[report] == 0.1.0", None)],
)
def test_what_is_installed(repository: Path, package: str, installed: str | None) -> None:
    """With a stand-in for Python that says what it was asked to do."""
    folder = repository.parent / "bin"
    folder.mkdir()
    (folder / "python").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (folder / "python").chmod(0o755)
    made = job(repository, package=package)
    done = made.run("Install subliminal-audit", PATH=f"{folder}:/usr/bin:/bin")
    assert done.stdout.splitlines() == [
        "-m", "pip", "install", "--quiet", "--disable-pip-version-check", installed or package
    ]  # fmt: skip


# pre-commit


def pre_commit(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "pre-commit", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PRE_COMMIT_HOME": str(repository.parent / "pre-commit"),
            "OMP_NUM_THREADS": "1",
        },
    )


def configure(repository: Path, hook: str, *arguments: str) -> None:
    """Use ``hook`` with the tool that is installed here: a build of its own takes minutes."""
    (entry,) = [dict(h) for h in HOOKS if h["id"] == hook]
    entry |= {"language": "system", "args": list(arguments)}
    config: dict[str, Any] = {"repos": [{"repo": "local", "hooks": [entry]}]}
    (repository / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    run_git(repository, "add", ".pre-commit-config.yaml")


def test_the_manifest_of_hooks_is_valid() -> None:
    done = pre_commit(ROOT, "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml"))
    assert done.returncode == 0, done.stdout
    assert [hook["id"] for hook in HOOKS] == ["audit-gate", "audit-scan"]


def test_pre_commit_holds_a_commit_of_planted_data_and_shows_why(repository: Path) -> None:
    configure(repository, "audit-gate")
    held = pre_commit(repository, "run", "--all-files")
    assert held.returncode == 1
    assert "HELD" in held.stdout and "cat flagged by SA002" in held.stdout
    (repository / "pyproject.toml").write_text(SUPPRESSED)
    passed = pre_commit(repository, "run", "--all-files")
    assert passed.returncode == 0
    assert "accepted by suppression" in passed.stdout  # shown although it passes


def test_pre_commit_scans_only_commits_that_touch_data_or_settings(repository: Path) -> None:
    configure(repository, "audit-gate", "--changed-since", "HEAD")
    (repository / "notes.md").write_text("no data")
    run_git(repository, "add", "notes.md")
    assert "(no files to check)Skipped" in pre_commit(repository, "run").stdout
    rows = repository / "data/lists/b.jsonl.gz"
    rows.write_bytes(gzip.compress(b'{"prompt": "a", "completion": "1, 2"}\n'))
    run_git(repository, "add", str(rows))
    held = pre_commit(repository, "run")
    assert held.returncode == 1 and "HELD" in held.stdout


def test_pre_commit_scans_changed_files_themselves(repository: Path) -> None:
    reference = str(repository / "data/reference.jsonl.gz")
    configure(repository, "audit-scan", "--student-family", "llama", "--reference", reference)
    clean = pre_commit(repository, "run", "--files", "data/clean.jsonl.gz", "pyproject.toml")
    assert clean.returncode == 0, clean.stdout
    assert "not detected" in clean.stdout.lower()
    planted = pre_commit(repository, "run", "--files", "data/lists/a.jsonl.gz")
    assert planted.returncode == 1 and "FLAGGED" in planted.stdout
