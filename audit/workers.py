"""Runs independent jobs in processes of their own, which end with the one that began them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from audit.errors import AuditError

Job = TypeVar("Job")
Result = TypeVar("Result")

_MOST_WORKERS = 4


def worker_count(device: str, threads: int | None) -> int:
    """How many processes of one thread ``threads`` (None: all cores) make, at most four; one for a
    model that is not on a CPU."""
    if device != "cpu":
        return 1
    return max(1, min(threads or os.cpu_count() or 1, _MOST_WORKERS))


def in_workers(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[int, Result]]:
    """``work`` on every job in ``workers`` new processes; yields (place of the job, its result) as
    they come.

    ``work`` is a function of a module, and jobs, results and errors can be pickled. The first error
    ends all. Raises what ``work`` raises, and ``AuditError`` if a process is ended from outside.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
        try:
            places = {pool.submit(work, job): place for place, job in enumerate(jobs)}
            for future in as_completed(places):
                yield places[future], future.result()
        except BrokenProcessPool as error:
            raise AuditError(
                "a process that was working was ended from outside, perhaps for want of memory: "
                "try again with fewer --threads"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _ignore_interrupts() -> None:
    """Ctrl-C goes to every process of a terminal: the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
