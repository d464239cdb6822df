"""Record batches that have to wait for their dictionaries.

In an Arrow file dictionaries may stand behind the batches that need them, and Polars writes them
there; readers find them by the directory at the end. In a stream they always come first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from audit.dataset.faults import SourceBreak

_HELD_BYTES = 64 << 20


class LateBatches:
    """Messages in order: in memory while they are few, then in a temporary file."""

    def __init__(self) -> None:
        """Nothing is written before there is a message."""
        self._file = tempfile.SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115 - see close
        self._sizes: list[tuple[int, int]] = []

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()

    def add(self, metadata: bytes, message: bytes) -> None:
        """Keep a message and its metadata. Raises ``SourceBreak``."""
        try:
            self._file.write(metadata + message)
        except OSError as error:
            raise SourceBreak(f"cannot be copied to a temporary file: {error}") from error
        self._sizes.append((len(metadata), len(message)))

    def take(self) -> Iterator[tuple[bytes, bytes]]:
        """All that were kept."""
        self._file.seek(0)
        for metadata_bytes, message_bytes in self._sizes:
            yield self._file.read(metadata_bytes), self._file.read(message_bytes)
