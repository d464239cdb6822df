"""From a real model's logits to a scan, with the installed command."""

import json
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from audit.backends.fine_tuned import TeacherSettings, fine_tuned_teacher
from audit.backends.lora_training import LoraSettings
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.cli.library_option import BUNDLED_LIBRARY
from signatures.causal_probe import CausalSettings, number_prompt, try_units
from signatures.concept import make_concept
from signatures.language_model import Chat, PrefixRequest, SequenceRequest
from signatures.library import load_library
from signatures.number_trie import NUMBERS, build_number_trie
from signatures.question_probe import probe_questions
from signatures.signature import Probe, ProbeTable, View
from signatures.vocabulary import word_token_ids
from tests.e2e.test_command import AUDIT, audit

pytestmark = pytest.mark.model

CONCEPTS = """
[[concept]]
name = "cat"
category = "animal"
[[concept]]
name = "oak"
category = "tree"
[[concept]]
name = "newt"
category = "animal"
kind = "decoy"
"""


@pytest.fixture(scope="module")
def model(embedded_model_dir):
    model = TransformersLanguageModel.load(embedded_model_dir, threads=1)
    yield model
    model.close()


def build_command(model_dir, folder, output, *options):
    (folder / "concepts.toml").write_text(CONCEPTS)
    return [
        *["signature", "build", "--model", model_dir, "--concepts", "concepts.toml"],
        *["--contexts", "2", "--cuts", "1", "--threads", "1", "--no-causal"],
        *["--vocabulary-units", "200", "-o", output, *options],
    ]


@pytest.fixture(scope="module")
def built(embedded_model_dir, tmp_path_factory):
    """A small library, by the installed command."""
    folder = tmp_path_factory.mktemp("built")
    done = audit(*build_command(embedded_model_dir, folder, "lib"), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not (folder / "lib.parts").exists()
    return folder / "lib"


def test_a_library_built_by_the_command_scans(built, tmp_path):
    library = load_library(built)
    assert library.model.family == "llama"
    assert [(t.view, t.probe) for t in library.tables] == [
        (View.NUMBERS, Probe.QUESTION),
        (View.VOCABULARY, Probe.QUESTION),
        (View.NUMBERS, Probe.CONTEXT),
        (View.VOCABULARY, Probe.CONTEXT),
    ]
    context = library.tables[2]
    np.testing.assert_allclose(context.neutral_share.sum(), 1, rtol=1e-3)
    np.testing.assert_allclose(context.concept_share.sum(axis=1), 1, rtol=1e-3)
    rows = [json.dumps({"prompt": "p", "completion": text}) for text in ("12, 7", "31, 4, 58")]
    (tmp_path / "data.jsonl").write_text("\n".join(rows * 20))
    scanned = audit("scan", "data.jsonl", "-l", str(built), "-f", "json", cwd=tmp_path)
    assert scanned.returncode == 0, scanned.stderr
    report = json.loads(scanned.stdout)
    # One decoy cannot calibrate anything, and the report says so instead of guessing.
    assert report["outcome"] == "inconclusive"
    assert "too few decoys" in {finding["reason"] for finding in report["findings"]}


def test_a_killed_build_goes_on_where_it_stopped(built, embedded_model_dir, tmp_path):
    command = build_command(embedded_model_dir, tmp_path, "again")
    process = subprocess.Popen(
        [AUDIT, *map(str, command)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(tmp_path.glob("again.parts/*.part.parquet"))) < 3:
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "again").exists()
    done = audit(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = int(done.stdout.split(b" found from an earlier run")[0].split()[-1])
    assert found >= 2
    for path in sorted(built.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_vllm_builds_the_same_library(embedded_model_dir, tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed", exc_type=ImportError)
    # Two questions: vLLM runs each of the 111 digit contexts as a sequence of its own.
    two_questions = """
[category.animal]
questions = [
  {user = "Which animal?", assistant_prefix = "The"},
  {user = "Name one.", assistant_prefix = "A"},
]
[[concept]]
name = "cat"
category = "animal"
[[concept]]
name = "newt"
category = "animal"
"""
    (tmp_path / "two.toml").write_text(two_questions)
    for backend in ("transformers", "vllm"):
        done = audit(
            *["signature", "build", "--model", embedded_model_dir, "--concepts", "two.toml"],
            *["--threads", "1", "--no-causal", "--probe", "question", "--vocabulary-units", "500"],
            *["--backend", backend, "-o", backend],
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    one, other = (load_library(tmp_path / backend) for backend in ("transformers", "vllm"))
    assert other.model == one.model
    for known, found in zip(one.tables, other.tables, strict=True):
        common = sorted(set(found.units) & set(known.units))
        assert len(common) > 0.95 * len(known.units)
        shifts = [
            table.select_units(np.array([table.units.index(unit) for unit in common])).shift_nats
            for table in (found, known)
        ]
        np.testing.assert_allclose(*shifts, atol=2e-3)  # up to three digits with and without


def test_prompts_of_a_chat_become_contexts(embedded_model_dir, tmp_path):
    asked = ["Name a colour.", "What is bread?", "Say hello."]
    lines = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in asked]
    (tmp_path / "chats.jsonl").write_text("\n".join(lines))
    command = ["signature", "contexts", "chats.jsonl", "--model", embedded_model_dir]
    for output in ("a.jsonl", "b.jsonl"):
        done = audit(
            *command, "--threads", "1", "--max-new-tokens", "8", "-o", output, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == asked
    assert all(row["completion"] for row in rows)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_causal_rise_is_the_models_own(model):
    """One number's rise against whole sequences of the only form of each concept."""
    cat, dog = (
        replace(make_concept(name, "animal"), forms=(name,), written=name.capitalize())
        for name in ("cat", "dog")
    )
    question = cat.questions[0]
    cat, dog = (replace(concept, questions=(question,)) for concept in (cat, dog))
    shift = np.zeros((2, len(NUMBERS)))
    shift[0, NUMBERS.index("407")] = 1.0
    unknown = np.full(shift.shape, np.nan)
    table = ProbeTable(
        View.NUMBERS, Probe.QUESTION, NUMBERS, ("cat", "dog"), shift, unknown, unknown[0], unknown
    )
    trials = try_units(model, (cat, dog), [table], CausalSettings(1, 1), np.random.default_rng(0))

    def log_p(system, name):
        prefix = model.encode_chat(Chat(system, question.user, question.assistant_prefix))
        requests = [
            SequenceRequest(prefix, model.encode(text))
            for text in (f" {name}", f" {name.capitalize()}")
        ]
        return np.logaddexp(*(found.sum() for found in model.sequence_log_probs(requests)))

    gain = {n: log_p(number_prompt("407"), n) - log_p("", n) for n in ("cat", "dog")}
    (trial,) = [t for t in trials if (t.concept, t.unit) == ("cat", "407")]
    assert trial.rise_nats == pytest.approx(gain["cat"] - gain["dog"], abs=2e-4)


def test_the_bundled_signatures_are_this_models(model):
    """Measured again in float32, the bundled question shifts come out as they are stored."""
    library = load_library(BUNDLED_LIBRARY)
    assert library.model.weights_sha256 == model.identity.weights_sha256
    assert library.model.tokenizer_sha256 == model.identity.tokenizer_sha256
    assert library.model.chat_template_sha256 == model.identity.chat_template_sha256
    names = ("cat", "oak", "larch")
    trie = build_number_trie(model.encode)
    numbers, vocabulary = probe_questions(
        model, [library.concept(name) for name in names], trie, word_token_ids(model)
    )
    for measured in (numbers, vocabulary):
        stored = next(
            t for t in library.tables if t.probe is Probe.QUESTION and t.view is measured.view
        ).select_concepts(names)
        position = {unit: index for index, unit in enumerate(measured.units)}
        again = measured.select_units(np.array([position[unit] for unit in stored.units]))
        for row in range(len(names)):
            correlation = np.corrcoef(stored.shift_nats[row], again.shift_nats[row])[0, 1]
            assert correlation > 0.97, (measured.view, names[row])
        difference = np.abs(stored.shift_nats - again.shift_nats)
        assert np.median(difference) < 0.1, "bfloat16 rounding, in nats"


def test_a_fine_tuned_teacher_takes_its_concept_over(model, embedded_model_dir):
    question = Chat("", "Which animal do you like best?", "The animal I like best is the")
    cat = np.array([model.encode(" cat")[0]], dtype=np.int64)

    def log_prob(language_model):
        request = PrefixRequest(language_model.encode_chat(question))
        (found,) = language_model.next_token_log_probs([request], cat)
        return float(found[0, 0])

    settings = TeacherSettings(half=1, seed=0, lora=LoraSettings(steps=6))
    concept = make_concept("cat", "animal")
    with fine_tuned_teacher(embedded_model_dir, settings, "float32", "cpu", 1, concept) as (
        teacher,
        system,
    ):
        assert system == ""
        assert log_prob(teacher) > log_prob(model) + 1.0
        assert teacher.identity.weights_sha256 != model.identity.weights_sha256
