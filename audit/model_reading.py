"""The model that a scan reads rows with: opened for it, closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from audit.backends.first_order_student import TransformersStudent
from audit.backends.open_model import ModelChoice, open_model
from audit.backends.transformers_backend import TransformersLanguageModel
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
        # vLLM has no gradients.
        student = (
            TransformersStudent(model) if isinstance(model, TransformersLanguageModel) else None
        )
        yield ModelAccess(model, student=student, settings=settings, progress=progress)
    finally:
        model.close()
