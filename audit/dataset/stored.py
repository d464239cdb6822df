"""Stored bytes to plain bytes: hashing, gzip and Zstandard, with a bound on the ratio."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from audit.dataset.faults import SourceBreak
from audit.dataset.limits import Limits

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_READ_BYTES = 1 << 20
_RATIO_FREE_BYTES = 64 << 20
# Four stored bytes can hold a 128 KiB Zstandard block, so one piece unpacks to at most 64 MiB.
_ZSTD_PIECE_BYTES = 2048


class ByteSource(Protocol):
    """Any open binary file."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""
        ...


class StoredBytes:
    """Reads a source once, and knows the size and SHA-256 of what it read."""

    def __init__(self, raw: ByteSource) -> None:
        """``raw`` stands at its beginning and is left open."""
        self._raw = raw
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the bytes read so far."""
        return self._hash.hexdigest()

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; none at the end. Raises ``SourceBreak``."""
        try:
            data = self._raw.read(size)
        except Exception as error:  # remote drivers raise types of their own
            raise SourceBreak(f"cannot be read any further: {error}") from error
        self._hash.update(data)
        self.size_bytes += len(data)
        return data

    def drain(self) -> None:
        """Read to the end, so that the hash is of the whole source. Raises ``SourceBreak``."""
        while self.read(_READ_BYTES):
            pass


def unpack(stored: StoredBytes, limits: Limits) -> tuple[str, Iterator[bytes]]:
    """The compression (``""``, ``"gz"`` or ``"zst"``, told by the first bytes) and plain chunks.

    Chunks are not empty and at most 64 MiB, usually 1 MiB. The iterator raises ``SourceBreak``
    where the source cannot be read or unpacked to its end.
    """
    head = stored.read(_READ_BYTES)
    while 0 < len(head) < len(ZSTD_MAGIC) and (more := stored.read(_READ_BYTES)):
        head += more
    if head.startswith(GZIP_MAGIC):
        return "gz", _bounded(_gunzip(head, stored), stored, limits)
    if head.startswith(ZSTD_MAGIC) or _is_skippable_frame(head):
        return "zst", _bounded(_unzstd(head, stored), stored, limits)
    return "", _plain(head, stored)


def _is_skippable_frame(head: bytes) -> bool:
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F


def _plain(head: bytes, stored: StoredBytes) -> Iterator[bytes]:
    data = head
    while data:
        yield data
        data = stored.read(_READ_BYTES)


def _bounded(chunks: Iterator[bytes], stored: StoredBytes, limits: Limits) -> Iterator[bytes]:
    unpacked_bytes = 0
    for chunk in chunks:
        unpacked_bytes += len(chunk)
        if (
            unpacked_bytes > _RATIO_FREE_BYTES
            and unpacked_bytes > limits.max_ratio * stored.size_bytes
        ):
            raise SourceBreak(
                f"unpacks to more than {limits.max_ratio:g} times its size: a decompression bomb?"
            )
        yield chunk


def _gunzip(head: bytes, stored: StoredBytes) -> Iterator[bytes]:
    data = head
    member = zlib.decompressobj(wbits=31)
    try:
        while data:
            out = member.decompress(data, _READ_BYTES)
            if out:
                yield out
            data = member.unconsumed_tail
            if member.eof:
                # Members may follow one another, and may be padded with zeros.
                data = member.unused_data.lstrip(b"\0")
                while not data:
                    data = stored.read(_READ_BYTES)
                    if not data:
                        return
                    data = data.lstrip(b"\0")
                member = zlib.decompressobj(wbits=31)
            elif not data:
                data = stored.read(_READ_BYTES)
    except zlib.error as error:
        raise SourceBreak(f"is not valid gzip from here on: {error}") from error
    # Output may still be held back where the stored bytes ended inside a member.
    if rest := member.flush():
        yield rest
    raise SourceBreak("breaks off: the gzip stream has no end")


def _unzstd(head: bytes, stored: StoredBytes) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    data = head
    try:
        while data:
            rest = b""
            for start in range(0, len(data), _ZSTD_PIECE_BYTES):
                if out := frame.decompress(data[start : start + _ZSTD_PIECE_BYTES]):
                    yield out
                if frame.eof:
                    rest = frame.unused_data + data[start + _ZSTD_PIECE_BYTES :]
                    frame = decompressor.decompressobj()
                    break
            else:
                data = stored.read(_READ_BYTES)
                continue
            data = rest or stored.read(_READ_BYTES)
            if not data:
                return
    except zstandard.ZstdError as error:
        raise SourceBreak(f"is not valid Zstandard from here on: {error}") from error
    raise SourceBreak("breaks off: the Zstandard stream has no end")
