"""``audit signature check``: one line a file and fingerprint, and 2 for anything wrong."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.cli.main import main
from audit.errors import AuditError
from audit.model_fingerprints import chat_template, fingerprint_folder
from signatures.language_model import ModelIdentity
from signatures.library import LibraryError, load_library, save_library
from signatures.library_check import check_library
from signatures.library_model import refuse_other_model
from tests import synthetic

WEIGHTS = b"weights"
TOKENIZER = b'{"model": {}}'
TEMPLATE = "{{ messages }}"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


IDENTITY = ModelIdentity(
    "model",
    "llama",
    sha256(WEIGHTS),
    sha256(TOKENIZER),
    sha256(TEMPLATE.encode()),
    10,
    "float32",
)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 10}')
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture
def folder(tmp_path):
    save_library(replace(synthetic.library(), model=IDENTITY), tmp_path / "library")
    return tmp_path / "library"


def check(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["signature", "check", *map(str, arguments)])
    shown = capsys.readouterr()
    return caught.value.code, shown.out.splitlines(), shown.err


def test_a_whole_library_of_this_model(capsys, folder, model):
    content = load_library(folder).content_sha256
    code, lines, error = check(capsys, folder, "--model", model)
    assert (code, error) == (0, "")
    assert lines == [
        f"ok     manifest.json: library 'synthetic' of 15 concepts, content {content[:12]}",
        "ok     context-numbers.parquet: 15 concepts x 1,110 units",
        "ok     other files: none",
        f"ok     weights: {IDENTITY.weights_sha256[:12]}, as in 'model'",
        f"ok     tokenizer: {IDENTITY.tokenizer_sha256[:12]}, as in 'model'",
        f"ok     chat template: {IDENTITY.chat_template_sha256[:12]}, as in 'model'",
    ]


def test_every_fault_has_a_line_of_its_own(capsys, folder, model):
    table = folder / "context-numbers.parquet"
    table.write_bytes(table.read_bytes() + b" ")
    (folder / "evil\n\x1b.py").write_text("")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_text("other")
    code, lines, _ = check(capsys, folder, "--model", model)
    assert code == 2
    assert [line[:6].strip() for line in lines] == ["ok", *["WRONG"] * 4, "ok"]
    assert f"{table}: changed after" in lines[1]
    assert "evil↵␛.py: is no part of the library; remove it" in lines[2]
    assert f"{folder}: measured with the weights {IDENTITY.weights_sha256[:12]}" in lines[3]
    assert f"'model' has {sha256(b'other')[:12]}" in lines[3]
    assert "measured with the tokenizer" in lines[4]


def test_a_missing_table_and_a_missing_library(capsys, folder, tmp_path):
    (folder / "context-numbers.parquet").unlink()
    code, lines, _ = check(capsys, folder)
    assert code == 2
    assert "missing; the library is incomplete, fetch or build it again" in lines[1]
    code, lines, _ = check(capsys, tmp_path / "nowhere")
    assert code == 2
    assert len(lines) == 1
    assert "no signature library here" in lines[0]


def test_a_manifest_that_lies_ends_the_check(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"synthetic"', '"other"'))
    (found,) = check_library(folder)
    assert not found.ok
    assert "was changed after the library was written" in found.detail


def test_an_imported_library_is_of_no_known_model(capsys, tmp_path, model):
    unknown = replace(IDENTITY, weights_sha256="", tokenizer_sha256="", chat_template_sha256="")
    save_library(replace(synthetic.library(), model=unknown), tmp_path / "library")
    code, lines, _ = check(capsys, tmp_path / "library", "--model", model)
    assert code == 2
    assert sum("does not record its" in line for line in lines) == 3


def test_what_is_no_model_is_said_in_one_line(capsys, folder, tmp_path):
    code, _, error = check(capsys, folder, "--model", tmp_path)
    assert code == 2
    assert error == f"audit: {tmp_path / 'config.json'}: not there; give the folder of a model\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_sha256": "x"}, "weights differs"),
        ({"tokenizer_sha256": "x"}, "tokenizer differs"),
        (
            {"weights_sha256": "x", "tokenizer_sha256": "y", "chat_template_sha256": "z"},
            "weights, tokenizer and chat template differ",
        ),
    ],
)
def test_another_model_is_refused_by_what_differs(changes, message):
    library = replace(synthetic.library(), model=IDENTITY)
    refuse_other_model(library, replace(IDENTITY, name="renamed", dtype="bfloat16"))
    with pytest.raises(LibraryError, match=message) as caught:
        refuse_other_model(library, replace(IDENTITY, **changes))
    assert "\n" not in str(caught.value)


def test_a_library_that_does_not_say_its_model_is_refused_too():
    unknown = replace(IDENTITY, weights_sha256="", tokenizer_sha256="")
    with pytest.raises(LibraryError, match="does not say on which weights and tokenizer"):
        refuse_other_model(replace(synthetic.library(), model=unknown), IDENTITY)


# Chat templates: what transformers gives


def with_tokenizer(folder, config):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config})
    )


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({}, {}, ""),
        ({"chat_template": "in config"}, {}, "in config"),
        ({"chat_template": "in config"}, {"chat_template.jinja": "a\r\nb\n"}, "a\nb\n"),
        ({}, {"additional_chat_templates/default.jinja": "only"}, "only"),
        (
            {"chat_template": "c"},
            {"additional_chat_templates/default.jinja": "only", "chat_template.jinja": "less"},
            "only",
        ),
    ],
)
def test_the_chat_template_is_that_of_transformers(tmp_path, config, files, expected):
    transformers = pytest.importorskip("transformers")
    with_tokenizer(tmp_path, config)
    (tmp_path / "additional_chat_templates").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert chat_template(tmp_path) == (theirs.chat_template or "") == expected


def test_several_chat_templates_are_refused(tmp_path):
    listed = [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": listed}))
    with pytest.raises(AuditError, match="several chat templates"):
        chat_template(tmp_path)
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("b")
    with pytest.raises(AuditError, match="several chat templates"):
        chat_template(tmp_path)


def test_comparing_with_a_model_imports_no_engine(folder, model):
    program = (
        "import sys; from audit.cli.main import main\n"
        f"try: main(['signature', 'check', {str(folder)!r}, '--model', {str(model)!r}])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'vllm', 'peft', 'tokenizers', 'model_signing'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_bundled_library_is_whole():
    assert all(found.ok for found in check_library(BUNDLED_LIBRARY))


@pytest.mark.model
def test_the_bundled_library_is_of_the_embedded_model(embedded_model_dir):
    refuse_other_model(load_library(BUNDLED_LIBRARY), fingerprint_folder(embedded_model_dir))
