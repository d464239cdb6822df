"""A gate in GitHub Actions: annotations as workflow commands, and the summary of the step."""

from __future__ import annotations

from audit.errors import ExitCode
from audit.gate.result import GateResult, HoldKind
from audit.report import gate_words as words
from audit.report.gate_markdown import to_markdown
from audit.report.github import SUMMARY_BYTES_LIMIT, scans_to_annotations
from audit.report.safe_text import shorten, strip_unsafe
from detectors.finding import Severity

_SHOWN_CHARACTERS = 1000


def to_annotations(result: GateResult) -> str:
    """One annotation for the gate, then those of the scans, one a line.

    The gate's is an error if it holds, and a warning if something undecided passes; it says what
    the scans' own do not: which budget was exceeded and why a data set was not read.
    """
    if result.exit_code is not ExitCode.OK:
        severity, command = Severity.ERROR, "error"
    elif words.undecided(result):
        severity, command = Severity.WARNING, "warning"
    else:
        severity, command = Severity.NOTE, "notice"
    said = [
        f"{decision.name}: {hold.message}"
        for decision in result.sets
        for hold in decision.holds
        if hold.kind is not HoldKind.FINDING
    ]
    text = " ".join([f"{words.verdict_words(result)}.", words.headline(result), "; ".join(said)])
    text = shorten(strip_unsafe(text.rstrip()), _SHOWN_CHARACTERS)[0].replace("%", "%25")
    # Without a scan theirs would be a warning that nothing was decided, which is the gate's to say.
    others = scans_to_annotations(result.scans, after=severity) if result.scans else ""
    return f"::{command} title=subliminal-audit gate::{text}\n{others}"


def to_summary(result: GateResult) -> str:
    """``result`` for the file $GITHUB_STEP_SUMMARY, of at most 1,000,000 bytes."""
    return to_markdown(
        result, limit=SUMMARY_BYTES_LIMIT, size=lambda text: len(text.encode("utf-8"))
    )
