"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from audit.errors import AuditError
from audit.model.fetch import find_embedded_model
from tests.tiny_model import write_tiny_model

# The gate gives the same result every time; `make fuzz` looks for new examples.
settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("fuzz", deadline=None, print_blob=True)
settings.load_profile("gate")


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


@pytest.fixture(scope="session")
def tiny_model_dir(embedded_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that a student of takes milliseconds."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", embedded_model_dir)
