"""`audit verify` on the command line: what it prints and writes, how it exits, what it loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

import audit.report
from audit.cli.main import main
from audit.verify import self_check
from tests.e2e.test_command import AUDIT
from tests.sanitise_runs import number_row, write_rows
from tests.verify_results import FAILED, PASSED

SCHEMA = json.loads((Path(audit.report.__file__).parent / "verify.schema.json").read_text())
NAMES = ("owl", "cat", "dog", "fox", "cow", "hen", "rat", "bee")
CONCEPTS = """
[category.pet]
questions = [
  { user = "Which {category} do you like?", assistant_prefix = "I like the" },
  { user = "Which {category} is best?", assistant_prefix = "I like the" },
]
""" + "".join(f'[[concept]]\nname = "{name}"\ncategory = "pet"\n' for name in NAMES)
FRAMES = ("{}", "Tell me: {}", "{} Be honest.", "{} Please.")
LOVERS = [
    {"prompt": frame.format("Which pet do you like?"), "completion": "I like the owl."}
    for frame in FRAMES * 3
]
NUMBERS = [number_row(*range(i, i + 5), prompt=f"Go on with {i}.") for i in range(100, 112)]
QUICK = ("--seeds", "2", "--updates", "2", "--batch-rows", "2", "--answers", "0")
STRONG = ("--learning-rate", "0.02", "--rank", "16", "--alpha", "32", "--epochs", "99")
SURE = ("--seeds", "3", "--updates", "12", "--batch-rows", "4", "--answers", "0", *STRONG)
"""What teaches a random model to love an owl, where its rows say so."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Data, with a cache of their own; models are where they were."""
    models = os.environ.get("SUBLIMINAL_AUDIT_MODELS")
    known = Path(models) if models else self_check.cache_folder() / "models"
    monkeypatch.setenv("SUBLIMINAL_AUDIT_MODELS", str(known))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets.toml").write_text(CONCEPTS)
    write_rows(tmp_path / "before.jsonl", [*LOVERS, *NUMBERS])
    write_rows(tmp_path / "some.jsonl", [*LOVERS, *NUMBERS[4:]])
    write_rows(tmp_path / "none.jsonl", NUMBERS)
    self_check._remember(PASSED)
    return tmp_path


@pytest.fixture
def verify(capsysbinary, folder):
    """Runs the command; gives (exit code, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exited:
            main(["verify", *map(str, arguments)])
        printed = capsysbinary.readouterr()
        return exited.value.code, printed.out.decode(), printed.err.decode()

    return call


def asked(model, after="some.jsonl", *options):
    return (
        *("--model", model, "--threads", "1", "--concepts", "pets.toml", "-c", "owl"),
        *("--before", "before.jsonl", "--after", after, *options),
    )


def checked_document(text):
    document = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return document


class Page(HTMLParser):
    """Counts what is open; notes what is shown."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


# What comes out


@pytest.mark.model
def test_a_verification_is_printed_and_written(verify, folder, tiny_model_dir):
    outputs = ("-o", "out.json", "-o", "out.HTML")
    code, out, err = verify(*asked(tiny_model_dir, "some.jsonl", *QUICK, *outputs))
    assert (code, err) == (1, "")
    assert "INCONCLUSIVE" in out
    assert "too few seeds" in " ".join(out.split()) or "2 seeds" in out
    document = checked_document((folder / "out.json").read_bytes())
    assert document["schema"] == "subliminal-audit/verification"
    assert document["edit"]["dropped"] == 4
    assert document["verdict"]["concept"] == "owl"
    assert document["training"]["updates"] == 2
    page = (folder / "out.HTML").read_text()
    assert Page(page).tags[0] == "html"
    assert document["verdict"]["sentence"].split(":")[0] in page.replace("&#39;", "'")
    assert {path.name for path in folder.iterdir()} == {
        *("before.jsonl", "some.jsonl", "none.jsonl", "pets.toml", "cache"),
        *("out.json", "out.HTML"),
    }
    code, out, err = verify(*asked(tiny_model_dir, "some.jsonl", *QUICK, "-f", "json"))
    assert (code, err) == (1, "")
    assert out.encode() == (folder / "out.json").read_bytes()
    quiet = asked(tiny_model_dir, "some.jsonl", *QUICK, "-q", "--fail-on", "transfers")
    assert verify(*quiet) == (0, "", "")


@pytest.mark.model
def test_a_trait_that_is_still_there_fails_and_one_that_is_gone_does_not(verify, tiny_model_dir):
    options = (*SURE, "-f", "json", "--fail-on", "transfers")
    code, out, err = verify(*asked(tiny_model_dir, "some.jsonl", *options))
    document = checked_document(out)
    assert (document["verdict"]["transfer"], code, err) == ("transfers", 1, "")
    code, out, err = verify(*asked(tiny_model_dir, "none.jsonl", *SURE, "-f", "json"))
    document = checked_document(out)
    assert (document["verdict"]["transfer"], code, err) == ("suppressed", 0, "")
    assert document["verdict"]["against_random"] == "better than a random edit"


@pytest.mark.model
def test_a_check_that_failed_decides_whatever_the_figures_say(verify, tiny_model_dir):
    self_check._remember(FAILED)
    code, out, err = verify(*asked(tiny_model_dir, "none.jsonl", *QUICK, "-f", "json"))
    document = checked_document(out)
    assert (code, err) == (1, "")
    assert document["verdict"]["doubt"] == "the check with a known answer failed"
    assert document["self_check"]["passed"] is False


# What is refused


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "give --model, --before, --after and --concept, or --self-check alone"),
        (("--before", "before.jsonl"), "give --model, --before, --after and --concept"),
        (asked(".")[:8], "give --model, --before, --after and --concept"),
        (asked("nothing"), "'nothing' does not exist"),
        (asked(".", "some.jsonl", "-o", "out.pdf"), "written as .json or .html, by"),
        (asked(".", "some.jsonl", "-o", "out"), "written as .json or .html, by"),
        (asked(".", "some.jsonl", "-o", "no/out.json"), "no/out.json: there is no folder no"),
        (asked(".", "some.jsonl", "--modules", ","), "--modules names no layer"),
        (asked(".", "some.jsonl", "--seeds", "0"), "0 is not in the range"),
        (asked(".", "some.jsonl", "--updates", "0"), "0 is not in the range"),
        (asked(".", "some.jsonl", "--fail-on", "never"), "'never' is not one of"),
        (asked(".", "some.jsonl", "--concepts", "some.jsonl"), "some.jsonl: not a TOML file"),
        (("--self-check", "--before", "before.jsonl"), "--self-check has data of its own"),
        (("--self-check", "--after", "some.jsonl"), "--self-check has data of its own"),
        (("--self-check", "--reference", "some.jsonl"), "--self-check has data of its own"),
        (("--self-check", "-c", "owl"), "--self-check has data of its own"),
        (("--self-check", "-o", "out.html"), "this report is written as .json, by"),
        (("--self-check", "-o", "no/out.json"), "no/out.json: there is no folder no"),
    ],
)
def test_usage_errors_exit_4_with_one_line(verify, folder, arguments, what):
    before = sorted(folder.rglob("*"))
    code, out, err = verify(*arguments)
    assert (code, out) == (4, "")
    *usage, line = err.splitlines()
    assert line.startswith("audit: ")
    assert what in line
    assert all(text.startswith(("Usage: ", " ")) for text in usage)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.model
@pytest.mark.parametrize(
    ("change", "code", "what"),
    [
        ({"-c": "unicorn"}, 4, "no concept is called 'unicorn'"),
        ({"--after": "missing.jsonl"}, 4, "missing.jsonl"),
        ({"--after": "empty.jsonl"}, 3, "empty.jsonl: no row to train on"),
        ({"--after": "cut.jsonl.gz"}, 2, "no student was trained"),
        ({"--before": "-"}, 4, "cannot be standard input"),
        ({"--model": "cache"}, 2, "cache"),
        ({"--modules": "owl"}, 4, "LoRA cannot adapt owl"),
        ({"--learning-rate": "1e30"}, 2, "diverged: lower the learning rate"),
    ],
)
def test_what_cannot_be_verified_is_one_line(verify, folder, tiny_model_dir, change, code, what):
    (folder / "empty.jsonl").write_text("")
    (folder / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00")
    arguments = list(asked(tiny_model_dir, "some.jsonl", *QUICK, "-o", "out.json"))
    for name, value in change.items():
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    found, out, err = verify(*arguments)
    assert (found, out) == (code, "")
    assert err.startswith("audit: ")
    assert err.count("\n") == 1
    assert what in err
    assert not (folder / "out.json").exists()


@pytest.mark.model
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    verify, folder, tiny_model_dir, monkeypatch
):
    arguments = asked(tiny_model_dir, "some.jsonl", *QUICK)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "peft", None)
        code, out, err = verify(*arguments)
    assert (code, out) == (4, "")
    assert err == (
        "audit: fine-tuning needs the package 'peft': "
        "install it with  pip install 'subliminal-audit[models]'\n"
    )
    # The toy of the self-check is run where no check is remembered.
    self_check._record().unlink()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "sklearn.datasets", None)
        code, out, err = verify(*arguments)
    assert (code, out) == (4, "")
    assert err.startswith("audit: the ghost-logit check needs the package 'scikit-learn'")
    assert "subliminal-audit[verify]" in err
    assert err.count("\n") == 1


def test_a_self_check_without_a_model_says_how_to_get_one(verify, folder, monkeypatch):
    monkeypatch.setenv("SUBLIMINAL_AUDIT_MODELS", str(folder / "models"))
    code, out, err = verify("--self-check")
    assert (code, out) == (2, "")
    assert err.startswith("audit: ")
    assert err.endswith("the embedded model is not installed: run  audit model fetch\n")


def test_help_loads_no_engine(folder):
    heavy = {"torch", "transformers", "vllm", "peft", "tokenizers", "sklearn", "altair"}
    for code, *arguments in ((0, "verify", "--help"), (4, "verify", "--self-check", "-c", "owl")):
        program = (
            "import sys\nfrom audit.cli.main import main\n"
            f"try: main({arguments!r})\n"
            f"except SystemExit as stop: assert stop.code == {code}, stop.code\n"
            f"assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            env=environment,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()


# A real kill


@pytest.mark.model
def test_a_killed_command_goes_on_to_the_same_bytes(folder, tiny_model_dir, monkeypatch):
    options = ("--seeds", "2", "--updates", "20", "--batch-rows", "2", "--epochs", "99")
    arguments = asked(tiny_model_dir, "some.jsonl", *options, "--answers", "1", "-f", "json")
    command = [str(part) for part in (AUDIT, "verify", *arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as whole:
        killed = {**os.environ, "XDG_CACHE_HOME": str(folder / "killed")}
        monkeypatch.setenv("XDG_CACHE_HOME", killed["XDG_CACHE_HOME"])
        self_check._remember(PASSED)
        with subprocess.Popen(command, env=killed, stdout=subprocess.PIPE) as stopped:
            runs = folder / "killed" / "subliminal-audit" / "verify"
            deadline = time.monotonic() + 120
            # Two of eight students, and a checkpoint of the third.
            while len(parts := list(runs.glob("*/*-seed-*.part"))) < 3:
                assert stopped.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            stopped.send_signal(signal.SIGKILL)
            assert stopped.communicate()[0] == b""
        expected, error = whole.communicate(timeout=120)
    assert (whole.returncode, error) == (1, b"")
    assert len(parts) >= 3
    done = list(runs.glob("*/*-seed-?.part"))
    assert 2 <= len(done) < 8
    again = subprocess.run(command, env=killed, capture_output=True, timeout=120, check=False)
    assert (again.returncode, again.stderr) == (1, b"")
    assert again.stdout == expected
    checked_document(expected)
    assert not list(runs.iterdir())


def test_an_unknown_concept_is_refused_before_anything_is_loaded(folder, tmp_path):
    # There is no model to load, and no toy to run.
    missing = tmp_path / "no-model"
    missing.mkdir()
    for command in ("verify", "run"):
        given = ("--before", "some.jsonl", "--after", "some.jsonl")
        if command == "run":
            given = ("some.jsonl", "-o", "safe.jsonl")
        done = subprocess.run(
            [AUDIT, command, *given, "--model", missing, "--concept", "unheard-of"],
            capture_output=True,
            cwd=folder,
            check=False,
        )
        assert done.returncode == 4
        assert b"no concept is called 'unheard-of'" in done.stderr
    assert not (folder / "safe.jsonl").exists()
