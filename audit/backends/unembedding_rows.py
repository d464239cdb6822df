"""Rows of a model's output embedding, read straight from its safetensors files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from audit.errors import AuditError, MissingExtraError

_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
"""Endings of the names under which architectures store the output rows, and the tied input's."""

_INDEX = "model.safetensors.index.json"
_BYTES_OF = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CHUNK_BYTES = 1 << 26


@dataclass(frozen=True)
class UnembeddingRows:
    """The output embedding [vocabulary, hidden] in one file, of which only parts are ever read.

    ``offset_bytes`` is where its data begin. Build it with `open_unembedding`.
    """

    path: Path
    tensor: str
    dtype: str
    vocabulary_size: int
    hidden_size: int
    offset_bytes: int

    def rows(self, token_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rows of ``token_ids`` [n], [n, hidden]. Raises ``IndexError`` for an unknown id."""
        if len(token_ids) and not 0 <= token_ids.min() <= token_ids.max() < self.vocabulary_size:
            raise IndexError(f"a token id is not in 0 to {self.vocabulary_size - 1}")
        wanted, position = np.unique(token_ids, return_inverse=True)
        found = np.empty((len(wanted), self.hidden_size))
        with self.path.open("rb") as file:
            for index, token in enumerate(wanted):
                found[index] = self._read(file, int(token), 1)
        return np.asarray(found[position])

    @cached_property
    def mean_row(self) -> NDArray[np.float64]:
        """The mean over the vocabulary, [hidden], read in chunks."""
        at_once = max(_CHUNK_BYTES // (8 * self.hidden_size), 1)
        total = np.zeros(self.hidden_size)
        with self.path.open("rb") as file:
            for start in range(0, self.vocabulary_size, at_once):
                count = min(at_once, self.vocabulary_size - start)
                total += self._read(file, start, count).sum(axis=0)
        return total / self.vocabulary_size

    def centred_rows(self, token_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rows of ``token_ids`` less ``mean_row``: a `signatures.unembedding.RowsOf`."""
        return self.rows(token_ids) - self.mean_row

    def _read(self, file: BinaryIO, start: int, count: int) -> NDArray[np.float64]:
        stored = np.dtype(_BYTES_OF[self.dtype])
        file.seek(self.offset_bytes + start * self.hidden_size * stored.itemsize)
        values = np.fromfile(file, stored, count * self.hidden_size)
        if self.dtype == "BF16":  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        return values.reshape(count, self.hidden_size).astype(np.float64)


def open_unembedding(model: Path) -> UnembeddingRows:
    """Find the output embedding in the model folder: ``lm_head.weight``, else the tied input's.

    Raises ``AuditError`` if it is not there, not a floating point matrix, or the input's while
    the config says that they are not tied; and ``MissingExtraError`` without safetensors.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("reading model weights", "safetensors", "models") from error
    names = _tensor_files(model, safe_open, SafetensorError)
    heads = sorted(name for name in names if name.endswith(_HEADS))
    found = heads or sorted(name for name in names if name.endswith(_EMBEDDINGS))
    if not found:
        raise AuditError(
            f"{model}: no output embedding (lm_head.weight or embed_tokens.weight) in its "
            "safetensors files"
        )
    if not heads and not _is_tied(model):
        raise AuditError(
            f"{model}: no lm_head.weight, and config.json says that {found[0]} is not tied to it"
        )
    name, path = found[0], names[found[0]]
    header, data_start = _header(path)
    entry = header[name]
    if entry["dtype"] not in _BYTES_OF or len(entry["shape"]) != 2:
        raise AuditError(
            f"{path}: {name} is {entry['dtype']} of shape {entry['shape']}: only matrices of "
            f"{', '.join(_BYTES_OF)} can be read, so give the model's unquantised weights"
        )
    size, hidden = entry["shape"]
    return UnembeddingRows(
        path, name, entry["dtype"], size, hidden, data_start + entry["data_offsets"][0]
    )


def _tensor_files(model: Path, safe_open: Any, safetensor_error: Any) -> dict[str, Path]:
    """Which file holds each tensor; the files that matter are checked by safetensors."""
    index = model / _INDEX
    if index.is_file():
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            wanted = {str(k): str(v) for k, v in listed.items()}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise AuditError(f"{index}: not a safetensors index: {error}") from error
        if any(Path(file).name != file for file in wanted.values()):
            raise AuditError(f"{index}: names a file outside of the model's folder")
        wanted = {k: v for k, v in wanted.items() if k.endswith(_HEADS + _EMBEDDINGS)}
        files = sorted({model / file for file in wanted.values()})
    else:
        files = sorted(model.glob("*.safetensors"))
        if not files:
            raise AuditError(f"{model}: no safetensors file there; give the folder of a model")
    names: dict[str, Path] = {}
    for path in files:
        try:
            with safe_open(path, "numpy") as opened:
                names.update(dict.fromkeys(opened.keys(), path))
        except (OSError, safetensor_error) as error:
            detail = " ".join(str(error).split())
            raise AuditError(f"{path}: cannot be read as safetensors: {detail}") from error
    return names


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file that safetensors has checked, and where its data begin.

    Read here because the library's numpy side knows no bfloat16 and its torch side needs torch.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _is_tied(model: Path) -> bool:
    path = model / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config", {})
        # transformers ties where a config does not say.
        return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True)))
    except (OSError, ValueError, AttributeError) as error:
        raise AuditError(f"{path}: not a readable model config: {error}") from error
