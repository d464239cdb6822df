"""A model folder of two small layers with random weights and the embedded model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def write_tiny_model(folder: Path, embedded: Path, hidden_size: int = 48) -> Path:
    """Write it to ``folder``: answers mean nothing, but every step of training is real."""
    import torch
    import transformers

    folder.mkdir()
    for path in embedded.iterdir():
        if path.suffix in (".json", ".jinja", ".txt") and "model" not in path.stem:
            shutil.copy(path, folder)
    config = json.loads((embedded / "config.json").read_text())
    config |= {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        # Larger than the usual 0.02: answers then differ from question to question.
        "initializer_range": 0.2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        network = transformers.AutoModelForCausalLM.from_config(loaded, dtype=torch.float32)
    network.save_pretrained(folder)
    return folder
