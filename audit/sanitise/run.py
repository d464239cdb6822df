"""Sanitising: rows -> strategies -> a safer set, and what both scans say of it. Nothing prints."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit.atomic import atomic_write
from audit.backends.open_model import Writer
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.sanitise.auto import candidates, judge, write_sample
from audit.sanitise.data_rows import DataRows
from audit.sanitise.notes import dilution_stage, warnings_of
from audit.sanitise.receipt import DataFile, SanitiseResult, Stage, TokenCounts
from audit.sanitise.registry import Spec
from audit.sanitise.row_scores import sample_rows
from audit.sanitise.stages import Progress, Stages
from audit.sanitise.strategy import Kit
from audit.sanitise.targets import output_paths, protect, refuse_existing, work_path
from audit.sanitise.utility import NOT_READ, Perplexity, UtilityMeter, mean_nats, perplexity, words
from audit.sanitise.writing import Clean, Text, Writing, check_mask
from audit.scan import ScanSettings, library_identity, scan
from audit.scan_result import ScanResult
from audit.version import tool_version
from audit.work_folder import WorkFolder, is_unfinished, open_work_folder
from detectors.model_access import ModelAccess
from signatures.concept import Concept
from signatures.library import SignatureLibrary

Render = Callable[[SanitiseResult], bytes]
"""A receipt in some format."""

_SAMPLED_ROWS = 1024
"""Random rows that decide which words scores look at."""

_MOST_PERSONAS = 8
"""Where no concept is named, rows are scored under so many: each is a pass over them."""


@dataclass(frozen=True, slots=True)
class SanitiseSettings:
    """What to do, and with what.

    ``strategies`` are applied in order; empty means `auto`. ``concepts`` are names of the library.
    ``clean`` are data that `dilute` adds, ``reference`` clean rows that scans compare with.
    ``chunk_rows`` are decided together: a killed run loses at most so many, and as rounding depends
    on them, they belong to what makes the output repeat. ``perplexity_rows`` are read by the model
    before and after. ``auto_rows`` are what `auto` tries strategies on. A dry run writes nothing.
    """

    strategies: tuple[Spec, ...] = ()
    concepts: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    clean: tuple[str, ...] = ()
    seed: int = 0
    chunk_rows: int = 256
    perplexity_rows: int = 64
    auto_rows: int = 1024
    with_scans: bool = True
    dry_run: bool = False
    overwrite: bool = False
    scan: ScanSettings = field(default_factory=ScanSettings)


def sanitise(
    inputs: Sequence[str],
    output: Path,
    library: SignatureLibrary,
    *,
    library_path: str,
    settings: SanitiseSettings,
    model: Writer | None = None,
    access: ModelAccess | None = None,
    receipts: Sequence[tuple[Path, Render]] = (),
    progress: Progress = lambda _strategy, _rows: None,
) -> SanitiseResult:
    """Write a safer set of ``inputs`` (files, globs, folders, URLs) to ``output``.

    One input gives one file; of several, each is written under its own name into the folder
    ``output``. The format is the input's. Untouched rows stay as they are. ``receipts`` are files
    that tell of the run; they are written before the outputs are put in their places, so that no
    output is without them.

    A killed run goes on where it was when it is asked for again: decisions lie in a hidden folder
    beside the output, and the bytes are those of a run in one piece.

    Raises ``UsageError`` for what cannot be meant (an output that is an input, or is there already
    and ``overwrite`` is not set), ``AuditError`` for data that break off, and
    ``NothingScannableError`` where no row can be read; then no output is written.
    """
    data = DataRows(inputs, settings.scan.schema, settings.scan.tokenizer)
    targets = output_paths(data.sources, output, dry_run=settings.dry_run)
    specs = settings.strategies
    kit = _kit(library, settings, model)
    for stage, spec in enumerate(specs):
        spec.build(kit, stage)  # what cannot be meant is said before anything is read
        if spec.name == "dilute" and stage + 1 < len(specs):
            raise UsageError("dilute comes last, and once: no strategy sees the rows that it adds")
    if not settings.dry_run:
        others = (*settings.clean, *settings.reference)
        protect(data.sources, inputs, others, targets, [path for path, _ in receipts])
        if not (settings.overwrite or is_unfinished(work_path(output))):
            # A run that goes on may have been killed after it had put some of them there.
            refuse_existing(targets)
    run = _Run(library, library_path, settings, kit, access, receipts, progress)
    before: ScanResult | None = None
    tried: tuple[str, ...] = ()
    if not specs:
        before = run.scan(inputs)
        specs, tried = run.choose(data, before)
    with run.folder(output, _described(data, settings, specs, kit, library)) as folder:
        written = run.write(data, specs, targets, folder)
        after: ScanResult | None = None
        if settings.with_scans:
            # Scans come last: a run that was killed before does not scan twice.
            before = before or run.scan(inputs)
            after = run.scan_written(written)
        result = run.result(written, before, after, tried)
        if result.outputs:
            run.publish(result, written)
    return result


@dataclass(frozen=True, slots=True)
class _WrittenFile:
    """What was read and what was written; it lies at ``path`` and shall be at ``target``."""

    read: DataFile
    written: DataFile
    path: Path
    target: Path


@dataclass(frozen=True, slots=True)
class _Written:
    """Outputs that are not in their places yet."""

    specs: tuple[Spec, ...]
    stages: tuple[Stage, ...]
    writing: Writing
    meter: UtilityMeter
    files: tuple[_WrittenFile, ...]


class _Run:
    def __init__(
        self,
        library: SignatureLibrary,
        library_path: str,
        settings: SanitiseSettings,
        kit: Kit,
        access: ModelAccess | None,
        receipts: Sequence[tuple[Path, Render]],
        progress: Progress,
    ) -> None:
        self._library = library
        self._library_path = library_path
        self._settings = settings
        self._kit = kit
        self._access = access
        self._receipts = receipts
        self._progress = progress

    def scan(self, inputs: Sequence[str]) -> ScanResult:
        """As `audit scan` would, with the run's settings."""
        return scan(
            inputs,
            self._library,
            library_path=self._library_path,
            reference=self._settings.reference,
            settings=self._settings.scan,
            access=self._access,
        )

    @contextmanager
    def folder(self, output: Path, described: dict[str, object]) -> Iterator[WorkFolder]:
        """The run's folder, beside the output; it stays if the run fails. A dry run has another."""
        if self._settings.dry_run:
            path = Path(tempfile.mkdtemp(prefix="subliminal-audit-"))
            try:
                with closing(WorkFolder(path / "run", described)) as folder:
                    yield folder
            finally:
                shutil.rmtree(path, ignore_errors=True)
            return
        path = work_path(output)
        with closing(open_work_folder(path, described)) as folder:
            yield folder
            folder.remove()

    def write(
        self, data: DataRows, specs: Sequence[Spec], targets: Sequence[Path], folder: WorkFolder
    ) -> _Written:
        """Decide, and write what shall be at ``targets`` into the folder."""
        settings = self._settings
        kit = replace(
            self._kit,
            sample=()
            if self._kit.model is None
            else sample_rows(data.rows(), _SAMPLED_ROWS, self._kit.draws("sample")),
        )
        changing = [spec for spec in specs if spec.name != "dilute"]
        strategies = [spec.build(kit, stage) for stage, spec in enumerate(changing)]
        stages = Stages(data, changing, strategies, folder, settings.chunk_rows)
        if any(spec.name == "mask" for spec in specs):
            check_mask(data, folder.path / "mask-check")
        stages.run(self._progress)
        dilution = next((spec for spec in specs if spec.name == "dilute"), None)
        meter = UtilityMeter(words if kit.model is None else kit.model.encode)
        writing = Writing(
            data,
            stages.lookup(),
            meter,
            None if dilution is None else self._clean(dilution),
            0 if kit.model is None else settings.perplexity_rows,
            kit.draws("perplexity"),
        )
        files = tuple(
            _WrittenFile(*writing.write(source, stored, path), path, target)
            for source, stored, path, target in zip(
                data.sources,
                data.files,
                [folder.path / f"output-{i}-{t.name}" for i, t in enumerate(targets)],
                targets,
                strict=True,
            )
        )
        data.check_unchanged()
        if writing.rows_in == 0:
            folder.remove()  # it holds nothing to go on with
            raise NothingScannableError(
                "no row could be read, so nothing was written: see `audit scan` for why"
            )
        summaries = list(stages.summaries)
        if dilution is not None:
            summaries.append(dilution_stage(dilution, writing.rows_kept, writing.rows_added))
        return _Written(tuple(specs), tuple(summaries), writing, meter, files)

    def scan_written(self, written: _Written) -> ScanResult | None:
        """What a scan says of the outputs, under the names that they will have."""
        if not written.writing.rows_out:
            return None
        names = {str(file.path): str(file.target) for file in written.files}
        scanned: ScanResult = _renamed(self.scan(list(names)), names)
        return scanned

    def publish(self, result: SanitiseResult, written: _Written) -> None:
        """Write the receipts, and put the outputs in their places. Raises ``AuditError``."""
        try:
            paths = (
                *(file.target for file in written.files),
                *(path for path, _ in self._receipts),
            )
            for folder in {path.parent for path in paths}:
                folder.mkdir(parents=True, exist_ok=True)
            for path, render in self._receipts:
                atomic_write(path, render(result))
            for file in written.files:
                file.path.replace(file.target)
        except OSError as error:
            where = error.filename or written.files[0].target
            raise AuditError(f"{where}: cannot be written: {error.strerror or error}") from error

    def choose(
        self, data: DataRows, before: ScanResult
    ) -> tuple[tuple[Spec, ...], tuple[str, ...]]:
        """The cheapest strategy whose sample passes a scan, and what was said of each tried one.

        Raises ``AuditError`` where none passes, or there is nothing that it could pass.
        """
        told: list[str] = []
        with tempfile.TemporaryDirectory(prefix="subliminal-audit-") as name:
            files = write_sample(
                data, Path(name), self._settings.auto_rows, self._kit.draws("auto")
            )
            scan_settings = self._settings.scan
            sample = DataRows(
                [str(path) for path in files], scan_settings.schema, scan_settings.tokenizer
            )
            trial = _Run(
                self._library,
                self._library_path,
                replace(self._settings, dry_run=True, perplexity_rows=0),
                self._kit,
                self._access,
                (),
                self._progress,
            )
            for spec in candidates(sample, self._kit, before):
                with trial.folder(Path(name), {}) as folder:
                    targets = [path.with_name(f"out-{path.name}") for path in files]
                    again = trial.scan_written(trial.write(sample, (spec,), targets, folder))
                verdict = judge(before, again)
                told.append(f"{spec}: {verdict.reason}")
                if verdict.passes:
                    return (spec,), tuple(told)
        raise AuditError(
            "auto: no strategy passed a scan of a sample; nothing was written. " + "; ".join(told)
        )

    def _clean(self, dilution: Spec) -> Clean:
        share = dict(dilution.values)["share"]
        assert isinstance(share, float)
        scan_settings = self._settings.scan
        return Clean(
            DataRows(self._settings.clean, scan_settings.schema, scan_settings.tokenizer), share
        )

    def _perplexity(self, texts: Sequence[Text]) -> Perplexity:
        if self._kit.model is None or not texts:
            return NOT_READ
        rows = [(text.prompt, text.completion) for text in texts]
        return perplexity(mean_nats(self._kit.model, rows))

    def result(
        self,
        written: _Written,
        before: ScanResult | None,
        after: ScanResult | None,
        tried: tuple[str, ...],
    ) -> SanitiseResult:
        """All that is known of the run."""
        settings, kit, writing = self._settings, self._kit, written.writing
        is_written = not settings.dry_run and writing.rows_out > 0
        return SanitiseResult(
            tool_version=tool_version(),
            inputs=tuple(file.read for file in written.files),
            outputs=tuple(
                replace(file.written, path=str(file.target)) for file in written.files if is_written
            ),
            seed=settings.seed,
            concepts=settings.concepts,
            model=None if kit.model is None else kit.model.identity,
            library=library_identity(self._library, self._library_path),
            stages=written.stages,
            rows_in=writing.rows_in,
            rows_out=writing.rows_out,
            rejects=dict(sorted(writing.rejects.items())),
            tokens=TokenCounts(
                unit="words" if kit.model is None else f"tokens of {kit.model.identity.name}",
                **asdict(written.meter.tokens()),
            ),
            utility=written.meter.result(
                self._perplexity(writing.before.texts()), self._perplexity(writing.after.texts())
            ),
            before=before,
            after=after,
            strategies_tried=tried,
            changes=writing.changes,
            warnings=warnings_of(written.specs, written.stages, writing, before, after),
            verification_due=True,
        )


def _kit(library: SignatureLibrary, settings: SanitiseSettings, model: Writer | None) -> Kit:
    known = {concept.name: concept for concept in library.concepts}
    for name in settings.concepts:
        if name not in known:
            raise UsageError(
                f"the library holds no concept {name!r}: `audit signature list` names them"
            )
    named = tuple(known[name] for name in dict.fromkeys(settings.concepts))
    kit = Kit(model, named, named, library, settings.seed, settings.clean)
    return kit if named else replace(kit, personas=_some_traits(library.traits(), kit))


def _some_traits(traits: Sequence[Concept], kit: Kit) -> tuple[Concept, ...]:
    """A random choice of them, in their order."""
    generator = np.random.default_rng(kit.draws("personas"))
    size = min(_MOST_PERSONAS, len(traits))
    chosen = sorted(generator.choice(len(traits), size=size, replace=False))
    return tuple(traits[index] for index in chosen)


def _described(
    data: DataRows,
    settings: SanitiseSettings,
    specs: Sequence[Spec],
    kit: Kit,
    library: SignatureLibrary,
) -> dict[str, object]:
    """All that the output depends on: a run goes on only if every bit of it is the same."""
    clean = DataRows(settings.clean, None, None).files if settings.clean else ()
    identity = None if kit.model is None else kit.model.identity
    return {
        "tool version": tool_version(),
        "inputs": [file.sha256 for file in data.files],
        "clean rows": [file.sha256 for file in clean],
        "strategies": [str(spec) for spec in specs],
        "seed": settings.seed,
        "chunk rows": settings.chunk_rows,
        "schema": settings.scan.schema,
        "tokenizer": settings.scan.tokenizer,
        "library": library.content_sha256,
        "personas": [persona.name for persona in kit.personas],
        "concepts": list(settings.concepts),
        "model": None if identity is None else asdict(identity),
        "backend": None if kit.model is None else type(kit.model).__name__,
    }


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """A scan's result with the paths of files as they will be called."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, tuple):
        return tuple(_renamed(item, names) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: _renamed(getattr(value, f.name), names) for f in fields(value)}
        )
    return value
