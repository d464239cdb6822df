"""`audit sanitise` on the command line: what it prints, how it exits, what it loads."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from audit.cli.main import main
from audit.sanitise.registry import strategy_infos
from signatures.library import save_library
from tests import synthetic
from tests.sanitise_runs import number_row, read_rows, write_rows
from tests.unit.test_receipt_json import validator

LIBRARY = synthetic.library(strength=1.0)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("command") / "lib"
    save_library(LIBRARY, path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "data.jsonl", [number_row(*range(i, i + 9), id=i) for i in range(6)])
    return tmp_path


@pytest.fixture
def sanitise(library, capsysbinary):
    """Runs the command; gives (exit code, standard output, standard error)."""

    def call(*arguments, scans=False):
        options = () if scans else ("--no-scan",)
        with pytest.raises(SystemExit) as exited:
            main(["sanitise", *map(str, arguments), "--library", str(library), *options])
        printed = capsysbinary.readouterr()
        return exited.value.code, printed.out.decode(), printed.err.decode()

    return call


def test_help_lists_every_strategy_with_its_parameters(capsys):
    with pytest.raises(SystemExit) as exited:
        main(["sanitise", "--help"])
    assert exited.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    listing = text[text.index("Strategies (NAME or") :]
    for info in strategy_infos():
        assert f" {info.name}" in listing
        assert info.summary in listing
        for parameter in info.parameters:
            assert parameter.name + "=" in listing
    assert " auto " in listing


def test_a_run_writes_the_set_and_its_receipts(folder, sanitise):
    code, out, err = sanitise("data.jsonl", "-o", "out.jsonl", "-s", "shuffle")
    assert (code, err) == (0, "")
    assert "shuffle" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        "data.jsonl",
        "out.jsonl",
        "out.jsonl.croissant.json",
        "out.jsonl.receipt.json",
    ]
    old, new = read_rows(folder / "data.jsonl"), read_rows(folder / "out.jsonl")
    for before, after in zip(old, new, strict=True):
        numbers = before.pop("completion"), after.pop("completion")
        assert sorted(numbers[0].split(", ")) == sorted(numbers[1].split(", "))
        assert before == after
    receipt = json.loads((folder / "out.jsonl.receipt.json").read_bytes())
    validator().validate(receipt)
    assert receipt["rows_out"] == 6
    json.loads((folder / "out.jsonl.croissant.json").read_bytes())


def test_the_receipt_on_standard_output_is_the_file(folder, sanitise):
    code, out, _ = sanitise(
        *("data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "-f", "json", "--receipt", "r.json")
    )
    assert code == 0
    assert out.encode() == (folder / "r.json").read_bytes()
    assert not (folder / "out.jsonl.receipt.json").exists()


def test_quiet_prints_nothing(folder, sanitise):
    assert sanitise("data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "-q") == (0, "", "")


def test_a_diff_shows_rows_before_and_after(folder, sanitise):
    # What stands in data must not steer a terminal.
    write_rows(folder / "data.jsonl", [number_row(*range(9), prompt="\x1b[31mred\u202e")])
    code, out, _ = sanitise("data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "--diff")
    assert code == 0
    assert "before" in out
    assert all(out.count(f"«{number}»") == 2 for number in "012")
    assert "\x1b[31mred" not in out
    assert "\u202e" not in out


def test_a_dry_run_prints_what_would_be_and_writes_nothing(folder, sanitise):
    before = sorted(path.name for path in folder.iterdir())
    code, out, _ = sanitise("data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "--dry-run")
    assert code == 0
    assert "shuffle" in out
    assert sorted(path.name for path in folder.iterdir()) == before


def test_several_strategies_are_applied_in_order(folder, sanitise):
    code, out, _ = sanitise(
        *("data.jsonl", "-o", "out.jsonl", "-f", "json"),
        *("-s", "shuffle", "-s", "dilute:share=0.5", "--clean", "data.jsonl"),
    )
    assert code == 0
    assert [stage["strategy"] for stage in json.loads(out)["stages"]] == [
        "shuffle",
        "dilute:share=0.5",
    ]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("-s", "owl"), "no strategy is called 'owl'; there are: shuffle,"),
        (("-s", "dilute:share=2"), "share is a number in 0..0.99, not 2"),
        (("-s", "threshold"), "strategy threshold works with a model: give --model"),
        (("-s", "drop-rows:by=random"), "give --model"),
        (("-s", "auto", "-s", "shuffle"), "auto chooses one strategy by itself"),
        (("-s", "dilute"), "--clean"),
        (("-s", "shuffle", "-c", "dog"), "the library holds no concept 'dog'"),
        (("-s", "shuffle", "--chunk-rows", "0"), "0 is not in the range"),
        (("-s", "shuffle", "--schema", "owl"), "owl"),
        (("-s", "shuffle", "-o", "data.jsonl"), "is an input"),
        (("-s", "shuffle", "-o", "out.csv"), "give it the same ending"),
        (("-s", "shuffle", "--receipt", "data.jsonl"), "is an input"),
    ],
)
def test_usage_errors_exit_4_with_one_line(folder, sanitise, arguments, what):
    code, out, err = sanitise("data.jsonl", "-o", "out.jsonl", *arguments)
    assert (code, out) == (4, "")
    *usage, line = err.splitlines()
    assert line.startswith("audit: ")
    assert what in line
    assert all(text.startswith(("Usage: ", " ")) for text in usage)
    assert [path.name for path in folder.iterdir()] == ["data.jsonl"]


def test_an_output_that_exists_needs_force(folder, sanitise):
    (folder / "out.jsonl").write_text("old")
    code, _, err = sanitise("data.jsonl", "-o", "out.jsonl", "-s", "shuffle")
    assert code == 4
    assert err == "audit: out.jsonl exists: remove it, or give --force to replace it\n"
    assert sanitise("data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "--force")[0] == 0


def test_data_that_break_off_exit_2_and_no_rows_3(folder, sanitise):
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    code, out, err = sanitise("broken.parquet", "-o", "out.parquet", "-s", "shuffle")
    assert (code, out) == (2, "")
    assert err.startswith("audit: broken.parquet")
    assert err.count("\n") == 1
    (folder / "empty.jsonl").write_text("")
    code, out, err = sanitise("empty.jsonl", "-o", "out.jsonl", "-s", "shuffle")
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir() if not path.is_dir()) == [
        *("broken.parquet", "data.jsonl", "empty.jsonl"),
    ]


def test_data_that_are_not_there_are_told(folder, sanitise):
    code, _, err = sanitise("none.jsonl", "-o", "out.jsonl", "-s", "shuffle")
    assert code == 4
    assert "none.jsonl" in err
    assert err.count("\n") == 1


def test_a_set_that_is_still_flagged_exits_1(folder, sanitise):
    # An owl's numbers in another order are an owl's numbers.
    owl = synthetic.share_of(LIBRARY, "owl")
    lists = synthetic.number_rows(400, np.random.default_rng(1), owl)
    write_rows(folder / "data.jsonl", [number_row(text) for text in lists])
    arguments = ("data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "--force")
    code, out, err = sanitise(*arguments, scans=True)
    assert (code, err) == (1, "")
    assert "owl" in out
    assert sanitise(*arguments, "--dry-run", scans=True)[0] == 1
    receipt = json.loads((folder / "out.jsonl.receipt.json").read_bytes())
    validator().validate(receipt)
    assert receipt["after"]["outcome"] == "flagged"


def test_help_and_what_needs_no_model_load_no_engine(folder, library):
    heavy = {"torch", "transformers", "vllm", "peft", "tokenizers", "altair"}
    run = ["sanitise", "data.jsonl", "-o", "out.jsonl", "-s", "shuffle", "-l", str(library)]
    for arguments in (["sanitise", "--help"], run):
        program = (
            "import sys\nfrom audit.cli.main import main\n"
            f"try: main({arguments!r})\n"
            "except SystemExit as stop: assert stop.code == 0, stop.code\n"
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
    assert (folder / "out.jsonl").exists()
