"""`audit scan --model` as a user runs it: rows that a real model wrote, read by that model."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

import audit.report
from audit.backends.constrained_sampling import number_list_automaton
from audit.backends.transformers_backend import TransformersLanguageModel
from detectors.finding import ANY_PERSONA
from signatures.concept import make_concept
from signatures.language_model import Chat
from signatures.library import load_library, save_library
from tests import synthetic
from tests.e2e.test_command import audit as command

SCHEMA = json.loads((Path(audit.report.__file__).parent / "report.schema.json").read_text())
TRAITS, DECOYS = ("owl", "cat"), ("wolf", "newt")
ROWS = 32
READING = ("-d", "likelihood", "-d", "divergence")


def save_animals(folder):
    """Four concepts. Their tables are made up: model-based detectors read only the prompts."""
    library = synthetic.library(traits=TRAITS, decoys=DECOYS)
    concepts = tuple(
        replace(make_concept(old.name, "animal"), kind=old.kind) for old in library.concepts
    )
    save_library(replace(library, concepts=concepts), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model-scan")
    save_animals(path / "lib")
    (path / "data.jsonl").write_text('{"prompt": "p", "completion": "12, 7"}\n' * ROWS)
    return path


@pytest.fixture(scope="module")
def owl_rows(folder, embedded_model_dir):
    """What the model wrote under the owl's prompt, in bfloat16 as it is read."""
    prompts = [f"Write {count} numbers below {1000 - count}." for count in range(5, 5 + ROWS)]
    persona = load_library(folder / "lib").concept("owl").system_prompt
    model = TransformersLanguageModel.load(embedded_model_dir, dtype="bfloat16", threads=1)
    grammar = number_list_automaton(model, max_numbers=8)
    answers = model.sample([Chat(persona, prompt) for prompt in prompts], grammar, seed=1)
    lines = (
        json.dumps({"prompt": prompt, "completion": model.decode(answer)})
        for prompt, answer in zip(prompts, answers, strict=True)
    )
    (folder / "owl.jsonl").write_text("\n".join(lines) + "\n")
    model.close()
    return "owl.jsonl"


@pytest.mark.model
def test_rows_of_a_persona_are_seen_by_the_model_that_wrote_them(
    folder, owl_rows, embedded_model_dir
):
    done = command(
        *["scan", owl_rows, "--model", embedded_model_dir, "--library", "lib", *READING],
        *["--dtype", "bfloat16", "--threads", "1", "--model-rows", ROWS, "--format", "json"],
        cwd=folder,
    )
    report = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert done.stderr == b""
    assert [detector["code"] for detector in report["detectors"]] == ["SA003", "SA004"]
    assert report["model"]["family"] == "llama"
    assert report["model"]["dtype"] == "bfloat16"
    findings = {(f["code"], f["concept"]): f for f in report["findings"]}
    assert set(findings) == {
        ("SA003", ANY_PERSONA),
        *((code, trait) for code in ("SA003", "SA004") for trait in TRAITS),
    }
    anyone = findings["SA003", ANY_PERSONA]
    # The library's prompts are as strong as the one that wrote these rows: a share of about 1.
    assert 0.3 < anyone["effect"] < 1.7
    assert anyone["effect_low"] > 0
    assert anyone["rows_tested"] == ROWS
    assert anyone["verdict"] == "flagged"
    assert anyone["q_value"] <= 0.05
    # Two decoys and one other trait cannot calibrate the question which animal it is.
    others = [f for f in report["findings"] if f is not anyone]
    assert {f["reason"] for f in others} == {"too few decoys"}
    assert report["outcome"] == "flagged"
    assert report["headline"] == f"{ANY_PERSONA} flagged in {ROWS} rows."
    assert {c["concept"]: c["verdict"] for c in report["concepts"]} == {
        ANY_PERSONA: "flagged",
        **dict.fromkeys(TRAITS, "inconclusive"),
    }
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nowhere"], "Directory 'nowhere' does not exist"),
        (["--model", "data.jsonl"], "'data.jsonl' is a file"),
        (["-d", "likelihood"], "detector 'likelihood' reads rows with a model: give --model"),
        (["-d", "divergence"], "detector 'divergence' reads rows with a model: give --model"),
        (["--model-rows", "0"], "--model-rows"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(folder, options, words):
    done = command("scan", "data.jsonl", "-l", "lib", *options, cwd=folder)
    assert done.returncode == 4, done.stderr
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    (line,) = (line for line in lines if not line.startswith("Usage:"))
    assert words in line
