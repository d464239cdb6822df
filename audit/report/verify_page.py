"""A verification as one self-contained page (see `audit.report.page`)."""

from __future__ import annotations

from audit.report import verify_words as words
from audit.report.page import render_page
from audit.report.verify_plots import answer_figure, question_figures, share_figure, shift_figure
from audit.verify.result import VerifyResult


def to_html(result: VerifyResult, *, receipt: str = "", command: str = "audit verify") -> bytes:
    """The page as UTF-8: the verdict, plots of every arm, the figures, and how they were measured.

    ``receipt`` is what was done to the data, as plain text; ``command`` is what wrote the page.

    Equal results give equal bytes. Raises ``MissingExtraError`` without the extra ``report``.
    """
    return render_page(
        "verify_page",
        {
            "result": result,
            "receipt": receipt,
            "command": command,
            "words": words,
            "verdict_class": f"verdict {result.verdict.transfer.name.lower().replace('_', '-')}",
            "share": share_figure(result),
            "shift": shift_figure(result),
            "by_question": question_figures(result),
            "answers": answer_figure(result),
        },
    )
