"""The installed gate on a sample repository, run as its users and their pipelines run it."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

import audit.report
from tests.e2e.test_command import AUDIT, HEAVY
from tests.e2e.test_model_scan import save_animals
from tests.sample_repository import (
    SETTINGS,
    SUPPRESSION,
    commit,
    concentrate,
    make_sample_repository,
    run_git,
)

SCHEMA = json.loads((Path(audit.report.__file__).parent / "gate.schema.json").read_text())
TODAY = ("--today", "2026-11-24")
PLANTED = "data/lists/a.jsonl.gz"


@pytest.fixture
def repository(tmp_path):
    return make_sample_repository(tmp_path / "repository")


def run(folder, *arguments, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "GIT_"))}
    return subprocess.run(
        [AUDIT, *map(str, arguments)],
        capture_output=True,
        cwd=folder,
        env={**kept, "COLUMNS": "120", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **environment},
        timeout=300,
        check=False,
    )


def gate(folder, *arguments, **environment):
    return run(folder, "gate", *TODAY, *arguments, **environment)


def decided(folder, *arguments):
    """The exit code and the JSON."""
    done = gate(folder, "-f", "json", *arguments)
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["exit_code"] == done.returncode
    return done.returncode, document


def test_from_a_held_pipeline_to_a_baseline_a_suppression_and_its_expiry(repository):
    held = gate(repository)
    assert held.returncode == 1, held.stderr
    shown = held.stdout.decode()
    assert "HELD" in shown
    assert "cat flagged by SA002 (error)" in shown
    assert "audit-baseline.json is not there yet" in shown

    recorded = run(repository, "baseline", *TODAY, "--owner", "data-team", "--reason", "known")
    assert recorded.returncode == 0, recorded.stderr
    assert "1 finding (1 new, 0 known, 0 gone)" in recorded.stdout.decode()
    written = (repository / "audit-baseline.json").read_bytes()
    passes = gate(repository)
    assert passes.returncode == 0
    shown = passes.stdout.decode()
    assert "cat flagged by SA002, accepted by baseline: known (owner data-team)" in shown
    assert "lists: 19 of 20 concepts undecided" in shown

    again = run(repository, "baseline", *TODAY)
    assert "1 finding (0 new, 1 known, 0 gone)" in again.stdout.decode()
    assert (repository / "audit-baseline.json").read_bytes() == written

    # The data get worse: the same trait, and stronger.
    concentrate(repository / PLANTED, repository / PLANTED)
    code, document = decided(repository)
    assert code == 1
    (hold,) = document["sets"][0]["holds"]
    assert hold["concept"] == "cat"
    assert "the baseline knows it with other rows" in hold["message"]
    assert [e["concept"] for e in document["stale_baseline_entries"]] == ["cat"]

    (repository / "pyproject.toml").write_text(SETTINGS + SUPPRESSION)
    code, document = decided(repository)
    assert code == 0
    (accepted,) = document["sets"][0]["accepted"]
    assert (accepted["by"], accepted["owner"]) == ("suppression", "data-team")
    assert decided(repository, "--today", "2026-12-31")[0] == 0
    code, document = decided(repository, "--today", "2027-01-01")
    assert code == 1
    assert "the suppression of data-team expired on 2026-12-31" in str(document["sets"][0]["holds"])
    assert [s["owner"] for s in document["expired_suppressions"]] == ["data-team"]


def test_a_baseline_that_is_named_is_read_and_must_be_there(repository):
    missing = gate(repository, "--baseline", "known.json")
    assert missing.returncode == 4
    assert "known.json does not exist: write it with  audit baseline -o" in missing.stderr.decode()
    made = run(repository / "data", "baseline", *TODAY, "-o", "known.json", "-q")
    assert (made.returncode, made.stdout) == (0, b"")
    assert gate(repository / "data", "--baseline", "known.json", "-q").returncode == 0
    (repository / "data" / "known.json").write_text("{}")
    for command in (["gate", "--baseline"], ["baseline", "-o"]):
        spoilt = run(repository / "data", *command, "known.json", *TODAY)
        assert spoilt.returncode == 4
        assert "is no baseline" in spoilt.stderr.decode()


def test_a_corrupt_shard_fails_and_hides_nothing_and_gets_no_baseline(repository):
    stored = (repository / "data" / "clean.jsonl.gz").read_bytes()
    (repository / "data" / "lists" / "b.jsonl.gz").write_bytes(stored[: len(stored) // 2])
    code, document = decided(repository)
    assert code == 2
    lists, clean = document["sets"]
    assert (lists["verdict"], clean["verdict"]) == ("incomplete", "passes")
    assert lists["holds"][0]["kind"] == "incomplete"
    refused = run(repository, "baseline", *TODAY)
    assert refused.returncode == 2
    assert "No baseline was written" in refused.stderr.decode()
    assert not (repository / "audit-baseline.json").exists()


def test_an_empty_glob_is_no_pass(repository):
    (repository / PLANTED).unlink()
    done = gate(repository)
    assert done.returncode == 3
    assert "data/lists/*.jsonl.gz matches no file" in done.stdout.decode()
    assert run(repository, "baseline", *TODAY).returncode == 3


def test_only_what_changed_is_scanned(repository):
    run_git(repository, "checkout", "-q", "-b", "change")
    code, document = decided(repository, "--changed-since", "main")
    assert (code, document["verdict"]) == (0, "not scanned")
    with gzip.open(repository / "data" / "clean.jsonl.gz", "at") as stream:
        stream.write('{"prompt": "Go on.", "completion": "1, 2, 3"}\n')
    commit(repository, "One row more")
    code, document = decided(repository, "--changed-since", "main")
    assert (code, document["changed_since"]) == (0, "main")
    assert [s["verdict"] for s in document["sets"]] == ["not scanned", "passes"]
    assert document["sets"][0]["not_scanned"] == "none of its 2 files changed since main"
    unknown = gate(repository, "--changed-since", "nowhere")
    assert unknown.returncode == 4
    assert "git knows no commit 'nowhere' here" in unknown.stderr.decode()
    assert unknown.stdout == b""


def test_a_pipeline_that_fetched_one_commit_only_is_told_so(repository, tmp_path):
    commit_count = ("clone", "-q", "--depth", "1", "--no-single-branch")
    run_git(repository, "checkout", "-q", "-b", "change")
    run_git(repository, "commit", "-q", "--allow-empty", "-m", "x")
    run_git(tmp_path, *commit_count, f"file://{repository}", str(tmp_path / "shallow"))
    done = gate(tmp_path / "shallow", "--changed-since", "origin/main")
    assert done.returncode == 4
    assert "fetch the whole history (fetch-depth: 0)" in done.stderr.decode()


def test_the_same_data_give_the_same_bytes_wherever_and_however_it_runs(repository):
    first = gate(repository, "-f", "json", PYTHONHASHSEED="1")
    assert first.returncode == 1
    for folder, seed in ((repository, "2"), (repository / "data" / "lists", "3")):
        other = gate(folder, "-f", "json", PYTHONHASHSEED=seed, TZ="Asia/Tokyo", LC_ALL="C")
        assert other.stdout == first.stdout
    elsewhere = repository.rename(repository.with_name("elsewhere"))
    named = gate("/", "--config", elsewhere / "pyproject.toml", "-f", "json")
    assert named.stdout == first.stdout
    assert str(repository.parent).encode() not in first.stdout


def test_every_report_at_once_and_the_steps_of_github(repository, tmp_path):
    names = ("g.json", "g.sarif", "g.xml", "g.md", "g.html", "g.txt")
    outputs = [item for name in names for item in ("-o", f"../../out/{name}")]
    (tmp_path / "out").mkdir()
    summary = tmp_path / "out" / "summary.md"
    summary.write_text("before\n")
    done = gate(repository / "data", "--github", *outputs, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.decode().splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert token != lines[0]
    resumed = lines.index(f"::{token}::")
    assert "HELD" in "\n".join(lines[:resumed])
    assert lines[resumed + 1].startswith("::error title=subliminal-audit gate::HELD.")
    assert any(line.startswith(f"::error file={PLANTED},line=") for line in lines[resumed + 1 :])
    assert summary.read_text().startswith("before\n# subliminal-audit gate: HELD\n")
    out = tmp_path / "out"
    assert json.loads((out / "g.json").read_bytes())["verdict"] == "held"
    sarif = json.loads((out / "g.sarif").read_bytes())
    assert PLANTED in json.dumps(sarif)
    suites = ElementTree.parse(out / "g.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["lists", "clean"]
    assert "# subliminal-audit gate: HELD" in (out / "g.md").read_text()
    assert "<html" in (out / "g.html").read_text()
    assert "HELD" in (out / "g.txt").read_text()
    assert sorted(p.name for p in out.iterdir()) == sorted([*names, "summary.md"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["-o", "gate.pdf"], "cannot tell the format of 'gate.pdf'"),
        (["-o", "a.json", "-o", "./a.json"], "two reports would go to the same file"),
        (["--github", "-f", "json"], "write the JSON with  -o gate.json"),
        (["--today", "tomorrow"], "tomorrow"),
        (["--today", "2025-01-01"], "days from 2025-01-01: at most 366 are allowed"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_4(repository, arguments, said):
    (repository / "pyproject.toml").write_text(SETTINGS + SUPPRESSION)
    done = gate(repository, *arguments)
    assert done.returncode == 4, done.stderr
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert done.stdout == b""
    assert not list(repository.glob("a.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("reference = ", "referense = "), "[tool.audit] has no key 'referense': did you mean"),
        (('"audit-baseline.json"', "3"), "[tool.audit]: 'baseline' must be text"),
        (("data/reference", "nowhere/reference"), "the reference of the data set 'lists'"),
        (("student-family", 'model = "nowhere"\nstudent-family'), "model 'nowhere' is no folder"),
        (("student-family", 'library = "nowhere"\nstudent-family'), "nowhere"),
        (("student-family", 'detectors = "magic"\nstudent-family'), "magic"),
    ],
)
def test_settings_that_mean_nothing_are_one_line_and_exit_code_4(repository, change, said):
    (repository / "pyproject.toml").write_text(SETTINGS.replace(*change))
    done = gate(repository)
    assert done.returncode == 4, done.stderr
    assert said in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_folder_without_settings_says_what_to_do(tmp_path):
    done = run(tmp_path, "gate")
    assert done.returncode == 4
    assert "write one (docs/gate.md), or name it with --config" in done.stderr.decode()


@pytest.mark.model
def test_the_model_of_the_settings_reads_rows(repository, tiny_model_dir):
    save_animals(repository / "library")
    (repository / "model").symlink_to(tiny_model_dir)
    more = (
        'model = "model"\nlibrary = "library"\ndetectors = ["likelihood"]\nseed = 3\nstudent-family'
    )
    lenient = SETTINGS.replace("student-family", more, 1)
    lenient = lenient.replace("[tool.audit.budgets]", "[tool.audit.budgets]\nmodel-rows = 30")
    (repository / "pyproject.toml").write_text(lenient)
    done = gate(repository, "-f", "json", "--threads", "1")
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["budgets"]["model_rows"] == 30
    for decision in document["sets"]:
        report = decision["report"]
        assert report["model"]["family"] == "llama"
        assert report["library"]["path"] == "library"
        assert {f["rows_tested"] for f in report["findings"]} <= {30}
    # Of several data sets each is read by itself: alone, the second comes out the same.
    alone = lenient.replace('name = "lists"\npaths = "data/lists/*.jsonl.gz"', "@", 1)
    alone = alone.replace("[[tool.audit.data]]\n@\n", "", 1)
    (repository / "pyproject.toml").write_text(alone)
    again = json.loads(gate(repository, "-f", "json", "--threads", "1").stdout)
    assert [s["name"] for s in again["sets"]] == ["clean"]
    assert again["sets"][0] == document["sets"][1]


@pytest.mark.parametrize("command", ["gate", "baseline"])
def test_help_names_the_options_and_loads_no_engine(command):
    code = (
        "import sys\nfrom audit.cli.main import main\n"
        f"try: main(['{command}', '--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--config", "--today", "--model", "--output", "Examples:"):
        assert option in done.stdout.decode()
