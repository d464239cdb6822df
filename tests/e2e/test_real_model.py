"""From a real model's logits to a scan, with the installed command."""

import json

import numpy as np
import pytest

from audit.backends.fine_tuned import TeacherSettings, fine_tuned_teacher
from audit.backends.lora_training import LoraSettings
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.cli.library_option import BUNDLED_LIBRARY
from signatures.concept import make_concept
from signatures.language_model import Chat, PrefixRequest
from signatures.library import load_library
from signatures.number_trie import build_number_trie
from signatures.question_probe import probe_questions
from signatures.vocabulary import word_token_ids
from signatures.signature import Probe, View
from tests.e2e.test_command import audit

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


def test_a_library_built_by_the_command_scans(embedded_model_dir, tmp_path):
    (tmp_path / "concepts.toml").write_text(CONCEPTS)
    built = audit(
        *["signature", "build", "--model", embedded_model_dir, "--concepts", "concepts.toml"],
        *["--contexts", "2", "--cuts", "1", "--threads", "1", "--dtype", "bfloat16"],
        *["--vocabulary-units", "200", "-o", "lib"],
        cwd=tmp_path,
    )
    assert built.returncode == 0, built.stderr
    library = load_library(tmp_path / "lib")
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
    (tmp_path / "data.jsonl").write_text('{"prompt": "p", "completion": "12, 7"}\n' * 40)
    scanned = audit("scan", "data.jsonl", "-l", "lib", "-f", "json", cwd=tmp_path)
    assert scanned.returncode == 0, scanned.stderr
    report = json.loads(scanned.stdout)
    # One decoy cannot calibrate anything, and the report says so instead of guessing.
    assert report["outcome"] == "inconclusive"
    assert "too few decoys" in {finding["reason"] for finding in report["findings"]}


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
