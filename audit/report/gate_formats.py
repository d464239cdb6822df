"""The table of formats that a gate writes; renderers are imported when first used."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from audit.errors import UsageError
from audit.gate.result import GateResult
from audit.report.formats import ending_of, load_named, rendered_by


@dataclass(frozen=True, slots=True)
class GateFormat:
    """A format: the file endings that ask for it, and ``module:function`` of its renderer, which
    takes the gate's result, or where ``of_scans`` its scans.

    ``checked`` names in the same way what raises ``AuditError`` where the renderer could not run.
    """

    endings: tuple[str, ...]
    renderer: str
    of_scans: bool = False
    checked: str = ""

    def check(self) -> None:
        """Say before long scans what could not be written after them."""
        if self.checked:
            load_named(self.checked)()

    def render(self, result: GateResult) -> bytes:
        """``result`` in this format, text as UTF-8."""
        # Names of files are relative to the root, whatever folder the gate was called from.
        with contextlib.chdir(result.config.root):
            return rendered_by(self.renderer, result.scans if self.of_scans else result)


GATE_FORMATS: dict[str, GateFormat] = {
    "terminal": GateFormat((".txt",), "audit.report.gate_terminal:to_text"),
    "json": GateFormat((".json",), "audit.report.gate_json:to_json"),
    "sarif": GateFormat((".sarif", ".sarif.json"), "audit.report.sarif:scans_to_sarif", True),
    "junit": GateFormat((".xml",), "audit.report.junit:scans_to_junit", True),
    "markdown": GateFormat((".md",), "audit.report.gate_markdown:to_markdown"),
    "html": GateFormat(
        (".html", ".htm"),
        "audit.report.gate_page:to_html",
        checked="audit.report.page:check_can_draw",
    ),
}


def gate_format_of(path: Path) -> GateFormat:
    """The format that the ending of ``path`` asks for, whatever its case.

    The longest ending wins: ``x.sarif.json`` is SARIF. Raises ``UsageError`` naming the endings.
    """
    endings = {ending: f for f in GATE_FORMATS.values() for ending in f.endings}
    if ending := ending_of(path, endings):
        return endings[ending]
    known = ", ".join(endings)
    raise UsageError(f"cannot tell the format of '{path}' from its ending; known are {known}")
