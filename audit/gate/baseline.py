"""The findings that were there when a gate came: a file of them, and what of it still holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import msgspec

from audit.errors import AuditError, UsageError, one_line
from audit.report.plain_json import plain, to_plain_json
from detectors.finding import Finding

SCHEMA = "subliminal-audit/baseline"
SCHEMA_VERSION = 1
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class BaselineEntry:
    """One flagged finding. ``effect`` with its 95% interval is in ``effect_unit``.

    ``owner`` and ``reason`` are empty where nobody gave any.
    """

    data: str
    code: str
    concept: str
    fingerprint: str
    effect: float | None
    effect_low: float | None
    effect_high: float | None
    effect_unit: str
    owner: str = ""
    reason: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Data set, code, concept and fingerprint: what makes two entries the same."""
        return self.data, self.code, self.concept, self.fingerprint

    @property
    def most_effect(self) -> float | None:
        """The effect up to which the entry holds: the interval's end, or the effect without one."""
        return self.effect if self.effect_high is None else self.effect_high

    def covers(self, finding: Finding) -> bool:
        """Whether the effect of ``finding``, of the same key, is no stronger than was recorded."""
        most = self.most_effect
        return (
            most is not None and self.effect_unit == finding.effect_unit and finding.effect <= most
        )


def entry_of(data: str, finding: Finding, fingerprint: str) -> BaselineEntry:
    """The entry of ``finding`` in the data set of this name, without owner and reason."""

    def defined(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return BaselineEntry(
        data,
        finding.code,
        finding.concept,
        fingerprint,
        defined(finding.effect),
        defined(finding.effect_low),
        defined(finding.effect_high),
        finding.effect_unit,
    )


class _File(msgspec.Struct, forbid_unknown_fields=True):
    schema: str
    schema_version: int
    entries: list[BaselineEntry]


def render_baseline(entries: tuple[BaselineEntry, ...]) -> bytes:
    """The file: ASCII JSON, sorted, so that equal findings give equal bytes."""
    # What may not be in JSON is replaced before it is sorted.
    listed = sorted(
        (plain(entry) for entry in entries),
        key=lambda e: (e["data"], e["code"], e["concept"], e["fingerprint"]),
    )
    document = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "entries": listed}
    return to_plain_json(document).encode("ascii")


def read_baseline(path: Path) -> tuple[BaselineEntry, ...]:
    """The entries of the file at ``path``.

    Raises ``FileNotFoundError`` where there is none, ``AuditError`` where it cannot be read, and
    ``UsageError`` for a file that is no baseline of this version.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: larger than {_MOST_BYTES:,} bytes, which no baseline is")
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        file = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path}: is no baseline: {one_line(error)}; write one with  audit baseline"
        ) from error
    if (file.schema, file.schema_version) != (SCHEMA, SCHEMA_VERSION):
        raise UsageError(
            f"{path}: is no baseline of version {SCHEMA_VERSION}, but {file.schema[:40]!r} "
            f"{file.schema_version}: write it anew with  audit baseline"
        )
    keys = [entry.key for entry in file.entries]
    if len(set(keys)) < len(keys):
        raise UsageError(f"{path}: holds an entry twice: write it anew with  audit baseline")
    return tuple(file.entries)
