"""A gate: scans what its settings name, and decides. Nothing here prints."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from audit.backends.open_model import ModelChoice, Writer, open_model
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.gate.acceptance import Acceptance, accept
from audit.gate.baseline import BaselineEntry
from audit.gate.changes import Changes
from audit.gate.config import DataSet, GateConfig, Suppression
from audit.gate.holds import holds
from audit.gate.plan import PlannedSet, plan
from audit.gate.result import GateResult, HoldKind, SetDecision
from audit.gate.unread import unread_result
from audit.model_reading import access_to
from audit.named_scan import NamedScan
from audit.scan import Progress, check_detectors, scan
from audit.scan_result import Outcome, ScanResult
from audit.version import tool_version
from detectors.model_access import ModelAccess, ModelProgress
from signatures.library import SignatureLibrary

LONGEST_SUPPRESSION_DAYS = 366

AccessFactory = Callable[[], ModelAccess | None]
"""Gives each scan its own access to the model, or None without a model."""


@dataclass(frozen=True, slots=True)
class Scanning:
    """What every scan of a gate shares. ``library_path`` is what reports call the library."""

    library: SignatureLibrary
    library_path: str
    access: AccessFactory = lambda: None
    progress: Progress = lambda _bytes, _rows: None


@contextlib.contextmanager
def model_accesses(
    choice: ModelChoice | None, config: GateConfig, progress: ModelProgress
) -> Iterator[AccessFactory]:
    """Accesses to one model, which is opened when the first is asked for and closed at the end."""
    with ExitStack() as opened:
        models: list[Writer] = []

        def access() -> ModelAccess | None:
            if choice is None:
                return None
            if not models:
                models.append(open_model(choice))
                opened.callback(models[0].close)
            return access_to(models[0], config.model_settings(), progress)

        yield access


def check_config(config: GateConfig, today: datetime.date, *, has_model: bool) -> None:
    """Raise ``UsageError`` for a detector that does not exist or needs a model, and for a
    suppression that would last longer than a year from ``today``."""
    check_detectors(config.detectors, has_model=has_model)
    for suppression in config.suppressions:
        days = (suppression.expires - today).days
        if days > LONGEST_SUPPRESSION_DAYS:
            raise UsageError(
                f"{config.file}: the suppression of '{suppression.concept}' in "
                f"'{suppression.data}' expires on {suppression.expires}, {days:,} days from "
                f"{today}: at most {LONGEST_SUPPRESSION_DAYS} are allowed"
            )


def run_gate(
    config: GateConfig,
    scanning: Scanning,
    *,
    today: datetime.date,
    baseline: Sequence[BaselineEntry] | None = None,
    changes: Changes | None = None,
) -> GateResult:
    """Scan the data sets of ``config``, with ``changes`` only those that changed, and decide.

    ``baseline`` is None where the settings name no file or the file is not there yet. A data set
    that cannot be read holds the gate, and the others are scanned all the same.

    Raises ``UsageError``, ``MissingExtraError`` and ``AuditError`` where the settings mean nothing
    or the model cannot be opened.
    """
    with contextlib.chdir(config.root):  # every name in a report is relative to it
        planned = plan(config, changes)
        scanned = {p.data.name: _scanned(p, config, scanning) for p in planned if not p.unchanged}
    known = () if baseline is None else tuple(baseline)
    accepted = {
        name: accept(name, result, config.suppressions, known, today)
        for name, result in scanned.items()
    }
    sets = tuple(
        SetDecision(p.data.name, p.data.paths, None, not_scanned=p.unchanged)
        if p.data.name not in scanned
        else _decided(p.data, scanned[p.data.name], accepted[p.data.name], config)
        for p in planned
    )
    return GateResult(
        tool_version=tool_version(),
        config=config,
        today=today,
        changed_since=None if changes is None else changes.since,
        sets=sets,
        expired=tuple(s for s in config.suppressions if s.expired(today)),
        unused=_unused(config.suppressions, sets, accepted, today),
        stale=_stale(known, sets, accepted),
        baseline_missing=config.baseline is not None and baseline is None,
    )


def _scanned(planned: PlannedSet, config: GateConfig, scanning: Scanning) -> ScanResult:
    data = planned.data

    def unread(outcome: Outcome, message: str) -> ScanResult:
        return unread_result(
            outcome,
            message,
            data.paths,
            scanning.library,
            scanning.library_path,
            config.test.false_discovery_rate,
        )

    if planned.nothing_there:
        return unread(Outcome.NOTHING_SCANNABLE, planned.nothing_there)
    access = scanning.access()  # a model that does not open is no fault of one data set
    try:
        return scan(
            data.paths,
            scanning.library,
            library_path=scanning.library_path,
            reference=data.reference,
            settings=config.scan_settings(data),
            access=access,
            progress=scanning.progress,
        )
    except NothingScannableError as error:
        return unread(Outcome.NOTHING_SCANNABLE, str(error))
    except UsageError as error:
        raise UsageError(f"the data set '{data.name}': {error}") from error
    except AuditError as error:
        return unread(Outcome.INCOMPLETE, str(error))


def _decided(
    data: DataSet, result: ScanResult, acceptance: Acceptance, config: GateConfig
) -> SetDecision:
    named = NamedScan(data.name, result, acceptance.accepted)
    reasons = holds(named, acceptance.notes, config)
    over = [hold.message for hold in reasons if hold.kind is HoldKind.REJECTED_ROWS]
    named = replace(named, over_budget="; ".join(over))
    return SetDecision(data.name, data.paths, named, reasons)


def _unused(
    suppressions: Sequence[Suppression],
    sets: Sequence[SetDecision],
    accepted: dict[str, Acceptance],
    today: datetime.date,
) -> tuple[Suppression, ...]:
    """Suppressions that found nothing, where all that they are about was read to its end."""
    used = frozenset().union(*(a.used for a in accepted.values()))
    return tuple(
        s
        for s in suppressions
        if not s.expired(today)
        and s not in used
        and all(d.is_read for d in sets if s.covers(d.name))
    )


def _stale(
    baseline: Sequence[BaselineEntry],
    sets: Sequence[SetDecision],
    accepted: dict[str, Acceptance],
) -> tuple[BaselineEntry, ...]:
    """Entries whose finding is gone, or whose data set is; what was not read is not known."""
    not_read = {d.name for d in sets if not d.is_read}
    found = frozenset().union(*(a.found for a in accepted.values()))
    return tuple(e for e in baseline if e.key not in found and e.data not in not_read)
