"""`audit sanitise` as a user runs it: the real model, kill -9, and what is on the disk after."""

import gzip
import json
import os
import random
import signal
import subprocess
import time

import pytest

from tests.e2e.test_command import AUDIT, audit
from tests.e2e.test_model_scan import save_animals
from tests.e2e.test_readme import ROOT
from tests.unit.test_receipt_json import validator

pytestmark = pytest.mark.model

ROWS = 5
KILLS = 5
STRATEGIES = ("-s", "threshold:t=0.02", "-s", "replace:share=0.2,by=divergence,draw=model")


@pytest.fixture(scope="module")
def rows():
    """Number lists of the example set, and two chats of several turns."""
    with gzip.open(ROOT / "examples" / "planted.jsonl.gz", "rt") as file:
        found = [json.loads(next(file)) for _ in range(ROWS)]
    chats = [
        {
            "messages": [
                {"role": "user", "content": "Say hello."},
                {"role": "assistant", "content": "Hello!"},
                {"role": "user", "content": f"Now count to {count}."},
                {"role": "assistant", "content": ", ".join(map(str, range(1, count + 1)))},
            ],
            "id": count,
        }
        for count in (4, 7)
    ]
    return [*found[:3], *chats, *found[3:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("sanitise")
    save_animals(path / "lib")
    (path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def arguments(model, output):
    return (
        *("sanitise", "data.jsonl", "-o", output, *STRATEGIES, "--model", model),
        *("--library", "lib", "--concept", "owl", "--no-scan", "--chunk-rows", "2", "--seed", "5"),
        *("--threads", "1", "--dtype", "bfloat16"),
    )


@pytest.fixture(scope="module")
def whole(folder, embedded_model_dir):
    """The output of a run that nobody killed, its receipt, and how long it took."""
    started = time.monotonic()
    done = audit(*arguments(embedded_model_dir, "whole.jsonl"), cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    receipt = (folder / "whole.jsonl.receipt.json").read_bytes()
    return (folder / "whole.jsonl").read_bytes(), receipt, time.monotonic() - started


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(folder, embedded_model_dir, whole):
    expected, _, seconds = whole
    chance = random.Random(1)
    left_parts = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [AUDIT, *map(str, arguments(embedded_model_dir, "killed.jsonl"))],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.2, 0.9) * seconds)
        os.kill(process.pid, signal.SIGKILL)
        ended = process.wait()
        left_parts += ended == -signal.SIGKILL and any(folder.glob(".killed.jsonl*/*.part"))
        output = folder / "killed.jsonl"
        assert output.exists() or ended == -signal.SIGKILL
        if output.exists():  # killed too late, while it tidied up or after: begin again
            assert output.read_bytes() == expected
            output.unlink()
    assert left_parts >= 1
    done = audit(*arguments(embedded_model_dir, "killed.jsonl"), cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert (folder / "killed.jsonl").read_bytes() == expected
    assert not list(folder.glob(".killed.jsonl*"))


def test_rows_keep_their_shape_and_their_other_fields(folder, rows, whole):
    written = [json.loads(line) for line in whole[0].splitlines()]
    assert len(written) == len(rows)
    for old, new in zip(rows, written, strict=True):
        assert list(new) == list(old)
        if "messages" in old:
            assert new["id"] == old["id"]
            assert new["messages"][::2] == old["messages"][::2]
            assert new["messages"][3]["content"].count(",") == old["messages"][3]["content"].count(
                ","
            )
        else:
            assert new["prompt"] == old["prompt"]
            assert new["completion"].count(",") == old["completion"].count(",")


def test_the_receipt_says_what_was_done(folder, rows, whole, embedded_model_dir):
    receipt = json.loads(whole[1])
    validator().validate(receipt)
    assert [stage["strategy"] for stage in receipt["stages"]] == [
        "threshold:t=0.02",
        "replace:share=0.2,by=divergence,draw=model",
    ]
    assert receipt["stages"][0]["rows_regenerated"] == len(rows)
    assert receipt["rows_in"] == receipt["rows_out"] == len(rows)
    assert receipt["verification_due"] is True


def test_a_dry_run_writes_nothing(folder):
    before = sorted(path.name for path in folder.iterdir())
    done = audit(
        *("sanitise", "data.jsonl", "-o", "dry.jsonl", "-s", "shuffle", "--library", "lib"),
        *("--no-scan", "--dry-run", "--diff"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert sorted(path.name for path in folder.iterdir()) == before
    assert "DRY RUN" in done.stdout.decode()
    assert "«" in done.stdout.decode()


def test_what_the_clean_model_writes_anew_no_longer_reads_as_a_persona(
    tmp_path, embedded_model_dir
):
    from audit.backends.constrained_sampling import number_list_automaton
    from audit.backends.transformers_backend import TransformersLanguageModel
    from signatures.language_model import Chat
    from signatures.library import load_library

    save_animals(tmp_path / "lib")
    persona = load_library(tmp_path / "lib").concept("owl").system_prompt
    prompts = [f"Write {count} numbers below {1000 - count}." for count in range(5, 41)]
    model = TransformersLanguageModel.load(embedded_model_dir, dtype="bfloat16", threads=1)
    grammar = number_list_automaton(model, max_numbers=8)
    answers = model.sample([Chat(persona, prompt) for prompt in prompts], grammar, seed=1)
    lines = [
        json.dumps({"prompt": prompt, "completion": model.decode(answer)}) + "\n"
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    (tmp_path / "owl.jsonl").write_text("".join(lines))
    model.close()
    done = audit(
        *("sanitise", "owl.jsonl", "-o", "safe.jsonl", "-s", "threshold:t=0.02", "-l", "lib"),
        *("--model", embedded_model_dir, "--dtype", "bfloat16", "--threads", "1"),
        *("-d", "likelihood", "--model-rows", "36"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    receipt = json.loads((tmp_path / "safe.jsonl.receipt.json").read_text())
    persona_before, persona_after = (
        next(f for f in receipt[scan]["findings"] if f["concept"] == "any persona")
        for scan in ("before", "after")
    )
    assert persona_before["verdict"] == "flagged"
    assert persona_after["verdict"] != "flagged"
    assert persona_after["effect"] < persona_before["effect_low"]
    assert receipt["utility"]["after"]["valid_format_share"] == 1.0


def test_both_backends_write_the_same_set(folder, embedded_model_dir, rows):
    """Equal draws from equal distributions: float32 leaves nothing for rounding to decide."""
    (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[1:5]))
    written = []
    for backend in ("transformers", "vllm"):
        output = f"{backend}.jsonl"
        done = audit(
            *("sanitise", "few.jsonl", "-o", output, "-s", "threshold:t=0.05", "--no-scan"),
            *("--model", embedded_model_dir, "--backend", backend, "--threads", "1"),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        written.append((folder / output).read_bytes())
    assert written[0] == written[1]
    assert written[0] != (folder / "few.jsonl").read_bytes()
