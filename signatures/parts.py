"""Where finished parts of a long measurement are kept, so that it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float64]]
"""Arrays [n] by name, all of the same length."""


class PartStore(Protocol):
    """Remembers arrays under a key that says all that they depend on besides the model."""

    def get(self, key: Mapping[str, Any]) -> Arrays | None:
        """What was put under ``key``, or None."""
        ...

    def put(self, key: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep ``arrays`` under ``key``."""
        ...


class NoParts:
    """Remembers nothing."""

    def get(self, key: Mapping[str, Any]) -> Arrays | None:
        """None."""
        return None

    def put(self, key: Mapping[str, Any], arrays: Arrays) -> None:
        """Forget them."""


def recall(
    store: PartStore,
    keys: Sequence[Mapping[str, Any]],
    measure: Callable[[], Sequence[Arrays]],
) -> list[Arrays]:
    """The arrays under each key; if one is missing, all are measured and kept."""
    found = [store.get(key) for key in keys]
    kept = [arrays for arrays in found if arrays is not None]
    if len(kept) == len(keys):
        return kept
    measured = list(measure())
    for key, arrays in zip(keys, measured, strict=True):
        store.put(key, arrays)
    return measured
