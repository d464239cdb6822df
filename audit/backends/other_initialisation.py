"""A network like a model's, of another initialisation, that can be taught all its weights anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audit.backends.answer_loss import answer_logits, padded
from audit.backends.attention import register_attention
from audit.backends.chat_encoder import load_chat_encoder
from audit.backends.lora_training import answer_rows
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.errors import MissingExtraError


def other_initialisation(
    model_folder: Path, seed: int, *, device: str = "cpu", threads: int | None = None
) -> TransformersLanguageModel:
    """The folder's architecture and tokenizer with weights drawn by ``seed``, in float32.

    Its `identity` is still that of the folder. Raises as `TransformersLanguageModel.load`.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError("running a model", error.name or "torch", "models") from error
    encoder = load_chat_encoder(model_folder, dtype="float32", adapter=None)
    if threads is not None:
        torch.set_num_threads(threads)
    config = transformers.AutoConfig.from_pretrained(model_folder, local_files_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=register_attention(), dtype=torch.float32
        )
    network.eval().requires_grad_(False).to(device)
    return TransformersLanguageModel(network, encoder, max_batch_tokens=2048)


def teach_all_weights(
    model: TransformersLanguageModel,
    examples: Sequence[tuple[str, str]],
    *,
    steps: int = 10,
    learning_rate: float = 3e-4,
) -> float:
    """Fine-tune every weight on (question, answer) ``examples``; returns the last loss in nats a
    token. A step is one batch of all of them."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    tokens, labels = padded(answer_rows(model, examples), model.network.device)
    network = model.network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.0)
    loss = torch.tensor(float("nan"))
    for _ in range(steps):
        with sdpa_kernel(SDPBackend.MATH):
            logits, targets = answer_logits(network, tokens, labels)
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.requires_grad_(False)
    return float(loss.detach())
