"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.errors import AuditError
from audit.model.fetch import find_embedded_model


@pytest.fixture(scope="session")
def embedded_model_dir() -> Path:
    """The installed embedded model, and torch on one thread; an error if it is missing."""
    try:
        path = find_embedded_model().path
    except AuditError as error:
        # A missing model must fail the run, not shrink it.
        raise RuntimeError(f"tests marked 'model' need the embedded model: {error}") from None
    import torch

    torch.set_num_threads(1)
    return path
