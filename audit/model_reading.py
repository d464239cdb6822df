"""The model that a scan reads rows with: opened for it, closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from audit.backends.first_order_student import TransformersStudent
from audit.backends.open_model import ModelChoice, Writer, open_model
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
        yield access_to(model, settings, progress)
    finally:
        model.close()


def access_to(model: Writer, settings: ModelSettings, progress: ModelProgress) -> ModelAccess:
    """Access to a model that is open already."""
    # vLLM has no gradients.
    student = TransformersStudent(model) if isinstance(model, TransformersLanguageModel) else None
    return ModelAccess(model, student=student, settings=settings, progress=progress)
