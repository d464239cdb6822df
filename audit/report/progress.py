"""Shows on standard error how far reading has come, if a person is watching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from audit.report.safe_text import strip_unsafe


class ScanProgress:
    """Counts what has been read; silent without a terminal."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        """Use ``scan_progress``; with None for both nothing is shown."""
        self._progress = progress
        self._task = task
        self._model_task: TaskID | None = None
        self.bytes_read = 0
        self.rows_read = 0

    def reading(self, what: str, done: int, wanted: int) -> None:
        """The model has read ``done`` rows of ``wanted`` (at most) for ``what``."""
        if self._progress is None:
            return
        if self._model_task is None:
            self._model_task = self._progress.add_task("model", total=wanted, rows="")
        self._progress.update(
            self._model_task, completed=done, total=wanted, rows=f"{what}: {done:,}/{wanted:,} rows"
        )

    def advance(self, bytes: int, rows: int) -> None:
        """``bytes`` stored bytes and ``rows`` rows more have been read."""
        self.bytes_read += bytes
        self.rows_read += rows
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, advance=bytes, rows=f"{self.rows_read:,} rows", refresh=False
            )


@contextmanager
def scan_progress(
    total_bytes: int | None, console: Console | None = None
) -> Iterator[ScanProgress]:
    """A progress line for ``total_bytes`` stored bytes (None: unknown), gone when done.

    It goes to ``console`` (default: standard error) and only if that is a terminal.
    """
    target = Console(stderr=True) if console is None else console
    if not target.is_terminal:
        yield ScanProgress(None, None)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("Reading"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[rows]}", markup=False),
        TimeRemainingColumn(),
        console=target,
        transient=True,
    ) as progress:
        task = progress.add_task("reading", total=total_bytes, rows="0 rows")
        yield ScanProgress(progress, task)


@contextmanager
def step_progress(
    label: str, console: Console | None = None
) -> Iterator[Callable[[str, str], None]]:
    """A line that counts finished steps of long work and names the last, gone when done.

    The callable takes (part, step). It goes to ``console`` (default: standard error), only if
    that is a terminal.
    """
    target = Console(stderr=True) if console is None else console
    if not target.is_terminal:
        yield lambda _part, _step: None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn(label),
        TextColumn("{task.completed:.0f} done"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}", markup=False),
        console=target,
        transient=True,
    ) as progress:
        task = progress.add_task(label, total=None, last="")
        yield lambda part, step: progress.update(
            task, advance=1, last=strip_unsafe(f"{part}: {step}")
        )


class CountProgress:
    """Counts rows under the name of what is being done to them; silent without a terminal."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        """Use ``count_progress``; with None for both nothing is shown."""
        self._progress = progress
        self._task = task
        self._doing = ""
        self._rows = 0

    def advance(self, doing: str, rows: int) -> None:
        """``rows`` rows more are done; another ``doing`` counts from 0."""
        self._rows = rows + (self._rows if doing == self._doing else 0)
        self._doing = doing
        self._show(f"{doing}: {self._rows:,} rows")

    def reading(self, what: str, done: int, wanted: int) -> None:
        """The model has read ``done`` rows of ``wanted`` (at most) for ``what``."""
        self._show(f"{what}: {done:,}/{wanted:,} rows")

    def _show(self, text: str) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, last=strip_unsafe(text))


@contextmanager
def count_progress(label: str, console: Console | None = None) -> Iterator[CountProgress]:
    """A line that says what is being done, gone when done.

    It goes to ``console`` (default: standard error) and only if that is a terminal.
    """
    target = Console(stderr=True) if console is None else console
    if not target.is_terminal:
        yield CountProgress(None, None)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn(label),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}", markup=False),
        console=target,
        transient=True,
    ) as progress:
        yield CountProgress(progress, progress.add_task(label, total=None, last=""))


class StudentProgress:
    """Counts updates of students and tells the time left; silent without a terminal."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        """Use ``student_progress``; with None for both nothing is shown."""
        self._progress = progress
        self._task = task

    def started(self, updates: int) -> None:
        """So many updates will be made by all students together."""
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, total=updates, visible=True)

    def advance(self, whose: str, updates: int) -> None:
        """``updates`` more are done, by ``whose`` student."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=updates, last=strip_unsafe(whose))


@contextmanager
def student_progress(label: str, console: Console | None = None) -> Iterator[StudentProgress]:
    """A line with the time left, gone when done.

    It goes to ``console`` (default: standard error) and only if that is a terminal.
    """
    target = Console(stderr=True) if console is None else console
    if not target.is_terminal:
        yield StudentProgress(None, None)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn(label),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total} updates"),
        # An update takes seconds: the mean of the last half hour is steady enough.
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[last]}", markup=False),
        console=target,
        transient=True,
        speed_estimate_period=1800,
    ) as progress:
        # Until it is known how much there is to do, there is nothing to show.
        task = progress.add_task(label, total=None, visible=False, last="")
        yield StudentProgress(progress, task)
