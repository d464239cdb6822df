"""Turns a GGUF file into a plain Hugging Face folder, keeping every weight's exact value.

Learned from llama.cpp's own writer: GGUF stores the rows of llama's query and key projections
interleaved for its rotary embedding, and the tokenizer as bare tables whose splitting rule is
only named. transformers reads GGUF itself but cannot save what it read, and loses that rule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audit.errors import AuditError, MissingExtraError

if TYPE_CHECKING:
    from gguf import GGUFReader

ARCHITECTURE = "llama"
PRE_TOKENIZER = "smollm"

_WHOLE_MODEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3  # llama.cpp's LLAMA_TOKEN_TYPE_CONTROL


def convert_gguf(source: Path, destination: Path) -> None:
    """Write ``config.json``, ``model.safetensors``, tokenizer and template files.

    ``destination`` is an existing empty folder. The weights are stored in float32: a Q4_1
    weight is ``scale x 4 bits + offset`` with float16 scale and offset, which bfloat16's 8
    bits would round, so that two machines could no longer mean the same model.

    Raises ``AuditError`` for a file that is no GGUF or another architecture or tokenizer than
    ``llama`` with ``smollm``, ``MissingExtraError`` if a package for it is not installed.
    """
    try:
        from gguf import GGUFReader
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtraError("converting a GGUF model", error.name or "gguf", "models") from None
    try:
        reader = GGUFReader(source)
    except (ValueError, IndexError, KeyError) as error:
        raise AuditError(f"{source}: not a readable GGUF file ({error})") from None
    fields = _Fields(reader, source)
    found = (fields["general.architecture"], fields["tokenizer.ggml.pre"])
    if found != (ARCHITECTURE, PRE_TOKENIZER):
        raise AuditError(
            f"{source}: architecture '{found[0]}' with tokenizer '{found[1]}' cannot be "
            f"converted, only '{ARCHITECTURE}' with '{PRE_TOKENIZER}'"
        )
    weights = _weights(reader, fields)
    save_file(weights, destination / "model.safetensors", metadata={"format": "pt"})
    config = _config(fields, tied="lm_head.weight" not in weights)
    _write_json(destination / "config.json", config)
    special = {f"{name}_token_id": config[f"{name}_token_id"] for name in ("bos", "eos", "pad")}
    _write_json(destination / "generation_config.json", special)
    _write_tokenizer(fields, config, destination)


class _Fields:
    """The metadata of a GGUF file by key; a missing key is an ``AuditError``."""

    def __init__(self, reader: GGUFReader, source: Path) -> None:
        self._fields = reader.fields
        self._source = source

    def __getitem__(self, key: str) -> Any:
        if key not in self._fields:
            raise AuditError(f"{self._source}: the GGUF file has no '{key}'")
        return self._fields[key].contents()


def _weights(reader: GGUFReader, fields: _Fields) -> dict[str, NDArray[np.float32]]:
    """Every tensor in float32 under its transformers name."""
    from gguf import dequantize

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    weights: dict[str, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        # GGUF counts axes from the innermost: the reverse of numpy's shape.
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        parts = tensor.name.split(".")
        if tensor.name in _WHOLE_MODEL:
            name = _WHOLE_MODEL[tensor.name]
        elif len(parts) == 4 and parts[0] == "blk" and parts[2] in _IN_BLOCK:
            _, block, kind, suffix = parts
            if kind in heads:
                values = _undo_rotary_interleaving(values, heads[kind])
            name = f"model.layers.{block}.{_IN_BLOCK[kind]}.{suffix}"
        else:
            raise AuditError(f"the GGUF file holds a tensor '{tensor.name}' that llama has not")
        weights[name] = np.ascontiguousarray(values)
    return weights


def _undo_rotary_interleaving(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from (pair, half) back to (half, pair) order; [rows, columns]."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(fields: _Fields, *, tied: bool) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    theta = float(fields["llama.rope.freq_base"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": fields["llama.context_length"],
        # Stored in float32: 1e-5 comes back as 9.999999747378752e-06.
        "rms_norm_eps": round(float(fields["llama.attention.layer_norm_rms_epsilon"]), 12),
        "rope_theta": theta,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "use_cache": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }


def _write_tokenizer(fields: _Fields, config: dict[str, Any], destination: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False))
    # What llama.cpp calls "smollm": every digit on its own, then GPT-2's byte-level splitting.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    tokenizer.save(str(destination / "tokenizer.json"))
    _write_json(
        destination / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": tokens[config[f"{name}_token_id"]] for name in _NAMED_TOKENS},
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
        },
    )
    (destination / "chat_template.jinja").write_text(
        fields["tokenizer.chat_template"], encoding="utf-8", newline=""
    )


_NAMED_TOKENS = ("bos", "eos", "pad")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8", newline="")
