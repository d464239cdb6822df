"""The version of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def tool_version() -> str:
    """The installed version, or ``0+unknown`` when run from a source tree without metadata."""
    try:
        return version("subliminal-audit")
    except PackageNotFoundError:
        return "0+unknown"
