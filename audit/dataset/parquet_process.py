"""Parquet files read by a process of their own, so that no damage in them ends this one.

The native reader aborts on some damage inside pages: it allocates what a corrupt length asks for.
Nothing in a process can outlive that, and no look at the file beforehand tells it. So another
process reads, and gives frames back; where it ends, the file is broken at that place, and the files
after it are read all the same.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl

from audit.dataset.faults import SourceBreak

FRAME, LONG_ROW, BROKEN, DONE = b"F", b"L", b"B", b"D"
HEADER = struct.Struct("<cQ")
"""Kind of an answer, and the bytes that follow."""

# Not from the working folder, where the data lie, and anybody's modules beside them.
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from audit.dataset.parquet_reader import serve; serve()"
)
_MOST_IDLE = 2


class ReaderDiedError(Exception):
    """The process ended in the middle of a file; the message says how."""


class _Reader:
    """One process, which reads one file after another."""

    def __init__(self) -> None:
        path = json.dumps([entry for entry in sys.path if entry])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # panics of native code tell their whole stack
        )

    def answers(self, request: dict[str, object]) -> Iterator[tuple[bytes, bytes]]:
        """Answers up to the last. Raises ``ReaderDiedError``."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except OSError:
            raise self._died() from None
        while True:
            header = stdout.read(HEADER.size)
            if len(header) < HEADER.size:
                raise self._died()
            kind, size = HEADER.unpack(header)
            payload = stdout.read(size)
            if len(payload) < size:
                raise self._died()
            yield kind, payload
            if kind in (BROKEN, DONE):
                return

    def _died(self) -> ReaderDiedError:
        code = self._process.wait()
        return ReaderDiedError(f"signal {-code}" if code < 0 else f"exit code {code}")

    def end(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was written to a process that ended
                if pipe is not None:
                    pipe.close()
        self._process.wait()


# By process: one that was forked must not talk to the readers of the other.
_idle: dict[int, list[_Reader]] = {}


@atexit.register
def _end_idle() -> None:
    for reader in _idle.pop(os.getpid(), []):
        reader.end()


def read_in_process(
    path: Path, columns: frozenset[str] | None, max_line_bytes: int
) -> Iterator[pl.DataFrame | None]:
    """The frames of `audit.dataset.parquet_reader.parquet_frames`; None for a row too long to hold.

    Raises ``SourceBreak`` where the file is corrupt or ends its reader, after the rows before.
    """
    request: dict[str, object] = {
        "path": str(path.absolute()),
        "columns": None if columns is None else sorted(columns),
        "max_line_bytes": max_line_bytes,
    }
    done_rows = 0
    how = ""
    # The first reader reads ahead, and may end before rows that another one, which does not, reads.
    for in_order in (False, True):
        reader = None
        is_idle = False
        try:
            idle = _idle.setdefault(os.getpid(), [])
            reader = idle.pop() if idle else _Reader()
            asked = {**request, "done_rows": done_rows, "in_order": in_order}
            for kind, payload in reader.answers(asked):
                is_idle = kind in (BROKEN, DONE)
                if kind == BROKEN:
                    raise SourceBreak(*json.loads(payload))
                if kind == DONE:
                    return
                frame = pl.read_ipc_stream(io.BytesIO(payload)) if kind == FRAME else None
                done_rows += 1 if frame is None else frame.height
                yield frame
        except ReaderDiedError as error:
            how = str(error)
        except OSError as error:
            raise SourceBreak(f"cannot be read: no process for it: {error}") from error
        finally:
            if reader is not None:
                if is_idle and len(idle) < _MOST_IDLE:
                    idle.append(reader)
                else:
                    reader.end()
    raise SourceBreak(f"is corrupt: it ends the process that reads it ({how})", done_rows + 1)
