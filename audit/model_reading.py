"""The model that a scan reads rows with: opened for it, closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from audit.backends.open_model import ModelChoice, open_model
from detectors.model_access import ModelAccess, ModelProgress, ModelSettings


@contextmanager
def open_access(
    choice: ModelChoice | None, settings: ModelSettings, progress: ModelProgress
) -> Iterator[ModelAccess | None]:
    """Access to the chosen model for `audit.scan.scan`; None without a choice.

    Raises as `open_model` does.
    """
    if choice is None:
        yield None
        return
    model = open_model(choice)
    try:
        yield ModelAccess(model, settings=settings, progress=progress)
    finally:
        model.close()
