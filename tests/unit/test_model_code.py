"""A model folder can hold code: none of it is run, whatever the folder says."""

import json
import shutil

import pytest

from audit.backends.transformers_backend import TransformersLanguageModel
from audit.errors import AuditError
from signatures.language_model import Chat

pytestmark = pytest.mark.model

_CODE = """
from pathlib import Path
Path({marker!r}).write_text("this was run")
class Evil:
    pass
"""


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A model that brings its own code for everything that can be brought."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_model_dir, copy)
    code = _CODE.format(marker=str(tmp_path / "marker"))
    for name in ("configuration_evil", "modeling_evil", "tokenization_evil", "torch", "json"):
        (copy / f"{name}.py").write_text(code)
    _edit(
        copy / "config.json",
        auto_map={
            "AutoConfig": "configuration_evil.Evil",
            "AutoModelForCausalLM": "modeling_evil.Evil",
        },
    )
    _edit(
        copy / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]},
    )
    (copy / "custom_generate").mkdir()
    (copy / "custom_generate" / "generate.py").write_text(code)
    return copy


def _edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


def test_a_known_model_is_opened_without_its_code(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    model = TransformersLanguageModel.load(folder)
    assert model.encode("1, 2")
    model.close()
    assert not (tmp_path / "marker").exists()


def test_a_model_that_is_nothing_without_its_code_is_one_line(folder, tmp_path):
    _edit(folder / "config.json", model_type="evil")
    with pytest.raises(AuditError) as caught:
        TransformersLanguageModel.load(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "template",
    [
        "{{ cycler.__init__.__globals__.os.system('touch marker') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ range(10000000000)|list|length }}",
        "{{ 1 // 0 }}",
        "{% if %}",
    ],
)
def test_a_chat_template_is_no_program(folder, tmp_path, monkeypatch, template):
    monkeypatch.chdir(tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    _edit(folder / "tokenizer_config.json", chat_template=template)
    model = TransformersLanguageModel.load(folder)
    with pytest.raises(AuditError, match="cannot hold this system message") as caught:
        model.encode_chat(Chat("", "1, 2"))
    assert "\n" not in str(caught.value)
    model.close()
    assert not (tmp_path / "marker").exists()
