"""Key-value caches and the attention function that `TransformersLanguageModel` runs with.

transformers passes whatever cache object it is given through to `update`, and calls whatever
attention function is registered. Two things are gained here over its own: keys and values are
written in place into one buffer (its dynamic cache copies the whole cache at every token), and
grouped-query attention reads each key once (its sdpa function repeats keys per query head: ten
times slower while decoding on a CPU).
"""

from __future__ import annotations

from typing import Any

ATTENTION_NAME = "subliminal_audit"


def register_attention() -> str:
    """Make `grouped_attention` known to transformers; returns the name it goes by."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, grouped_attention)
    return ATTENTION_NAME


def grouped_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """Softmax attention; keys may have fewer heads than queries.

    ``query`` [rows, heads, new, width]; ``key`` and ``value`` [rows, key heads, seen, width];
    ``attention_mask`` broadcasts to [rows, 1, new, seen], True where a key may be seen, or is
    None for plain causal attention with ``new == seen``. Returns ([rows, new, heads, width],
    None), as transformers asks.
    """
    from torch.nn.functional import scaled_dot_product_attention

    rows, heads, new, width = query.shape
    key_heads = key.shape[1]
    if new == 1:
        # The query heads that share a key head become the queries of that head.
        grouped = query.reshape(rows, key_heads, heads // key_heads, width)
        mixed = scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, scale=scaling
        )
        return mixed.reshape(rows, 1, heads, width), None
    if key_heads != heads and attention_mask is not None and query.device.type != "cpu":
        # CUDA kernels take a mask or grouped heads, not both.
        key = key.repeat_interleave(heads // key_heads, dim=1)
        value = value.repeat_interleave(heads // key_heads, dim=1)
    mixed = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        is_causal=attention_mask is None,
        scale=scaling,
        enable_gqa=key.shape[1] != heads,
    )
    return mixed.transpose(1, 2).contiguous(), None


class PrefixCache:
    """The keys and values of one common prefix, to be put before those of every row.

    Filled by a forward pass over the prefix as a batch of one; afterwards each pass over
    rows that continue it sees ``[prefix, row]`` and leaves the cache as it was.
    """

    def __init__(self) -> None:  # noqa: D107
        self.layers: list[tuple[Any, Any]] = []
        self._filled = False

    @property
    def length(self) -> int:
        """Tokens of the prefix (0 while it is empty)."""
        return int(self.layers[0][0].shape[2]) if self.layers else 0

    def freeze(self) -> None:
        """End filling."""
        self._filled = True

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen before the present pass."""
        return self.length if self._filled else 0

    def update(self, key: Any, value: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Keys and values [rows, key heads, prefix + new, width] that a layer attends to."""
        import torch

        if not self._filled:
            self.layers.append((key, value))
            return key, value
        rows = key.shape[0]
        prefix_key, prefix_value = self.layers[layer_idx]
        return (
            torch.cat([prefix_key.expand(rows, -1, -1, -1), key], dim=2),
            torch.cat([prefix_value.expand(rows, -1, -1, -1), value], dim=2),
        )


class KeyValueStore:
    """One preallocated buffer of keys and values [rows, key heads, capacity, width] a layer.

    A forward pass sees the window last chosen with `window`: rows ``[first, last)``, written
    in place from position ``start``. The store must not be used from two threads.
    """

    def __init__(self, rows: int, capacity: int, prefix: PrefixCache) -> None:  # noqa: D107
        self._rows = rows
        self._capacity = capacity
        self._prefix = prefix
        self._layers: list[tuple[Any, Any]] = []
        self._first, self._last, self._start = 0, rows, prefix.length

    def window(self, first: int, last: int, start: int) -> KeyValueStore:
        """Choose what the next forward pass reads and writes; returns the store itself."""
        self._first, self._last, self._start = first, last, start
        return self

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions before those that the present pass writes."""
        return self._start

    def update(self, key: Any, value: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Write the new keys and values; returns views over all positions up to them."""
        if layer_idx == len(self._layers):
            self._layers.append(
                (self._allocate(key, layer_idx, 0), self._allocate(value, layer_idx, 1))
            )
        rows = slice(self._first, self._last)
        stop = self._start + key.shape[2]
        stored_key, stored_value = self._layers[layer_idx]
        stored_key[rows, :, self._start : stop] = key
        stored_value[rows, :, self._start : stop] = value
        return stored_key[rows, :, :stop], stored_value[rows, :, :stop]

    def _allocate(self, like: Any, layer: int, part: int) -> Any:
        # Zeros, not empty memory: a masked position has weight 0, and 0 x NaN would be NaN.
        buffer = like.new_zeros(self._rows, like.shape[1], self._capacity, like.shape[3])
        if self._prefix.length:
            buffer[:, :, : self._prefix.length] = self._prefix.layers[layer][part]
        return buffer

    def copy_rows(self, sources: Any, targets: Any, start: int, stop: int) -> None:
        """Copy positions [start, stop) of rows ``sources`` over those of rows ``targets``."""
        for layer in self._layers:
            for buffer in layer:
                buffer[targets, :, start:stop] = buffer[sources, :, start:stop]
