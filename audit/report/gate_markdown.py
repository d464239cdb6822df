"""A gate in Markdown: its verdict and why, then the report of every data set.

What comes from data and settings stands in one fenced block, whose fence is longer than any run of
backticks in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from audit.gate.result import GateResult, GateVerdict
from audit.report import gate_words as words
from audit.report.markdown import COMMENT_CHARACTERS_LIMIT, scans_to_markdown
from audit.report.safe_text import shorten, strip_unsafe

_SHOWN_LINES = 80
_SHOWN_CHARACTERS = 300

_ALERT = {
    GateVerdict.INCOMPLETE: "WARNING",
    GateVerdict.NOTHING_SCANNABLE: "WARNING",
    GateVerdict.HELD: "CAUTION",
    GateVerdict.PASSES: "NOTE",
    GateVerdict.NOT_SCANNED: "NOTE",
}


def to_markdown(
    result: GateResult,
    *,
    limit: int = COMMENT_CHARACTERS_LIMIT,
    size: Callable[[str], int] = len,
) -> str:
    """``result`` as Markdown whose ``size`` (default: in characters) is at most ``limit``: the
    gate's own part, which fits, then as much of the data sets' reports as does."""
    head = "\n".join(_lines(result)) + "\n"
    if not result.scans:
        return head
    return f"{head}\n{scans_to_markdown(result.scans, limit=limit - size(head) - 1, size=size)}"


def _lines(result: GateResult) -> Iterator[str]:
    yield f"# subliminal-audit gate: {words.verdict_words(result)}"
    yield ""
    yield f"> [!{_ALERT[result.verdict]}]"
    yield f"> **{words.headline(result)}**"
    yield f"> {words.MEANING[result.verdict]}"
    yield ""
    lines = [line for title, said in words.everything(result) for line in ("", f"{title}:", *said)]
    shown = [shorten(strip_unsafe(line), _SHOWN_CHARACTERS)[0] for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append("… the JSON report has the others.")
    runs = (len(run) for line in shown for run in re.findall("`+", line))
    fence = "`" * max(3, max(runs, default=0) + 1)
    yield f"{fence}text"
    yield from shown[1:]
    yield fence
