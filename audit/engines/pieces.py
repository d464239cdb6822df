"""A scan in several processes of this machine that share out single files too.

This process reads, unpacks and hashes; pieces of JSON Lines are decoded and counted by the others,
and sources of other formats are read by one of them each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit.dataset import list_sources
from audit.dataset.read import (
    LinePiece,
    LineSource,
    WholeSource,
    cut_sources,
    read_piece,
    row_reader,
    summary_of,
)
from audit.dataset.record import Batch
from audit.engines.engine import ReadingJob, not_scanned
from audit.engines.reading import reader_of
from audit.read_summary import ReadSummary
from audit.scan import Progress, Reading, ScanSettings
from audit.scan_result import ScanResult
from audit.shards import ShardMerge
from audit.workers import in_workers
from detectors.model_access import ModelAccess
from detectors.row_sample import RowSample
from signatures.library import SignatureLibrary, load_library

_PIECE_BYTES = 8 << 20
"""What a worker takes at once: enough that its state, some hundred kilobytes, weighs little."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What became of a piece or of a whole source."""

    place: int
    number: int
    bytes_read: int
    found: ReadSummary
    schemas: Counter[str]
    states: dict[str, Any]
    sample: RowSample | None


@dataclass(slots=True)
class _Cut:
    """What is known of one JSON Lines source: its ``parts`` by their number, and its ``end``."""

    parts: dict[int, _Part] = field(default_factory=dict)
    end: LineSource | None = None


def scan_in_pieces(
    inputs: Sequence[str],
    library: SignatureLibrary,
    library_folder: Path,
    *,
    library_path: str,
    workers: int,
    reference: Sequence[str] = (),
    settings: ScanSettings | None = None,
    access: ModelAccess | None = None,
    progress: Progress = lambda _bytes, _rows: None,
) -> ScanResult:
    """The result of `audit.scan.scan`, byte for byte, by ``workers`` processes beside this one.

    ``library_folder`` is where ``library`` lies. Raises as `audit.scan.scan` and `in_workers`.
    """
    settings = settings or ScanSettings()
    merge = ShardMerge.begin(
        inputs,
        library,
        library_path=library_path,
        reference=reference,
        settings=settings,
        access=access,
    )
    job = ReadingJob.of(inputs, merge.asked)
    sources: dict[int, _Cut] = defaultdict(_Cut)

    def work() -> Iterator[tuple[ReadingJob, Path, LinePiece | WholeSource]]:
        for piece in cut_sources(inputs, _PIECE_BYTES):
            if isinstance(piece, LineSource):
                sources[piece.place].end = piece
            else:
                yield job, library_folder, piece

    def unfinished(jobs: Sequence[tuple[ReadingJob, Path, LinePiece | WholeSource]]) -> str:
        begun = {piece.place for _, _, piece in jobs}
        rest = range(max(begun) + 1, len(list_sources(inputs).sources))
        return not_scanned(sorted({*begun, *rest}), inputs)

    parts = in_workers(_read, work(), workers, unfinished=unfinished, option="--workers")
    for _, part in parts:
        sources[part.place].parts[part.number] = part
        merge.add_states(part.states, part.sample)
        progress(part.bytes_read, part.found.rows)
    for place in sorted(sources):
        for found in _found(place, sources[place]):
            merge.add_found(found)
    return merge.result()


def _found(place: int, cut: _Cut) -> Iterator[ReadSummary]:
    """What was found of one source, in the order of its rows."""
    parts = [part for _, part in sorted(cut.parts.items())]
    if (end := cut.end) is None:
        yield from (part.found for part in parts)
        return
    schemas = sum((part.schemas for part in parts), Counter[str]())
    rejected = sum(part.found.reject_counts.total() for part in parts)
    summary = summary_of(end.source, end.opened, end.stored, schemas, rejected)
    last = ReadSummary(sources=[(place, summary)])
    # Why a source breaks off in a line says more than how that line looks.
    is_cut = any(part.found.broken for part in parts)
    if end.broken is not None and (end.broken.line or not is_cut):
        for part in parts:
            part.found.broken.clear()
        last.broken.append((place, end.broken))
    yield from (*(part.found for part in parts), last)


class _PieceReading(Reading):
    """Reads one piece of a source."""

    def __init__(self, piece: LinePiece, settings: ScanSettings) -> None:
        super().__init__((), settings, part=range(piece.place, piece.place + 1))
        self._piece = piece

    def _batches(self) -> Iterator[Batch]:
        return read_piece(self._piece, row_reader(self._settings.schema, self._settings.tokenizer))


def _read(job: tuple[ReadingJob, Path, LinePiece | WholeSource]) -> _Part:
    asked, folder, piece = job
    reader = reader_of(asked, lambda: load_library(folder))
    if isinstance(piece, LinePiece):
        reading: Reading = _PieceReading(piece, asked.settings)
        number, size_bytes = piece.number, piece.bytes_read
    else:
        reading = Reading(asked.inputs, asked.settings, part=range(piece.place, piece.place + 1))
        number, size_bytes = 0, 0
    states, sample = reader.states_of(reading.frames())
    size_bytes += sum(source.size_bytes for _, source in reading.found.sources)
    return _Part(piece.place, number, size_bytes, reading.found, reading.schemas, states, sample)
