"""The scripts of `audit completion`, the one for bash driven in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(sys.executable).parent / "audit"

CASES = {
    "audit s": ["scan", "sanitise", "signature"],
    "audit signature me": ["merge"],
    "audit scan --form": ["--format"],
    "audit scan x.jsonl -f j": ["json", "junit"],
    "audit scan x.jsonl -d fr": ["frequency"],
    "audit sanitise x.jsonl -s shu": ["shuffle"],
    "audit verify --concept ow": ["owl"],
    "audit scan exam": ["compopt: -o default"],
    "audit completion ''": ["bash", "zsh", "fish"],
}
"""What is typed, an empty last word written as '', and what bash then offers."""

HEAD = """
source <(audit completion bash) || exit 9
complete -p audit > /dev/null || exit 8
compopt() { COMPREPLY+=("compopt: $1 $2"); }
"""
CASE = """
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
_audit_completion audit
printf '%s\t' "${{COMPREPLY[@]}}"; echo
"""


@pytest.fixture(scope="module")
def offered() -> dict[str, list[str]]:
    script = HEAD + "".join(CASE.format(words=words) for words in CASES)
    run = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{AUDIT.parent}:{os.environ['PATH']}"},
    )
    assert run.stderr == ""
    lines = [line.rstrip("\t").split("\t") for line in run.stdout.splitlines()]
    return dict(zip(CASES, lines, strict=True))


@pytest.mark.parametrize("words", CASES)
def test_bash_is_offered(words: str, offered: dict[str, list[str]]) -> None:
    assert offered[words] == CASES[words]


@pytest.mark.parametrize(
    ("shell", "part"),
    [("bash", "complete -o nosort -F _audit_completion audit"), ("zsh", "#compdef audit"),
     ("fish", "complete --no-files --command audit")],
)  # fmt: skip
def test_each_shell_has_its_script(shell: str, part: str) -> None:
    run = subprocess.run([AUDIT, "completion", shell], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert part in run.stdout
    path = shutil.which(shell)
    if path is not None:
        subprocess.run([path, "-n"], input=run.stdout, text=True, check=True)


def test_another_shell_is_a_usage_error() -> None:
    run = subprocess.run([AUDIT, "completion", "tcsh"], capture_output=True, text=True, check=False)
    assert run.returncode == 4 and run.stdout == ""
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in run.stderr
