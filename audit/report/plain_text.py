"""A report for a terminal as text alone."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType


def to_plain_text(report: RenderableType, width: int = 100) -> str:
    """``report`` without styles, ``width`` columns wide, with no spaces at the ends of lines."""
    stream = io.StringIO()
    # Every setting is given: the text must not depend on the environment's colours or columns.
    console = Console(
        file=stream,
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        no_color=True,
        _environ={},
    )
    console.print(report)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"
