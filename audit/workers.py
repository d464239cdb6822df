"""Runs independent jobs in processes of their own, which end with the one that began them."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from operator import itemgetter
from typing import TypeVar

from audit.errors import AuditError

Job = TypeVar("Job")
Result = TypeVar("Result")

_MOST_WORKERS = 4
_THREADS_OF = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
# One at work and one at hand: nobody waits, and what is big is not piled up.
_JOBS_A_WORKER = 2


def worker_count(device: str, threads: int | None) -> int:
    """How many processes of one thread ``threads`` (None: all cores) make, at most four; one for a
    model that is not on a CPU."""
    if device != "cpu":
        return 1
    return max(1, min(threads or os.cpu_count() or 1, _MOST_WORKERS))


def in_workers(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    unfinished: Callable[[Sequence[Job]], str] = lambda _jobs: "nothing was decided",
    option: str = "--threads",
) -> Iterator[tuple[int, Result]]:
    """``work`` on every job in ``workers`` new processes; yields (place of the job, its result) as
    they come. Jobs are taken as they are needed, so that there may be more than fit into memory.

    ``work`` is a function of a module, and jobs, results and errors can be pickled. The first error
    ends all. Raises what ``work`` raises, and ``AuditError`` if a process is ended from outside: it
    says ``unfinished`` of the jobs that were begun or, in a sequence, wait, and which ``option``
    makes fewer processes.
    """
    waiting = enumerate(jobs)
    begun: dict[Future[Result], tuple[int, Job]] = {}
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, initializer=_begin) as pool:
        try:
            while True:
                for place, job in islice(waiting, _JOBS_A_WORKER * workers - len(begun)):
                    begun[pool.submit(work, job)] = place, job
                if not begun:
                    return
                for future in wait(begun, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    place, _ = begun.pop(future)
                    yield place, result
        except BrokenProcessPool as error:
            missing = [job for _, job in sorted(begun.values(), key=itemgetter(0))]
            if isinstance(jobs, Sequence):
                missing += (job for _, job in waiting)
            raise AuditError(
                "a process that was working was ended from outside, perhaps for want of memory; "
                f"{unfinished(missing)}: try again with fewer {option}"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _begin() -> None:
    """What every process does first."""
    # Processes share the cores out already; these are read when the libraries are first imported.
    for variable in _THREADS_OF:
        os.environ.setdefault(variable, "1")
    # Ctrl-C goes to every process of a terminal: the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """The queue of jobs never closes where the first process is killed: its readers also hold the
    other end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
