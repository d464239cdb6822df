"""Exit codes, and the errors that the command line turns into one clear line each."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Stable exit codes of every ``audit`` command."""

    OK = 0
    FINDINGS = 1
    FAILED = 2
    NOTHING_SCANNABLE = 3
    USAGE = 4


class AuditError(Exception):
    """An expected failure. ``str(error)`` is one line: what is wrong and what to do."""

    exit_code = ExitCode.FAILED


class UsageError(AuditError):
    """The command was asked for something it cannot mean."""

    exit_code = ExitCode.USAGE


class NothingScannableError(AuditError):
    """No row of the input could be read."""

    exit_code = ExitCode.NOTHING_SCANNABLE


class MissingExtraError(AuditError):
    """A command needs an optional dependency that is not installed."""

    exit_code = ExitCode.USAGE

    def __init__(self, what: str, package: str, extra: str) -> None:
        """``what`` needs ``package``, which comes with the distribution's ``extra``."""
        self._parts = what, package, extra
        super().__init__(
            f"{what} needs the package '{package}': "
            f"install it with  pip install 'subliminal-audit[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """An error may come from another process."""
        return MissingExtraError, self._parts


def one_line(error: Exception) -> str:
    """What ``error`` says, in a line of at most 300 characters; its type where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
