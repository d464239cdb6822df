"""How much of one input a reader may hold in memory or unpack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep a hostile file from filling the memory.

    ``max_line_bytes``: a longer line (or JSON value) is rejected without being held whole.
    ``max_ratio``: unpacked bytes per stored byte, enforced once 64 MiB were unpacked; ordinary
    text stays below 100, bombs reach 32,000.
    """

    max_line_bytes: int = 64 << 20
    max_ratio: float = 1000.0
