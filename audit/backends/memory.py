"""Memory that runs out in an engine, and memory that is given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from audit.errors import AuditError

Item = TypeVar("Item")
Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch raises a plain ``RuntimeError`` on a CPU."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def in_smaller_batches(
    run: Callable[[list[Item]], Result], batch: Sequence[Item], exhausted: Callable[[Item], str]
) -> Iterator[tuple[list[Item], Result]]:
    """``run`` on ``batch``, in halves wherever memory runs out; yields each part and its result.

    ``run`` leaves nothing behind where it fails. Raises ``AuditError`` with ``exhausted`` of an
    item that is too much by itself.
    """
    pending = [list(batch)]
    while pending:
        part = pending.pop()
        try:
            result = run(part)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                raise AuditError(exhausted(part[0])) from None
        else:
            yield part, result
            continue
        # Out here the error's frames are gone, and what they held.
        give_back()
        half = len(part) // 2
        pending += [part[half:], part[:half]]


def give_back() -> None:
    """Return what is free to the system, as far as it can be.

    The C library keeps what a pass over long rows took, gigabytes of it, for passes to come.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # glibc's alone
            trim(0)
