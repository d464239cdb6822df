"""Finished parts of a signature build on disk: a killed build goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from audit.atomic import atomic_write
from signatures.language_model import ModelIdentity
from signatures.parts import Arrays


class PartFolder:
    """A folder with one Parquet file a part, named by a hash of its key and of the model.

    A part that was measured under other settings has another name, so it is never taken for one
    of this build. Several processes may share a folder: a file is there whole, or not at all.
    """

    def __init__(self, folder: Path, model: ModelIdentity) -> None:
        """Make ``folder`` if need be. Raises ``OSError``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        # What the model is called says nothing of what it computes.
        self._model = {key: value for key, value in asdict(model).items() if key != "name"}
        self.found = 0
        self.measured = 0

    def get(self, key: Mapping[str, Any]) -> Arrays | None:
        """What was put under ``key``, or None."""
        try:
            frame = pl.read_parquet(self._path(key))
        except FileNotFoundError:
            return None
        self.found += 1
        return {name: frame[name].to_numpy().astype(np.float64) for name in frame.columns}

    def put(self, key: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep ``arrays`` under ``key``."""
        buffer = io.BytesIO()
        pl.DataFrame(dict(arrays)).write_parquet(buffer)
        atomic_write(self._path(key), buffer.getvalue())
        self.measured += 1

    def remove(self) -> None:
        """Remove the parts, and the folder if nothing else is in it."""
        for path in self._folder.glob("*.part.parquet"):
            path.unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _path(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps([self._model, key], sort_keys=True, ensure_ascii=False)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.part.parquet"
