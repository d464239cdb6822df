"""Ray, started here or found elsewhere: quiet, without reports to its makers, and gone when done.

All that the other modules of Ray's engine know of a cluster is here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit.errors import AuditError, MissingExtraError, one_line

MOST_RETRIES = 2
"""How often Ray begins a piece of work again whose worker died."""

# Results wait here for the one who merges. It is only taken as far as it is used; where the
# machine's shared memory is smaller, Ray uses a file.
_OBJECT_STORE_BYTES = 256 << 20
# A path of a socket holds 107 bytes, of which Ray needs about 64 below this folder.
_LONGEST_TEMPORARY = 40


@contextmanager
def ray_cluster(address: str | None, cpus: int) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at ``address``.

    Without one, a Ray of ``cpus`` CPUs is started on this machine and ended afterwards. A process
    that is connected already stays so. Raises ``MissingExtraError`` if Ray is not installed, and
    ``AuditError`` where no cluster answers, or one of another version of Ray or Python.
    """
    ray = _import_ray()
    if ray.is_initialized():
        with _without_chatter():
            yield ray
        return
    temporary: Path | None = None
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with _without_chatter(), _without_reports():
            try:
                if address is None:
                    temporary = _temporary_folder()
                    ray.init(
                        address="local",
                        num_cpus=cpus,
                        include_dashboard=False,
                        object_store_memory=_OBJECT_STORE_BYTES,
                        _temp_dir=str(temporary),
                        _system_config=_OWN_CLUSTER,
                        **_QUIETLY,
                    )
                else:
                    ray.init(address=address, **_QUIETLY)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                where = "here" if address is None else f"at {address}"
                raise AuditError(f"Ray {where} cannot be used: {one_line(error)}") from error
            try:
                yield ray
            finally:
                ray.shutdown()
    finally:
        # Ray takes SIGTERM for itself, and a Ray of our own leaves its logs.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


_OWN_CLUSTER = {
    # Without a bound, what does not fit into memory is begun for ever.
    "task_oom_retries": MOST_RETRIES,
    # Ray's workers give way to all else (15), so that a busy machine hardly scans at all.
    "worker_niceness": 0,
}

_QUIETLY = {
    "configure_logging": True,
    "logging_level": logging.CRITICAL,
    "log_to_driver": False,
}


@contextmanager
def worker_errors(unread: str) -> Iterator[None]:
    """Raises what a worker raised; if it died, `WorkerDiedError` that says ``unread``."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, AuditError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        raise WorkerDiedError(type(error).__name__, unread) from error


class WorkerDiedError(AuditError):
    """Work that was begun as often as may be, and ended every worker that took it."""

    def __init__(self, kind: str, unread: str) -> None:
        """``kind`` is Ray's name for what happened, ``unread`` what is missing now, in words."""
        self.kind = kind
        want = "" if "Memory" in kind else "perhaps for want of memory: "
        super().__init__(f"Ray lost a worker {MOST_RETRIES + 1} times ({kind}), {want}{unread}")


def go_to(folder: str) -> None:
    """Make relative names of the one who asks mean the same in a worker. Raises ``AuditError``."""
    try:
        if str(Path.cwd()) != folder:
            os.chdir(folder)
    except OSError as error:
        raise AuditError(
            f"{folder}: a worker of the cluster has no such folder: all machines must see the data "
            "under the same names"
        ) from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("--engine ray", error.name or "ray", "ray") from error
    return ray


def _temporary_folder() -> Path:
    folder = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="audit-ray-", dir=folder if len(folder) < 20 else "/tmp"))


@contextmanager
def _without_reports() -> Iterator[None]:
    """Ray reports its use to its makers unless it is told not to."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("RAY_USAGE_STATS_ENABLED", None)
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = before


class _OthersOnly:
    """A stream that takes nothing from Ray's own threads."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Ray prints that a worker died, and what it does about it, on standard output: in the midst
    of a report."""
    with (
        contextlib.redirect_stdout(_OthersOnly(sys.stdout)),
        contextlib.redirect_stderr(_OthersOnly(sys.stderr)),
    ):
        yield
