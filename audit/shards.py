"""A scan in shards: each reads a part of the sources, and all together give one result.

The shards of a scan may run anywhere, in any order, and their states merge exactly: the report is
that of one machine, byte for byte. A shard needs no model; what is read with one is a random
sample of all rows, which is read where the shards are merged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from audit.dataset import Listing, list_sources
from audit.dataset.record import BrokenSource, Reject, SourceSummary
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.read_summary import ReadSummary, merged
from audit.scan import (
    Prepared,
    Progress,
    Reading,
    ScanSettings,
    check_detectors,
    fold,
    judge,
    prepare,
)
from audit.scan_result import ScanResult
from audit.version import tool_version
from detectors.detector import Detector
from detectors.model_access import ModelAccess, ModelSettings
from detectors.registry import detector_names, model_detector_names
from detectors.row_sample import RowSample, SampledRow, merge_samples, sample_rows
from detectors.state_codec import decode_state, encode_state
from signatures.library import SignatureLibrary

_SCHEMA = "subliminal-audit/shard"
_SCHEMA_VERSION = 1
_SAMPLE_TYPES = (RowSample, SampledRow)
_MOST_SHARDS = 100_000


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard ``number`` (from 1) of ``count``: of the sources in order, every ``count``-th."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``3/16``. Raises ``UsageError``."""
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or shard.number > shard.count or shard.count > _MOST_SHARDS:
            raise UsageError(f"--shard is a number of all, such as 3/16, not {text!r}")
        return shard

    def places(self, sources: int) -> range:
        """Which of ``sources`` sources it reads."""
        return range(self.number - 1, sources, self.count)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for; the same in every shard of a scan.

    ``sources`` are the names of all, in order, and ``ignored`` files that are no data.
    ``reading`` is None without a model. ``reference_sources`` are as every shard read them.
    """

    tool_version: str
    sources: tuple[str, ...]
    ignored: tuple[str, ...]
    reference: tuple[str, ...]
    reference_sources: tuple[SourceSummary, ...]
    settings: ScanSettings
    reading: ModelSettings | None
    library_path: str
    library_sha256: str

    def in_short(self) -> Asked:
        """The same with a hash in the place of the names, which may be many: for parts that never
        leave their scan."""
        return replace(self, sources=_hashed(self.sources), ignored=_hashed(self.ignored))


def _hashed(names: Sequence[str]) -> tuple[str]:
    return (_digest(json.dumps(list(names))),)


@dataclass(frozen=True, slots=True)
class ShardState:
    """One finished shard: what it found beside rows, the state of every model-free detector by
    name (as `detectors.state_codec` encodes it), and a sample of its rows where a model will read
    some."""

    asked: Asked
    shard: Shard
    found: ReadSummary
    states: dict[str, Any]
    sample: RowSample | None

    @property
    def in_words(self) -> str:
        """What was read, in a line."""
        sources, broken = len(self.found.sources), len(self.found.broken)
        return (
            f"shard {self.shard.number} of {self.shard.count}, {sources:,} of "
            f"{len(self.asked.sources):,} sources, {self.found.rows:,} rows, "
            f"{self.found.reject_counts.total():,} rejected"
            + (f"; {broken:,} sources broke off" if broken else "")
        )


def scan_shard(
    inputs: Sequence[str],
    shard: Shard,
    library: SignatureLibrary,
    *,
    library_path: str,
    reference: Sequence[str] = (),
    settings: ScanSettings | None = None,
    reading: ModelSettings | None = None,
    progress: Progress = lambda _bytes, _rows: None,
) -> ShardState:
    """Read the shard's sources. With ``reading``, a model will read rows when all are merged.

    Raises as `audit.scan.scan`.
    """
    reader = ShardReader(
        inputs,
        library,
        library_path=library_path,
        reference=reference,
        settings=settings or ScanSettings(),
        reading=reading,
    )
    return reader.read(shard, progress)


class ShardReader:
    """Reads shards of one scan; the reference is read once for all of them.

    ``asked`` is what every shard of the scan was asked for.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        library: SignatureLibrary,
        *,
        library_path: str,
        reference: Sequence[str],
        settings: ScanSettings,
        reading: ModelSettings | None,
    ) -> None:
        """Reads the reference. Raises as `scan_shard`."""
        check_detectors(settings.detectors, has_model=reading is not None)
        listing = _files(inputs)
        kept = [n for n in settings.detectors or detector_names() if n in detector_names()]
        # Without a detector to keep, the reference is read by the cheapest.
        chosen = replace(settings, detectors=tuple(kept) or ("mention",))
        prepared = prepare(library, chosen, None, reference)
        self._detectors = prepared.detectors if kept else ()
        for detector in self._detectors:
            _encoded(detector, detector.identity())  # what cannot be kept is told at once
        self._inputs = inputs
        self._settings = settings
        self._reading = reading
        self.asked = _asked(
            listing, prepared.known, library, library_path, reference, settings, reading
        )

    def read(self, shard: Shard, progress: Progress = lambda _bytes, _rows: None) -> ShardState:
        """The shard's sources to their ends."""
        part = Reading(
            self._inputs, self._settings, progress, shard.places(len(self.asked.sources))
        )
        states, sample = self.states_of(part.frames())
        return ShardState(
            asked=self.asked,
            shard=shard,
            found=part.found,
            states={d.info.name: _encoded(d, states[d.info.name]) for d in self._detectors},
            sample=sample,
        )

    def states_of(self, frames: Iterable[pl.DataFrame]) -> tuple[dict[str, Any], RowSample | None]:
        """The states of the detectors that need no model, by name, and a sample for one."""
        sampler = _Sampler(self._reading)
        states = fold(self._detectors, map(sampler.seen, frames))
        names = [detector.info.name for detector in self._detectors]
        return dict(zip(names, states, strict=True)), sampler.sample


def _files(inputs: Sequence[str]) -> Listing:
    if "-" in inputs:
        raise UsageError("a shard is of files: standard input cannot be read by several")
    return list_sources(inputs)


def _asked(
    listing: Listing,
    known: ReadSummary,
    library: SignatureLibrary,
    library_path: str,
    reference: Sequence[str],
    settings: ScanSettings,
    reading: ModelSettings | None,
) -> Asked:
    return Asked(
        tool_version=tool_version(),
        sources=tuple(source.name for source in listing.sources),
        ignored=listing.ignored,
        reference=tuple(reference),
        reference_sources=tuple(source for _, source in known.sources),
        settings=settings,
        reading=reading,
        library_path=library_path,
        library_sha256=library.content_sha256,
    )


def _encoded(detector: Detector[Any], state: Any) -> Any:
    try:
        return encode_state(state, detector.state_types)
    except (AttributeError, TypeError) as error:
        raise UsageError(
            f"--shard: the states of the detector {detector.info.name!r} cannot be kept: name the "
            "other detectors with --detector"
        ) from error


class _Sampler:
    """Keeps the sample that a model will read, while rows stream by."""

    def __init__(self, reading: ModelSettings | None) -> None:
        self._reading = reading
        self.sample = None if reading is None else RowSample()

    def seen(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows as they are."""
        if self._reading is not None and self.sample is not None:
            most, seed = self._reading.most_rows, self._reading.seed
            self.sample = merge_samples(self.sample, sample_rows(rows, most, seed), most)
        return rows


def merge_shards(
    parts: Sequence[ShardState],
    library: SignatureLibrary,
    *,
    reference: Sequence[str] | None = None,
    access: ModelAccess | None = None,
) -> ScanResult:
    """The result of the whole scan, whatever the order of ``parts``.

    ``reference`` is where the reference lies now (None: where it lay). ``access`` must be given
    where the shards were made for a model. Raises ``UsageError`` for parts of different scans, for
    one that is there twice, another library or reference, and a model that is missing or not asked
    for; ``AuditError`` where a shard is missing or holds a state that makes no sense.
    """
    asked = _one_scan(parts)
    if library.content_sha256 != asked.library_sha256:
        raise UsageError(
            "the shards were read with another signature library: name theirs with --library"
        )
    if (asked.reading is None) is not (access is None):
        raise UsageError(
            "the shards were not made for a model: leave out --model, or make them with it"
            if asked.reading is None
            else "the shards were made for a model, which reads rows now: give --model"
        )
    where = asked.reference if reference is None else tuple(reference)
    prepared = prepare(library, asked.settings, access, where)
    if not _same_rows([s for _, s in prepared.known.sources], asked.reference_sources):
        raise UsageError("the reference is not what the shards were compared with")
    merge = ShardMerge(asked, prepared, library, access)
    for part in sorted(parts, key=lambda part: part.shard.number):
        merge.add(part)
    return merge.result()


class ShardMerge:
    """Merges the shards of one scan as they come; they may come in any order."""

    def __init__(
        self,
        asked: Asked,
        prepared: Prepared,
        library: SignatureLibrary,
        access: ModelAccess | None,
    ) -> None:
        """Nothing is merged yet."""
        self.asked = asked
        self._asked_in_short = asked.in_short()
        self._prepared = prepared
        self._library = library
        self._access = access
        self._states = [detector.identity() for detector in prepared.detectors]
        self._found: list[ReadSummary] = []

    @classmethod
    def begin(
        cls,
        inputs: Sequence[str],
        library: SignatureLibrary,
        *,
        library_path: str,
        reference: Sequence[str],
        settings: ScanSettings,
        access: ModelAccess | None,
    ) -> ShardMerge:
        """Of a scan whose shards are still to be read. Raises as `audit.scan.scan`."""
        listing = _files(inputs)
        prepared = prepare(library, settings, access, reference)
        reading = None if access is None else access.settings
        asked = _asked(listing, prepared.known, library, library_path, reference, settings, reading)
        return cls(asked, prepared, library, access)

    def is_of_this_scan(self, part: ShardState) -> bool:
        """Whether ``part`` was asked for what this scan is asked for."""
        return part.asked in (self._asked_in_short, self.asked)

    def add(self, part: ShardState) -> None:
        """Merge ``part``, which is of this scan and was not merged before.

        Raises ``AuditError`` for a state that makes no sense.
        """
        self.add_found(part.found)
        for detector in self._prepared.detectors:
            name = detector.info.name
            try:
                if self._needs_sample(detector):
                    self._merge(detector, part.sample)
                else:
                    state = decode_state(part.states[name], detector.state_types)
                    self._merge(detector, state)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise AuditError(
                    f"a shard's state of the detector {name!r} makes no sense: make the shards "
                    "again"
                ) from error

    def add_found(self, found: ReadSummary) -> None:
        """Add what was read of some sources, in their order."""
        self._found.append(found)

    def add_states(self, states: Mapping[str, Any], sample: RowSample | None) -> None:
        """Merge what `ShardReader.states_of` gave."""
        for detector in self._prepared.detectors:
            state = sample if self._needs_sample(detector) else states[detector.info.name]
            self._merge(detector, state)

    def _needs_sample(self, detector: Detector[Any]) -> bool:
        return self._access is not None and detector.info.name in model_detector_names()

    def _merge(self, detector: Detector[Any], state: Any) -> None:
        if state is not None:  # no model will read rows of it
            index = self._prepared.detectors.index(detector)
            self._states[index] = detector.merge(self._states[index], state)

    def result(self) -> ScanResult:
        """The result of the whole scan, once every shard has been merged."""
        return judge(
            self._prepared,
            merged(self._found),
            self._states,
            ignored=self.asked.ignored,
            library=self._library,
            library_path=self.asked.library_path,
            settings=self.asked.settings,
            access=self._access,
        )


def _one_scan(parts: Sequence[ShardState]) -> Asked:
    """What all parts were asked for, if they are all the shards of one scan."""
    if not parts:
        raise NothingScannableError("no shard to merge: name the files of all of them")
    asked, count = parts[0].asked, parts[0].shard.count
    if any(part.asked != asked or part.shard.count != count for part in parts):
        raise UsageError(
            "these are shards of different scans: data, reference, library, options and version "
            "must be the same"
        )
    numbers = Counter(part.shard.number for part in parts)
    if twice := [number for number, times in numbers.items() if times > 1]:
        raise UsageError(f"shard {min(twice)} of {count} is there more than once")
    if missing := [n for n in range(1, count + 1) if n not in numbers]:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        sources = sum(len(Shard(n, count).places(len(asked.sources))) for n in missing)
        raise AuditError(
            f"missing of {count} shards: {shown}; sources that were not scanned: {sources:,}, so "
            "nothing was decided"
        )
    return asked


def _same_rows(one: Sequence[SourceSummary], other: Sequence[SourceSummary]) -> bool:
    """Whether the bytes are the same, wherever they lie."""
    return [source.sha256 for source in one] == [source.sha256 for source in other]


# Files


def encode_shard(part: ShardState) -> bytes:
    """``part`` as a file: ASCII JSON with a hash of its own, the same bytes for the same rows."""
    body = {
        "asked": asdict(part.asked),
        "shard": asdict(part.shard),
        "found": {
            **asdict(replace(part.found, reject_counts=Counter(), unread_columns=Counter())),
            "reject_counts": dict(part.found.reject_counts),
            "unread_columns": dict(part.found.unread_columns),
        },
        "states": part.states,
        "sample": encode_state(part.sample, _SAMPLE_TYPES),
    }
    text = json.dumps(body, sort_keys=True)
    document = {"schema": _SCHEMA, "schema_version": _SCHEMA_VERSION, "sha256": _digest(text)}
    return json.dumps({**document, "body": text}, sort_keys=True).encode("ascii") + b"\n"


def read_shard(path: Path) -> ShardState:
    """The shard that `encode_shard` wrote to ``path``; nothing in it is run.

    Raises ``AuditError`` for a file that cannot be read, is none, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error.strerror or error}") from error
    return decode_shard(data, str(path))


def decode_shard(data: bytes, path: str) -> ShardState:
    """What `encode_shard` made ``data`` of. ``path`` is what errors call it. Raises
    ``AuditError``."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path}: this is no shard of a scan") from error
    if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
        raise AuditError(f"{path}: this is no shard of a scan")
    if document.get("schema_version") != _SCHEMA_VERSION:
        raise AuditError(f"{path}: written by another version: make the shard again")
    text = document.get("body")
    if not isinstance(text, str) or document.get("sha256") != _digest(text):
        raise AuditError(f"{path}: the shard is damaged: make it again")
    try:
        body = json.loads(text)
        found = body["found"]
        return ShardState(
            asked=msgspec.convert(body["asked"], Asked),
            shard=msgspec.convert(body["shard"], Shard),
            found=ReadSummary(
                sources=msgspec.convert(found["sources"], list[tuple[int, SourceSummary]]),
                broken=msgspec.convert(found["broken"], list[tuple[int, BrokenSource]]),
                rejects=msgspec.convert(found["rejects"], list[tuple[int, Reject]]),
                reject_counts=Counter(msgspec.convert(found["reject_counts"], dict[str, int])),
                rows=msgspec.convert(found["rows"], int),
                rows_with_rejected_text=msgspec.convert(found["rows_with_rejected_text"], int),
                rows_with_unread_text=msgspec.convert(found["rows_with_unread_text"], int),
                unread_columns=Counter(msgspec.convert(found["unread_columns"], dict[str, int])),
            ),
            states=body["states"],
            sample=decode_state(body["sample"], _SAMPLE_TYPES),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise AuditError(f"{path}: this is no shard of a scan") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
