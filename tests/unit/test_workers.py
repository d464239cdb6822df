"""Work in processes of their own: results, errors, and ends."""

from __future__ import annotations

import os
import signal

import pytest

from audit.errors import AuditError, ExitCode, MissingExtraError
from audit.workers import in_workers, worker_count


def _double(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def _fail(number: int) -> int:
    if number == 1:
        raise MissingExtraError("this", "that", "models")
    return number


def _die(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_every_job_has_its_result_in_another_process():
    found = dict(in_workers(_double, [5, 6, 7], 2))
    assert {place: number for place, (number, _) in found.items()} == {0: 10, 1: 12, 2: 14}
    assert os.getpid() not in {process for _, process in found.values()}


def test_an_error_comes_as_it_was_raised():
    with pytest.raises(MissingExtraError, match=r"this needs .*that.*\[models\]") as caught:
        list(in_workers(_fail, range(4), 2))
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_process_that_is_ended_from_outside_is_an_error_and_no_wait():
    with pytest.raises(AuditError, match="ended from outside"):
        list(in_workers(_die, [0, 1], 2))


def test_processes_are_as_many_as_threads_on_a_cpu():
    assert worker_count("cpu", 1) == 1
    assert worker_count("cpu", 3) == 3
    assert worker_count("cpu", 64) == 4
    assert 1 <= worker_count("cpu", None) <= 4
    assert worker_count("cuda:0", 8) == 1
