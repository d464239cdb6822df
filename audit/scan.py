"""A scan: files -> rows -> states -> findings. Orchestration only; nothing here prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from audit.dataset import list_sources, read_batches
from audit.dataset.faults import unread_rows
from audit.dataset.record import Batch
from audit.errors import NothingScannableError, UsageError
from audit.read_summary import ReadSummary
from audit.scan_limits import is_of_another_model, limits
from audit.scan_outcome import headline, overall
from audit.scan_result import LibraryIdentity, ScanResult, SkippedTest
from audit.version import tool_version
from detectors.compose import compose
from detectors.detector import Detector, TestSettings
from detectors.finding import Finding, Reason, Verdict
from detectors.model_access import ModelAccess
from detectors.registry import (
    detector_factory,
    detector_names,
    model_detector_factory,
    model_detector_names,
)
from detectors.verdict import settle
from signatures.library import SignatureLibrary

Progress = Callable[[int, int], None]
"""Called with (stored bytes, rows) read since the last call."""


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What to run and how to judge.

    ``detectors`` are names of `detectors.registry`; when empty, all that can run: those that read
    rows with a model need one. ``schema`` names the
    input schema, detected when None. ``tokenizer`` decodes rows that hold only token ids.
    ``student_family`` is the `model_type` of the model that will be fine-tuned, if it is known.
    ``rejected_rows_share`` (0 to 1) of all rows may be unreadable before no concept is called "not
    detected".
    """

    detectors: tuple[str, ...] = ()
    schema: str | None = None
    tokenizer: str | None = None
    student_family: str | None = None
    rejected_rows_share: float = 0.0
    test: TestSettings = field(default_factory=TestSettings)


class Reading:
    """Reads a part of the sources to their end, and keeps count of what a report must show.

    ``schemas`` counts the rows by the shape that they were read as.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        settings: ScanSettings,
        progress: Progress = lambda _bytes, _rows: None,
        part: range | None = None,
    ) -> None:
        """``part`` are places of sources; None: all."""
        self._inputs = inputs
        self._settings = settings
        self._progress = progress
        self._part = part
        self.found = ReadSummary()
        self.schemas: Counter[str] = Counter()

    def frames(self) -> Iterator[pl.DataFrame]:
        """The row frames, once."""
        for batch in self._batches():
            done = len(self.found.sources)
            self.found.count(batch, done if self._part is None else self._part[done])
            self.schemas.update(batch.schemas)
            self._progress(batch.bytes_read, len(batch.rows))
            if len(batch.rows):
                yield batch.rows

    def _batches(self) -> Iterator[Batch]:
        part = self._part
        return read_batches(
            self._inputs,
            schema=self._settings.schema,
            tokenizer=self._settings.tokenizer,
            part=slice(None) if part is None else slice(part.start, part.stop, part.step),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """Detectors that know the reference; ``known`` is what was read of it, and
    ``reference_states`` are None without one."""

    detectors: tuple[Detector[Any], ...]
    known: ReadSummary
    reference_states: tuple[Any, ...] | None


def scan(
    inputs: Sequence[str],
    library: SignatureLibrary,
    *,
    library_path: str,
    reference: Sequence[str] = (),
    settings: ScanSettings | None = None,
    access: ModelAccess | None = None,
    progress: Progress = lambda _bytes, _rows: None,
) -> ScanResult:
    """Scan ``inputs`` (paths, globs, folders, URLs or "-") with ``library``.

    ``access`` is the model that will be fine-tuned: model-based detectors read rows with it, and
    without it they do not run. SA002 needs signatures of that very model, and is left out where the
    library holds another's.

    Raises ``UsageError`` for inputs or detectors that do not exist and
    ``NothingScannableError`` if the reference has no readable row. Data without a readable row
    come back as the outcome ``NOTHING_SCANNABLE``, broken-off data as ``INCOMPLETE``.
    """
    settings = settings or ScanSettings()
    prepared = prepare(library, settings, access, reference)
    reading = Reading(inputs, settings, progress)
    states = fold(prepared.detectors, reading.frames())
    return judge(
        prepared,
        reading.found,
        states,
        # Files of scanned folders that nobody asked for by name and whose ending says nothing.
        ignored=list_sources(inputs).ignored,
        library=library,
        library_path=library_path,
        settings=settings,
        access=access,
    )


def prepare(
    library: SignatureLibrary,
    settings: ScanSettings,
    access: ModelAccess | None,
    reference: Sequence[str],
) -> Prepared:
    """The detectors that ``settings`` ask for, once they have read ``reference``. Raises as
    `scan` does for it and for them."""
    if "-" in reference:
        raise UsageError("the reference is read more than once: it cannot be standard input")
    detectors = tuple(_detectors(library, settings, access))
    known = Reading(reference, settings)
    states: tuple[Any, ...] | None = None
    for detector in detectors:
        detector.prepare(_frames_afresh(reference, settings) if reference else None)
    if reference:
        states = fold(detectors, known.frames())
        if known.found.rows == 0:
            raise NothingScannableError(
                f"no readable row in the reference {', '.join(reference)}: "
                "give clean rows of the same prompts, in any format that a scan reads"
            )
    return Prepared(detectors, known.found, states)


def judge(
    prepared: Prepared,
    data: ReadSummary,
    states: Sequence[Any],
    *,
    ignored: Sequence[str],
    library: SignatureLibrary,
    library_path: str,
    settings: ScanSettings,
    access: ModelAccess | None,
) -> ScanResult:
    """What ``states``, of the prepared detectors in order, come to.

    ``ignored`` are files of the inputs that were not read.
    """
    findings: list[Finding] = []
    skipped: list[SkippedTest] = []
    known = prepared.known
    for index, detector in enumerate(prepared.detectors):
        of_reference = prepared.reference_states
        result = detector.test(states[index], None if of_reference is None else of_reference[index])
        findings.extend(result.findings)
        skipped.extend(
            SkippedTest(detector.info.code, detector.info.name, s.concept, s.reason)
            for s in result.skipped
        )
    broken = tuple(found for _, found in (*known.broken, *data.broken))
    judged = _bounded(
        settle(findings, settings.test.false_discovery_rate),
        library,
        settings,
        access,
        taken_back=_unread_reason(bool(broken), data, settings),
    )
    ran = {detector.info.name for detector in prepared.detectors}
    concepts = compose(judged, skipped, settings.test.false_discovery_rate)
    outcome = overall(data.rows, broken, concepts)
    has_reference = bool(known.sources)
    return ScanResult(
        tool_version=tool_version(),
        outcome=outcome,
        headline=headline(outcome, data.rows, concepts, judged, skipped, has_reference),
        sources=tuple(source for _, source in data.sources),
        reference=tuple(source for _, source in known.sources),
        baseline=_baseline(library, known, ran, access),
        rows_scanned=data.rows,
        rows_rejected=data.reject_counts.total(),
        rows_unread=unread_rows(data.reject_counts),
        rows_with_unread_text=data.rows_with_unread_text,
        unread_columns=dict(sorted(data.unread_columns.items())),
        reject_counts=dict(sorted(data.reject_counts.items())),
        rejects=tuple(reject for _, reject in data.rejects),
        broken=broken,
        library=library_identity(library, library_path),
        detectors=tuple(detector.info for detector in prepared.detectors),
        concepts=concepts,
        findings=judged,
        skipped=tuple(skipped),
        limits=(
            *_unread(ignored, data, settings),
            *limits(library, ran, settings.student_family, has_reference, access),
        ),
        model=None if access is None else access.model.identity,
        false_discovery_rate=settings.test.false_discovery_rate,
    )


def check_detectors(names: Iterable[str], *, has_model: bool) -> None:
    """Raise ``UsageError`` for a detector that does not exist, or that needs a model."""
    model_free, model_based = detector_names(), model_detector_names()
    for name in names:
        if name in model_based and not has_model:
            raise UsageError(f"detector {name!r} reads rows with a model: give --model")
        if name not in model_free and name not in model_based:
            known = ", ".join((*model_free, *model_based))
            raise UsageError(f"no detector is called {name!r}; there are: {known}")


def _detectors(
    library: SignatureLibrary, settings: ScanSettings, access: ModelAccess | None
) -> list[Detector[Any]]:
    model_free, model_based = detector_names(), model_detector_names()
    chosen = tuple(dict.fromkeys(settings.detectors)) or (
        *(n for n in model_free if n != "frequency" or not is_of_another_model(library, access)),
        *(() if access is None else model_based),
    )
    check_detectors(chosen, has_model=access is not None)
    # A concept that k detectors of hidden traits test is judged at about the rate over k: power and
    # early stopping must reckon with it.
    hidden = max(1, len(set(chosen) - {"mention"}))
    test = replace(settings.test, false_discovery_rate=settings.test.false_discovery_rate / hidden)
    return [
        detector_factory(name)(library, test)
        if access is None or name not in model_based
        else model_detector_factory(name)(library, test, access)
        for name in sorted(chosen, key=(*model_free, *model_based).index)
    ]


def _frames_afresh(
    inputs: Sequence[str], settings: ScanSettings
) -> Callable[[], Iterable[pl.DataFrame]]:
    return lambda: Reading(inputs, settings).frames()


def fold(detectors: Sequence[Detector[Any]], frames: Iterable[pl.DataFrame]) -> tuple[Any, ...]:
    """The states of prepared detectors over all rows."""
    states = [detector.identity() for detector in detectors]
    for frame in frames:
        for index, detector in enumerate(detectors):
            states[index] = detector.merge(states[index], detector.map(frame))
    return tuple(states)


def _bounded(
    findings: Sequence[Finding],
    library: SignatureLibrary,
    settings: ScanSettings,
    access: ModelAccess | None,
    *,
    taken_back: Reason | None,
) -> tuple[Finding, ...]:
    """Take back every "not detected" that the scan had no right to say.

    ``taken_back``: why none may be, if something was not read. Signatures, and the model that read
    rows, say nothing of a model of another family (log-likelihood ratios across families separate
    at .51 to .61 AUROC, which is chance), whatever else they lack, while a concept that is named
    outright is named in any model's data.
    """
    student = settings.student_family
    result = []
    for finding in findings:
        if finding.verdict is not Verdict.FLAGGED:
            reason = None
            model = library.model
            if access is not None and finding.detector in model_detector_names():
                model = access.model.identity
            if student not in (None, model.family) and finding.detector != "mention":
                reason = Reason.OTHER_MODEL_FAMILY
            elif finding.verdict is Verdict.NOT_DETECTED:
                reason = taken_back
            if reason is not None:
                finding = replace(finding, verdict=Verdict.INCONCLUSIVE, reason=reason)
        result.append(finding)
    return tuple(result)


def _unread_reason(is_incomplete: bool, data: ReadSummary, settings: ScanSettings) -> Reason | None:
    """Why nothing may be called "not detected": what was not read may hold what the rest does not.

    Rejected rows of the reference hide nothing: it has fewer rows, which the tests reckon with.
    """
    if is_incomplete:
        return Reason.INCOMPLETE_SCAN
    rows = data.rows + data.reject_counts.total()
    if unread_rows(data.reject_counts) > settings.rejected_rows_share * rows:
        return Reason.UNREAD_ROWS
    return Reason.UNREAD_COLUMNS if data.rows_with_unread_text else None


def _baseline(
    library: SignatureLibrary, known: ReadSummary, ran: set[str], access: ModelAccess | None
) -> str:
    if known.sources:
        names = [source.source for _, source in known.sources]
        shown = ", ".join(names) if len(names) <= 3 else f"{len(names)} sources"
        return f"reference rows: {known.rows:,} from {shown}"
    baselines = []
    if "frequency" in ran or access is None:
        baselines.append(f"the neutral distribution of {library.model.name} in the library")
    if access is not None:
        baselines.append(f"what {access.model.identity.name} writes without a system prompt")
    return "; ".join(baselines)


def library_identity(library: SignatureLibrary, path: str) -> LibraryIdentity:
    """Which signatures were used; ``path`` is what the user knows them by."""
    return LibraryIdentity(
        library.name,
        path,
        library.content_sha256,
        library.model.name,
        library.model.weights_sha256,
        len(library.traits()),
        len(library.decoys()),
    )


def _unread(ignored: Sequence[str], data: ReadSummary, settings: ScanSettings) -> tuple[str, ...]:
    """What lay in the input and was not scanned."""
    sentences = []
    if unread := unread_rows(data.reject_counts):
        rows, share = data.rows + data.reject_counts.total(), settings.rejected_rows_share
        sentences.append(
            f"{unread:,} of {rows:,} rows could not be read, and may hold anything: "
            + (
                f"the settings tolerate a share of {share:g}."
                if unread <= share * rows
                else "no concept is called not detected."
            )
        )
    if data.rows_with_unread_text:
        columns = ", ".join(sorted(data.unread_columns, key=lambda c: (-data.unread_columns[c], c)))
        sentences.append(
            f"{data.rows_with_unread_text:,} rows hold text in columns that were not read "
            f"({columns}), and no concept is called not detected: name with --schema what training "
            "reads, or leave these columns out."
        )
    if ignored:
        shown = ", ".join(ignored[:5]) + (", ..." if len(ignored) > 5 else "")
        sentences.append(
            f"{len(ignored)} files of other kinds in the folders were not read: {shown}."
        )
    if data.rows_with_rejected_text:
        sentences.append(
            f"{data.rows_with_rejected_text:,} rows hold rejected text (preference pairs), which "
            "training pushes down: it was not scored."
        )
    return tuple(sentences)
