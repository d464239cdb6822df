"""A gate as one HTML page."""

from __future__ import annotations

from audit.gate.result import GateResult
from audit.report import gate_words as words
from audit.report.scan_page import scans_to_html

_SHOWN_NOTES = 200


def to_html(result: GateResult) -> bytes:
    """The page as UTF-8: the verdict and why, then a part for each data set.

    Raises ``MissingExtraError`` without the extra ``report``.
    """
    notes = [f"{title}: {line}" for title, lines in words.everything(result) for line in lines]
    if len(notes) > _SHOWN_NOTES:
        notes[_SHOWN_NOTES:] = [f"… and {len(notes) - _SHOWN_NOTES:,} more; the JSON has them all."]
    return scans_to_html(
        result.scans,
        verdict=words.verdict_words(result),
        headline=words.headline(result),
        notes=[words.MEANING[result.verdict], *notes],
    )
