"""The passes over a transformers network that scoring and writing have in common."""

from __future__ import annotations

from typing import Any

from audit.backends.attention import PrefixCache
from audit.backends.memory import out_of_memory
from audit.errors import AuditError
from signatures.language_model import TokenIds

Head = tuple[Any, Any]
"""Float32 rows of the output embedding [tokens, hidden], and their bias [tokens] or None."""


def head_rows(network: Any, token_ids: Any) -> Head:
    """The output head of some token ids, or of all for ``slice(None)``."""
    head = network.get_output_embeddings()
    bias = getattr(head, "bias", None)
    return head.weight[token_ids].float(), None if bias is None else bias[token_ids].float()


def head_logits(hidden: Any, head: Head) -> Any:
    """Float32 logits [rows, tokens] of hidden states [rows, hidden]."""
    from torch.nn.functional import linear

    return linear(hidden.float(), *head)


def prefix_cache(network: Any, prefix: TokenIds) -> PrefixCache:
    """Keys and values of a prefix that several rows begin with (it may be empty).

    Raises ``AuditError`` if memory runs out.
    """
    import torch

    cache = PrefixCache()
    if prefix:
        try:
            with torch.inference_mode():
                network.base_model(
                    input_ids=torch.tensor([prefix], device=network.device),
                    position_ids=torch.arange(len(prefix), device=network.device)[None],
                    past_key_values=cache,
                    use_cache=True,
                )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise AuditError(
                f"memory ran out on the {len(prefix)} tokens that rows begin with: shorten them, "
                "use bfloat16, or free memory"
            ) from None
    cache.freeze()
    return cache


def causal_mask(new: int, seen: int, device: Any) -> Any:
    """[1, 1, new, seen + new] booleans, or None where plain causal attention will do."""
    import torch

    if not seen:
        return None
    return torch.ones(new, seen + new, dtype=torch.bool, device=device).tril(seen)[None, None]
