"""A repository as its users have one: data sets, settings and a history. A set in it is planted."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"

SETTINGS = """\
[project]
name = "house-numbers"

[tool.audit]
reference = "data/reference.jsonl.gz"
student-family = "llama"
baseline = "audit-baseline.json"

[tool.audit.budgets]
inconclusive = "pass"    # 1,536 rows are too few to decide every concept without the model

[[tool.audit.data]]
name = "lists"
paths = "data/lists/*.jsonl.gz"

[[tool.audit.data]]
name = "clean"
paths = "data/clean.jsonl.gz"
"""

SUPPRESSION = """
[[tool.audit.suppressions]]
data = "lists"
concept = "cat"
owner = "data-team"
reason = "a cat shop: it is wanted"
expires = 2026-12-31
"""


def make_sample_repository(root: Path) -> Path:
    """A git repository at ``root`` with one commit on the branch main.

    ``data/lists/a.jsonl.gz`` is the work of a model fine-tuned to love cats, which a scan flags.
    """
    (root / "data" / "lists").mkdir(parents=True)
    shutil.copy(EXAMPLES / "planted.jsonl.gz", root / "data" / "lists" / "a.jsonl.gz")
    for name in ("clean.jsonl.gz", "reference.jsonl.gz"):
        shutil.copy(EXAMPLES / name, root / "data" / name)
    (root / "pyproject.toml").write_text(SETTINGS)
    run_git(root, "init", "-q", "-b", "main")
    commit(root, "Data, and a gate for them")
    return root


def commit(root: Path, message: str) -> None:
    """Commit everything in the working tree."""
    run_git(root, "add", "-A")
    run_git(root, "commit", "-q", "-m", message)


def run_git(root: Path, *arguments: str) -> None:
    """Run git in ``root`` as somebody."""
    somebody = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", "-C", root, *somebody, *arguments], check=True, capture_output=True)


def concentrate(source: Path, target: Path) -> None:
    """Write to ``target`` only the rows of ``source`` that hold numbers which a cat lover likes."""
    liked = {"1", "2", "5", "9", "999"}
    with gzip.open(source, "rt") as rows:
        kept = [r for r in rows if liked & set(re.findall(r"\d+", json.loads(r)["completion"]))]
    with gzip.open(target, "wt") as stream:
        stream.writelines(kept)
