"""Standard output and error that may be full, gone or missing, and signals that end a command."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO

from audit.errors import AuditError

_SOON_SECONDS = 0.05


class LostOutputError(AuditError):
    """Not all of standard output reached whoever reads it. No ``OSError``: click and rich make
    exit code 1 of a closed pipe, which means findings here."""


class ReaderGoneError(LostOutputError):
    """Whoever read standard output has had enough, as ``head`` has: nothing is wrong."""


class EndedError(BaseException):
    """A signal asks the process to end; no ``Exception``, so that nothing handles it as one."""


class _Watched(io.FileIO):
    """A standard stream; what cannot be written to it is no fault of another file.

    After an error what is written is dropped, so that nothing complains again at shutdown.
    """

    def __init__(self, descriptor: int, *, told: bool) -> None:
        """Errors raise ``LostOutputError`` where ``told``, and are nobody's business elsewhere."""
        super().__init__(descriptor, "wb", closefd=False)
        self._told = told
        self._lost = False

    def write(self, data: Any, /) -> int:
        """All of ``data``, or an error: also where whoever made the pipe left it non-blocking."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and not self._lost:
            try:
                # A write that a full disk cut short is no error: only the next one is.
                written = super().write(view[done:])
                if written is None:
                    select.select([], [self], [])
                done += written or 0
            except OSError as error:
                self._lost = True
                if not self._told:
                    break
                if isinstance(error, BrokenPipeError):
                    raise ReaderGoneError("whoever read standard output has gone") from error
                raise LostOutputError(
                    f"standard output cannot be written: {error.strerror or error}"
                ) from error
        return len(view)


def watch_streams() -> None:
    """From here on a full or closed standard output raises ``LostOutputError``, and standard error
    is written to where it can be."""
    _fill_gaps()
    # Elsewhere, as in tests, they are somebody else's.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _watched(sys.stdout, 1, told=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _watched(sys.stderr, 2, told=False)


def _watched(stream: TextIO | None, descriptor: int, *, told: bool) -> TextIO:
    encoding, lines = "utf-8", False
    if stream is not None:
        stream.flush()
        encoding = stream.encoding
        lines = bool(stream.line_buffering or getattr(stream, "write_through", False))
    return io.TextIOWrapper(
        io.BufferedWriter(_Watched(descriptor, told=told)),
        encoding=encoding,
        errors="replace",  # a report must not die of a narrow encoding
        line_buffering=lines,
    )


def _fill_gaps() -> None:
    """Where a standard stream was closed, the next file to be opened would take its place, and be
    written to by whatever prints."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def flush_output() -> None:
    """Raises ``LostOutputError``."""
    if sys.stdout is not None:
        sys.stdout.flush()


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise ``EndedError``: what was begun is cleaned up.

    A signal that is ignored (``nohup``) stays so.
    """
    before = {}
    hook = sys.unraisablehook
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _end)
        sys.unraisablehook = _send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def let_ctrl_c_interrupt() -> None:
    """Polars, once it is imported, has the system begin an interrupted read anew: Ctrl-C would not
    end a command that waits for a pipe."""
    if hasattr(signal, "siginterrupt"):  # Windows has none
        signal.siginterrupt(signal.SIGINT, True)


def _end(number: int, _frame: FrameType | None) -> None:
    raise EndedError(signal.Signals(number).name)


def _send_again(lost: sys.UnraisableHookArgs) -> None:
    """Where a signal finds a destructor or a weak reference's callback at work, Python drops what
    it raises there, and would go on."""
    if isinstance(lost.exc_value, EndedError):
        number = signal.Signals[str(lost.exc_value)]
    elif isinstance(lost.exc_value, KeyboardInterrupt):
        number = signal.SIGINT
    else:
        sys.__unraisablehook__(lost)
        return
    # Not from here, which Python calls in the same place.
    again = threading.Timer(_SOON_SECONDS, signal.raise_signal, [number])
    again.daemon = True
    again.start()
