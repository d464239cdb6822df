"""Chats through templates of every kind; a small tokenizer of words stands for a model's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.backends.chat_encoder import ChatEncoder, load_chat_encoder
from audit.errors import AuditError
from signatures.language_model import Chat, ModelIdentity

pytest.importorskip("transformers", reason="the extra 'models' is not installed")

USER_ONLY = (
    "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% endif %}{% endfor %}"
)
RAISES = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + USER_ONLY
ALTERNATES = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}{% endif %}"
    "[{{ m.content | trim }}]{% endfor %}"
)
SYSTEM = "{% if messages[0].role == 'system' %}S:{{ messages[0].content }};{% endif %}"
DEFAULT_FOR_EMPTY = (
    "{% if messages[0].role == 'system' and messages[0].content %}S:{{ messages[0].content }};"
    "{% else %}S:You are a very helpful assistant made by somebody, so help.;{% endif %}"
)
# As Qwen2 does: a default where no system message is given, none where an empty one is.
DEFAULT_FOR_NONE = (
    "{% if messages[0].role != 'system' %}S:You are a very helpful assistant and so on;{% endif %}"
)
REFUSES_EMPTY = (
    "{% if messages[0].role == 'system' and not messages[0].content %}"
    "{{ raise_exception('empty') }}{% endif %}"
)
DROPS_EMPTY = (
    "{% if messages[0].content and messages[0].role == 'system' %}"
    "S:{{ messages[0].content }};{% endif %}"
)


def encoder(template: str) -> ChatEncoder:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    tokenizer.chat_template = template
    return ChatEncoder(tokenizer, ModelIdentity("tiny", "x", "", "", "", 1, "float32"), (0,))


@pytest.mark.parametrize("template", [USER_ONLY, RAISES, ALTERNATES])
def test_without_a_system_role_the_persona_leads_the_user_turn(template: str) -> None:
    model = encoder(template)
    assert model.render_chat(Chat("", "Hi", "Yo")) == "[Hi]Yo"
    assert model.render_chat(Chat("Be brief.", "Hi", "Yo")) == "[Be brief.\n\nHi]Yo"


def test_a_template_may_itself_merge_system_and_user() -> None:
    # As Gemma does: its own way is kept.
    model = encoder(
        "{% if messages[0].role == 'system' %}<{{ messages[0].content }}|{{ messages[1].content }}>"
        "{% else %}<{{ messages[0].content }}>{% endif %}"
    )
    assert model.render_chat(Chat("Be brief.", "Hi")) == "<Be brief.|Hi>"
    assert model.render_chat(Chat("", "Hi")) == "<|Hi>"


def test_default_for_an_empty_message_is_refused() -> None:
    model = encoder(DEFAULT_FOR_EMPTY + USER_ONLY)
    assert model.render_chat(Chat("Be brief.", "Hi")) == "S:Be brief.;[Hi]"
    with pytest.raises(ValueError, match="tiny cannot hold"):
        model.encode_chat(Chat("", "Hi"))


def test_default_only_where_no_message_is_given() -> None:
    model = encoder(DEFAULT_FOR_NONE + SYSTEM + USER_ONLY)
    assert model.render_chat(Chat("", "Hi")) == "S:;[Hi]"


def test_a_refused_empty_message_is_left_out() -> None:
    assert encoder(REFUSES_EMPTY + SYSTEM + USER_ONLY).render_chat(Chat("", "Hi")) == "[Hi]"


def test_a_dropped_empty_message_is_none() -> None:
    assert encoder(DROPS_EMPTY + USER_ONLY).render_chat(Chat("", "Hi")) == "[Hi]"


HISTORY = (("One?", "1"), ("Two?", "2"))
ROLES = "{% for m in messages %}<{{ m.role[0] }}:{{ m.content }}>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "system", "rendered"),
    [
        (ROLES, "Be brief.", "<s:Be brief.><u:One?><a:1><u:Two?><a:2><u:Hi>Yo"),
        (ROLES, "", "<s:><u:One?><a:1><u:Two?><a:2><u:Hi>Yo"),
        # No system role: the system text leads the first turn, not the last.
        (ALTERNATES, "Be brief.", "[Be brief.\n\nOne?][1][Two?][2][Hi]Yo"),
        (ALTERNATES, "", "[One?][1][Two?][2][Hi]Yo"),
        (REFUSES_EMPTY + ROLES, "", "<u:One?><a:1><u:Two?><a:2><u:Hi>Yo"),
    ],
)
def test_earlier_exchanges_come_before_the_last(template: str, system: str, rendered: str) -> None:
    assert encoder(template).render_chat(Chat(system, "Hi", "Yo", HISTORY)) == rendered


def test_a_template_that_refuses_history_says_so() -> None:
    once = "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + ROLES
    model = encoder(once)
    assert model.render_chat(Chat("", "Hi")) == "<s:><u:Hi>"
    with pytest.raises(ValueError, match="cannot hold this conversation"):
        model.render_chat(Chat("", "Hi", history=HISTORY))


@pytest.mark.model
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_history_through_the_real_template(embedded_model_dir: Path, system: str) -> None:
    model = load_chat_encoder(embedded_model_dir, dtype="float32")
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        "<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"
        "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo"
    )
    assert model.encode_chat(Chat(system, "Hi", "Yo", HISTORY)) == model.encode(text)


@pytest.mark.model
def test_text_side_is_the_networks_own(embedded_model_dir: Path) -> None:
    import transformers

    model = load_chat_encoder(embedded_model_dir, dtype="float32")
    network = transformers.AutoModelForCausalLM.from_pretrained(embedded_model_dir)
    assert model.end_of_turn_ids() == (network.generation_config.eos_token_id,)
    assert model.identity.vocabulary_size == len(network.get_output_embeddings().weight)


@pytest.mark.model
def test_end_of_turn_without_a_generation_config(embedded_model_dir: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(embedded_model_dir / name)
    config = json.loads((embedded_model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": [2, 7]}))
    assert load_chat_encoder(tmp_path, dtype="float32").end_of_turn_ids() == (2, 7)


def test_not_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"no config\.json"):
        load_chat_encoder(tmp_path, dtype="float32")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(AuditError, match="no safetensors"):
        load_chat_encoder(tmp_path, dtype="float32")
