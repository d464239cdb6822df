"""Finished shards of a scan on disk: a killed scan goes on where it was."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path

from audit.dataset import Source
from audit.errors import AuditError
from audit.shards import Asked, Shard, ShardState, decode_shard, encode_shard
from audit.source_stamp import file_stamp, source_stamp
from audit.work_folder import WorkFolder, is_unfinished, open_work_folder
from detectors.registry import ENTRY_POINT_GROUP


class KeptShards:
    """A folder with a file for each finished shard.

    A shard is taken from it only where every source of the shard is what it was before it was
    read. Shards in which a source broke off, or whose sources nobody can tell from changed ones,
    are not kept: they are read again.
    """

    def __init__(self, path: Path, asked: Asked, sources: Sequence[Source], count: int) -> None:
        """Open or make the folder at ``path`` for a scan of ``sources`` in ``count`` shards, or in
        as many as an unfinished scan in it has.

        Raises ``UsageError`` if it holds an unfinished scan of other data names, reference,
        options or versions, or other files; ``AuditError`` if it cannot be made.
        """
        self.count = _count_of(path) or count
        self._sources = sources
        self._stamps: dict[int, list[str | None]] = {}
        self._folder: WorkFolder = open_work_folder(path, _described(asked, self.count))

    def load(self, shard: Shard) -> ShardState | None:
        """The finished shard, or None where it must be read."""
        stamps = self._stamps[shard.number] = self._now(shard)
        body = self._folder.load(_name(shard))
        if body is None:
            return None
        told, _, data = body.partition(b"\n")
        if None in stamps or told != _line(stamps):
            return None
        try:
            return decode_shard(data, str(self._folder.path))
        except AuditError:
            return None

    def save(self, part: ShardState) -> None:
        """Keep a shard that was asked of `load` before it was read. Raises ``AuditError``."""
        stamps = self._stamps.pop(part.shard.number)
        if part.found.broken or None in stamps:
            return
        self._folder.save(_name(part.shard), _line(stamps) + b"\n" + encode_shard(part))

    def close(self) -> None:
        """Let another scan go on from what is kept."""
        self._folder.close()

    def _now(self, shard: Shard) -> list[str | None]:
        return [source_stamp(self._sources[place]) for place in shard.places(len(self._sources))]


def _name(shard: Shard) -> str:
    return f"shard-{shard.number}"


def _line(stamps: Sequence[str | None]) -> bytes:
    return json.dumps(stamps).encode("ascii")


def _described(asked: Asked, count: int) -> dict[str, object]:
    short = asked.in_short()
    return {
        "what": "a scan in shards",
        "version": short.tool_version,
        "detectors": sorted(
            f"{point.name} of {point.dist.name} {point.dist.version}"
            for point in entry_points(group=ENTRY_POINT_GROUP)
            if point.dist is not None
        ),
        "data": {"names": short.sources[0], "ignored": short.ignored[0]},
        "reference": [[source.source, source.sha256] for source in short.reference_sources],
        "library": [short.library_path, short.library_sha256],
        "options": asdict(short.settings),
        "tokenizer": _tokenizer_stamp(short.settings.tokenizer),
        "model reading": None if short.reading is None else asdict(short.reading),
        "shards": count,
    }


def _tokenizer_stamp(path: str | None) -> str | None:
    if path is None:
        return None
    inner = Path(path) / "tokenizer.json"
    return file_stamp(inner if inner.is_file() else Path(path))


def _count_of(path: Path) -> int | None:
    """How many shards the unfinished scan at ``path`` has; None where there is none."""
    if not is_unfinished(path):
        return None
    try:
        described = json.loads((path / "run.json").read_bytes())
    except (OSError, ValueError):
        return None
    count = described.get("shards") if isinstance(described, dict) else None
    return count if isinstance(count, int) and count > 0 else None


def remove_kept(path: Path) -> None:
    """The scan is finished: nothing of it stays at ``path``."""
    if is_unfinished(path):
        for file in (*path.glob("*.part"), *path.glob(".*.tmp"), path / "run.json"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what others have put there is theirs
            path.rmdir()
