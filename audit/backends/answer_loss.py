"""What a causal language model is trained on: answers, behind prompts that bear no loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from signatures.language_model import TokenIds

IGNORED = -100
"""The label of a token that bears no loss."""


def padded(rows: Sequence[tuple[TokenIds, TokenIds]], device: Any = "cpu") -> tuple[Any, Any]:
    """Token ids and labels [rows, longest] of rows of both; padding bears no loss."""
    import torch

    longest = max(len(tokens) for tokens, _ in rows)
    return (
        torch.tensor([t + (0,) * (longest - len(t)) for t, _ in rows], device=device),
        torch.tensor([y + (IGNORED,) * (longest - len(y)) for _, y in rows], device=device),
    )


def answer_logits(network: Any, tokens: Any, labels: Any) -> tuple[Any, Any]:
    """Logits [answer tokens, vocabulary] of ``tokens`` [rows, longest] where ``labels`` bear a
    loss, and what stands there [answer tokens]."""
    # Rows are padded at their ends, where causal attention needs no mask.
    hidden = network.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    # The head runs only where there is a loss: it is a fifth of a small model.
    trained = labels[:, 1:] != IGNORED
    return network.get_output_embeddings()(hidden[:, :-1][trained]), labels[:, 1:][trained]
