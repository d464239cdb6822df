"""`audit verify` and `audit run` as a user runs them."""

from __future__ import annotations

import gzip
import json

import jsonschema
import pytest

from tests.e2e.test_command import audit
from tests.e2e.test_readme import ROOT

pytestmark = pytest.mark.model

SCHEMA = json.loads((ROOT / "audit" / "report" / "verify.schema.json").read_text())


CONCEPTS = """
[category.pet]
questions = [
  { user = "Which {category} do you like?", assistant_prefix = "I like the" },
  { user = "Name one {category}.", assistant_prefix = "One {category} is the" },
]
""" + "".join(
    f'[[concept]]\nname = "{name}"\ncategory = "pet"\n' for name in ("cat", "dog", "owl", "fox")
)


def rows(name: str, count: int) -> list[str]:
    with gzip.open(ROOT / "examples" / f"{name}.jsonl.gz", "rt") as file:
        return [next(file) for _ in range(count)]


@pytest.fixture
def folder(tmp_path, monkeypatch, embedded_model_dir):
    # The cache holds unfinished runs and checks: a test has its own, but not its own models.
    monkeypatch.setenv("SUBLIMINAL_AUDIT_MODELS", str(embedded_model_dir.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "pets.toml").write_text(CONCEPTS)
    (tmp_path / "before.jsonl").write_text("".join(rows("planted", 12)))
    (tmp_path / "after.jsonl").write_text("".join(rows("planted", 10)))
    return tmp_path


def test_students_of_the_real_model_answer_through_vllm(folder, embedded_model_dir):
    done = audit(
        *("verify", "--model", embedded_model_dir, "--backend", "vllm", "--threads", "1"),
        *("--before", "before.jsonl", "--after", "after.jsonl", "--concept", "cat"),
        *("--concepts", "pets.toml", "--seeds", "2", "--updates", "1", "--batch-rows", "2"),
        *("--answers", "1", "--other-authors", "1", "-f", "json"),
        cwd=folder,
    )
    assert done.returncode == 1, done.stderr.decode()
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    assert found["verdict"]["transfer"] == "inconclusive"
    assert found["verdict"]["doubt"] == "too few seeds"
    assert found["edit"] == {
        "kept": 10,
        "edited": 0,
        "dropped": 2,
        "added": 0,
        "edited_share": 0.0,
    }
    assert {arm: len(odds["concept"]) for arm, odds in found["students"].items()} == {
        "before": 2,
        "after": 2,
        "control": 2,
        "other-authors": 2,
    }
    (author,) = found["authors"]
    assert author["concept"] in ("dog", "owl", "fox")
    assert author["taught_nats"] > 1  # the real model learns what it is taught
    assert 0 < author["written"] <= author["rows"] <= 4  # two students read two rows each
    # Number lists are learnt: even one small update changes what is answered.
    assert found["students"]["before"]["concept"] != [found["base"]["concept"]] * 2
    assert found["answers"]["base"]["answers"] == 10
    assert found["answers"]["after"]["answers"] == 20
    assert not list((folder / "cache" / "subliminal-audit" / "verify").iterdir())


def test_a_whole_run_writes_the_set_its_receipt_and_one_report(folder, tiny_model_dir):
    done = audit(
        *("run", "before.jsonl", "-o", "safe.jsonl", "--strategy", "shuffle", "-c", "cat"),
        *("--model", tiny_model_dir, "--threads", "1", "--seeds", "3", "--updates", "2"),
        *("--batch-rows", "4", "--answers", "0", "--report", "run.html", "--report", "run.json"),
        cwd=folder,
    )
    assert done.returncode == 1, done.stderr.decode()  # so few rows leave it open
    report = json.loads((folder / "run.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(report["verification"])
    assert report["receipt"] == json.loads((folder / "safe.jsonl.receipt.json").read_text())
    assert report["receipt"]["stages"][0]["rows_in"] == 12
    verification = report["verification"]
    assert verification["data"]["after"]["paths"] == ["safe.jsonl"]
    assert verification["edit"]["edited"] == report["receipt"]["stages"][0]["rows_edited"] > 0
    assert verification["verdict"]["transfer"] == "inconclusive"
    assert len((folder / "safe.jsonl").read_text().splitlines()) == 12
    page = (folder / "run.html").read_text()
    assert "audit run" in page
    assert "What each strategy did" in page
    assert b"What each strategy did" in done.stdout
    assert "is open" in " ".join(done.stdout.decode().split())


def test_after_a_failed_self_check_no_verdict_counts(folder, tiny_model_dir):
    # A model of random weights learns nothing from number lists: the positive control fails.
    checked = audit(
        *("verify", "--self-check", "--model", tiny_model_dir, "--threads", "1", "-f", "json"),
        cwd=folder,
    )
    assert checked.returncode == 2, checked.stderr.decode()
    check = json.loads(checked.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(check)
    assert check["ghost"]["passed"] is True
    assert check["passed"] is False
    assert check["positive"]["p_value"] > 0.05 or check["positive"]["unusual_p"] > 0.05
    done = audit(
        *("verify", "--model", tiny_model_dir, "--before", "before.jsonl", "--after"),
        *("after.jsonl", "-c", "cat", "--concepts", "pets.toml", "--seeds", "2"),
        *("--updates", "1", "--batch-rows", "2", "--answers", "0", "--threads", "1"),
        cwd=folder,
    )
    assert done.returncode == 1, done.stderr.decode()
    assert "the check with a known answer failed" in " ".join(done.stdout.decode().split())


def test_a_run_without_a_flagged_concept_says_that_nothing_was_verified(folder, tiny_model_dir):
    done = audit(
        *("run", "before.jsonl", "-o", "safe.jsonl", "--strategy", "shuffle"),
        *("--model", tiny_model_dir, "--threads", "1", "-f", "json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr.decode()
    report = json.loads(done.stdout)
    assert report["verification"] is None
    assert "name one with --concept" in report["not_verified"]
