"""The one way in which text from data becomes text for a terminal."""

from __future__ import annotations

from rich.text import Text

from audit.report.safe_text import strip_unsafe


def safe(text: str, style: str = "") -> Text:
    """``text`` without control and bidi characters."""
    # The style is a span of its own: a base style would also hold for what is appended.
    return Text().append(strip_unsafe(text), style=style)
