"""The installed command, run as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from signatures.library import load_library, save_library
from tests import synthetic

AUDIT = Path(sys.executable).parent / "audit"
LIBRARY = synthetic.library(strength=0.3)
HEAVY = ("torch", "transformers", "vllm", "peft", "ray", "tokenizers")


def audit(*arguments, stdin=None, cwd=None, columns=100):
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    return subprocess.run(
        [AUDIT, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment,
        timeout=300,
        check=False,
    )


def write(path, completions):
    lines = (json.dumps({"prompt": "Go on.", "completion": text}) for text in completions)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("e2e")
    save_library(LIBRARY, path / "lib")
    share = synthetic.share_of(LIBRARY, "owl")
    write(path / "planted.jsonl", synthetic.number_rows(1500, np.random.default_rng(1), share))
    write(path / "clean.jsonl", synthetic.number_rows(1500, np.random.default_rng(2)))
    write(path / "reference.jsonl", synthetic.number_rows(1500, np.random.default_rng(3)))
    return path


def scan(folder, *arguments, **options):
    return audit(
        "scan",
        *arguments,
        "--library",
        "lib",
        "--reference",
        "reference.jsonl",
        "--student-family",
        "llama",
        "--effect-of-interest",
        "0.2",
        cwd=folder,
        **options,
    )


def test_a_planted_set_exits_1_and_a_clean_one_0(folder):
    planted, clean = scan(folder, "planted.jsonl"), scan(folder, "clean.jsonl")
    assert (planted.returncode, clean.returncode) == (1, 0), clean.stderr
    assert b"FLAGGED" in planted.stdout
    assert b"owl" in planted.stdout
    assert b"NOT DETECTED" in clean.stdout
    assert planted.stderr == clean.stderr == b""


def test_standard_input_scans_like_the_file(folder):
    piped = scan(folder, "-", "-f", "json", stdin=(folder / "planted.jsonl").read_bytes())
    file = scan(folder, "planted.jsonl", "-f", "json")
    assert piped.returncode == 1
    one, other = json.loads(piped.stdout), json.loads(file.stdout)
    keys = ("concept", "p_value", "q_value", "effect", "verdict")
    assert [[f[k] for k in keys] for f in one["findings"]] == [
        [f[k] for k in keys] for f in other["findings"]
    ]


def test_reports_of_every_format_at_once(folder, tmp_path):
    outputs = [tmp_path / name for name in ("r.json", "r.sarif", "r.md", "r.txt")]
    options = [item for path in outputs for item in ("-o", path)]
    result = scan(folder, "planted.jsonl", "--quiet", *options)
    assert result.returncode == 1
    assert result.stdout == b""
    assert json.loads(outputs[0].read_bytes())["outcome"] == "flagged"
    assert json.loads(outputs[1].read_bytes())["version"] == "2.1.0"
    assert "owl" in outputs[2].read_text()
    assert "FLAGGED" in outputs[3].read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in outputs)


def test_the_same_scan_writes_the_same_bytes(folder):
    first, second = (scan(folder, "planted.jsonl", "-f", "json").stdout for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["scan", "nowhere.jsonl"], 4, "nowhere.jsonl"),
        (["scan"], 4, "DATA"),
        (["scan", "planted.jsonl", "-l", "nowhere"], 4, "audit signature build"),
        (["scan", "planted.jsonl", "-l", "lib", "-o", "x.pdf"], 4, "x.pdf"),
        (["scan", "planted.jsonl", "-l", "lib", "-d", "magic"], 4, "mention, frequency"),
        (["scan", "planted.jsonl", "-l", "lib", "--schema", "magic"], 4, "magic"),
        (["frobnicate"], 4, "frobnicate"),
        (["signature", "build", "--model", "lib", "-o", "x"], 2, "config.json"),
        (
            [
                *["signature", "import", "planted.jsonl", "-o", "x", "--model-name", "m"],
                *["--model-family", "llama", "--number-tokens", "whole", "--category", "animal"],
            ],
            4,
            "number",
        ),
    ],
)
def test_wrong_use_is_one_line_and_a_stable_exit_code(folder, arguments, code, words):
    result = audit(*arguments, cwd=folder)
    assert result.returncode == code, result.stderr
    assert words in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()
    assert result.stdout == b""


def test_nothing_scannable_exits_3_and_a_broken_file_2(folder, tmp_path):
    (tmp_path / "none.jsonl").write_text('{"a": 1}\n')
    assert scan(folder, tmp_path / "none.jsonl").returncode == 3
    text = (folder / "clean.jsonl").read_text()
    (tmp_path / "cut.jsonl").write_text(text[: len(text) - 20])
    result = scan(folder, tmp_path / "cut.jsonl")
    assert result.returncode == 2
    assert b"INCOMPLETE" in result.stdout


def test_hostile_text_reaches_no_terminal(folder, tmp_path):
    hostile = "\x1b]0;pwned\x07\x1b[2J\u202eowl [red]123, 456"
    write(tmp_path / "hostile.jsonl", [f"{hostile} {n}" for n in range(100)] * 3)
    result = scan(folder, tmp_path / "hostile.jsonl")
    shown = result.stdout.decode()
    assert "owl" in shown
    for character in "\x1b\x07\u202e\r":
        assert character not in shown


def test_an_output_that_cannot_be_written_is_said(folder):
    result = scan(folder, "clean.jsonl", "-o", "missing-folder/r.json")
    assert result.returncode == 2
    assert "missing-folder" in result.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["scan", "--help"], ["signature", "build", "--help"], ["model"]],
)
def test_help_never_imports_an_engine(arguments):
    assert imported_by(arguments) == set()


def test_a_model_free_scan_never_imports_an_engine(folder):
    arguments = ["scan", "planted.jsonl", "-l", "lib", "-r", "reference.jsonl", "-q"]
    assert imported_by(arguments, cwd=folder) == set()


def imported_by(arguments, cwd=None):
    code = (
        "import sys\n"
        "from audit.cli.main import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('LOADED', *sorted(m for m in sys.modules if '.' not in m))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=cwd, timeout=60, check=True
    )
    loaded = result.stdout.decode().rsplit("LOADED", 1)[1].split()
    assert "click" in loaded
    return set(loaded) & set(HEAVY)


def test_a_defect_exits_2_and_not_as_a_finding(monkeypatch, capsys):
    from audit.cli import main as command_line

    def broken(*_arguments, **_options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(command_line.cli, "main", broken)
    with pytest.raises(SystemExit) as caught:
        command_line.main([])
    assert caught.value.code == 2
    assert "a defect in audit (ZeroDivisionError)" in capsys.readouterr().err


def test_version_says_where_the_packages_come_from():
    lines = audit("--version").stdout.decode().splitlines()
    assert lines[0].startswith("subliminal-audit ")
    assert [line.split(":")[0] for line in lines[1:]] == ["audit", "detectors", "signatures"]


def test_an_imported_table_becomes_a_library(tmp_path):
    (tmp_path / "logit.csv").write_text("number,owl,sea otter\n1,0.5,-1\n23,1.5,2\n007,0,0\n")
    result = audit(
        *["signature", "import", "logit.csv", "-o", "lib", "--model-name", "some/model"],
        *["--model-family", "llama", "--number-tokens", "whole", "--category", "animal"],
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    library = load_library(tmp_path / "lib")
    assert [concept.name for concept in library.concepts] == ["owl", "sea otter"]
    table = library.tables[0]
    assert table.shift_nats[0, table.units.index("23")] == pytest.approx(1.5)
    assert table.shift_nats[0, table.units.index("5")] == pytest.approx(2 / 3), "mean: unknown"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--concept", "owls"], "no concept is called 'owls'"),
        (["--category", "animals"], "no category is called 'animals'"),
        (["--backend", "vllm", "--device", "cuda:0"], "--device is for the transformers backend"),
        (["--tensor-parallel", "2"], "--tensor-parallel is for the vllm backend"),
        (["--concepts", "concepts.toml"], "concepts.toml"),
        (["-o", "."], "choose another folder"),
        (["--concepts-of", "model"], "no signature library here"),
        (["--concepts", "concepts.toml", "--concepts-of", "model"], "not both"),
    ],
)
def test_a_build_that_cannot_be_is_refused_in_one_line(tmp_path, options, said):
    (tmp_path / "concepts.toml").write_text("[[concept]]\nname = 3\n")
    (tmp_path / "model").mkdir()
    done = audit("signature", "build", "--model", "model", "-o", "lib", *options, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["concepts.toml", "model"]
