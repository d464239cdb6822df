"""A whole run in one report: what was done to the data, then whether the trait still transfers."""

from __future__ import annotations

import json

from rich.console import Group, RenderableType
from rich.text import Text

from audit.errors import UsageError
from audit.report import receipt_terminal, verify_terminal
from audit.report.plain_json import to_plain_json
from audit.report.plain_text import to_plain_text
from audit.report.receipt_json import render_receipt
from audit.report.safe_text import strip_unsafe
from audit.report.verify_json import render_verification
from audit.report.verify_page import to_html
from audit.whole_run import RunResult

SCHEMA = "subliminal-audit/run"
SCHEMA_VERSION = 1
_PAGE_COLUMNS = 100


def render(result: RunResult) -> RenderableType:
    """For a terminal."""
    return Group(receipt_terminal.render(result.receipt), _verification(result))


def _verification(result: RunResult) -> RenderableType:
    if result.verification is not None:
        return verify_terminal.render(result.verification)
    return Text(f"\nNot verified: {strip_unsafe(result.not_verified)}.", style="yellow")


def render_run(result: RunResult) -> bytes:
    """For programs: ``receipt`` and ``verification`` are the documents of `audit sanitise` and
    `audit verify`; ``verification`` is null where ``not_verified`` says why."""
    found = result.verification
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "receipt": json.loads(render_receipt(result.receipt)),
        "verification": None if found is None else json.loads(render_verification(found)),
        "not_verified": result.not_verified,
    }
    return to_plain_json(document).encode("ascii")


def run_to_html(result: RunResult) -> bytes:
    """One page. Raises ``UsageError`` where nothing was verified: its plots are of students."""
    if result.verification is None:
        raise UsageError(f"no page was written, as nothing was verified: {result.not_verified}")
    receipt = to_plain_text(receipt_terminal.render(result.receipt), _PAGE_COLUMNS)
    return to_html(result.verification, receipt=receipt, command="audit run")
