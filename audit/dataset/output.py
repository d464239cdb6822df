"""Plain bytes to a stored file, compressed, with the size and hash of what is stored."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import zstandard

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_GZIP_HEADER = 31  # wbits; zlib writes the header without name or time


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(compression: str) -> _Compressor:
    if compression == "gz":
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_HEADER)
    if compression == "zst":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    return _Plain()


class Output:
    """A file being written. Equal plain bytes give equal stored bytes.

    As a context, leaving it without an error ends the file and forces it to the disk.
    """

    def __init__(self, path: Path, compression: str) -> None:
        """``compression`` is ``""``, ``"gz"`` or ``"zst"``. Raises ``OSError``."""
        self._file = path.open("wb")
        self._compressor = _compressor(compression)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the stored bytes."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Add plain bytes. Raises ``OSError``."""
        self._store(self._compressor.compress(data))
        return len(data)

    def _store(self, stored: bytes) -> None:
        self._file.write(stored)
        self._hash.update(stored)
        self.size_bytes += len(stored)

    def __enter__(self) -> Output:
        """The output itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the file, unless there is an ``error``. Raises ``OSError``."""
        with self._file:
            if error is None:
                self._store(self._compressor.flush())
                self._file.flush()
                os.fsync(self._file.fileno())


class _File(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        return self._output.write(bytes(data))


def as_binary_file(output: Output) -> BinaryIO:
    """``output`` as what libraries write to. Closing it ends nothing."""
    return cast(BinaryIO, _File(output))
