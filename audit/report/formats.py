"""The table of report formats, and writing a result in several of them.

Renderers are named here and imported when first used: a JSON report never loads rich.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.atomic import atomic_write
from audit.errors import AuditError, UsageError
from audit.scan_result import ScanResult


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the file endings that ask for it, and ``module:function`` of its renderer.

    Without an ending it is for standard output only. ``check`` names in the same way what raises
    ``AuditError`` where the renderer could not run.
    """

    endings: tuple[str, ...]
    renderer: str
    check: str = ""

    def render(self, result: ScanResult) -> bytes:
        """``result`` in this format, text as UTF-8."""
        return rendered_by(self.renderer, result)


def rendered_by(renderer: str, result: Any) -> bytes:
    """What the renderer ``module:function`` makes of ``result``, text as UTF-8."""
    render: Callable[[Any], bytes | str] = load_named(renderer)
    rendered = render(result)
    return rendered if isinstance(rendered, bytes) else rendered.encode("utf-8")


def load_named(name: str) -> Any:
    """The function ``module:function``, which is imported now."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


FORMATS: dict[str, Format] = {
    "terminal": Format((".txt",), "audit.report.terminal:to_text"),
    "json": Format((".json",), "audit.report.json_report:to_json"),
    "sarif": Format((".sarif", ".sarif.json"), "audit.report.sarif:to_sarif"),
    "markdown": Format((".md",), "audit.report.markdown:to_markdown"),
    "junit": Format((".junit.xml", ".xml"), "audit.report.junit:to_junit"),
    "github": Format((), "audit.report.github:to_annotations"),
    "html": Format(
        (".html", ".htm"), "audit.report.scan_page:to_html", "audit.report.page:check_can_draw"
    ),
}


def format_for_path(path: Path) -> str:
    """The name of the format that the ending of ``path`` asks for, whatever its case.

    The longest ending wins: ``x.sarif.json`` is SARIF. Raises ``UsageError`` naming the endings.
    """
    endings = {ending: key for key, format_ in FORMATS.items() for ending in format_.endings}
    if ending := ending_of(path, endings):
        return endings[ending]
    known = ", ".join(f"{ending} ({key})" for ending, key in endings.items())
    raise UsageError(f"cannot tell the format of '{path}' from its ending; known are {known}")


def ending_of(path: Path, endings: Iterable[str]) -> str | None:
    """The longest of ``endings`` that ``path`` has, whatever its case."""
    name = path.name.lower()
    return max(filter(name.endswith, endings), key=len, default=None)


def check_formats(names: Iterable[str]) -> None:
    """Say before a long scan what could not be written after it.

    Raises ``MissingExtraError`` for a format whose optional packages are not installed.
    """
    for name in sorted(set(names)):
        if FORMATS[name].check:
            load_named(FORMATS[name].check)()


def write_outputs(result: ScanResult, outputs: Sequence[tuple[str, Path]]) -> None:
    """Write ``result`` to each (format name, path), each file whole or not at all.

    Everything is rendered before the first file is touched. Raises ``UsageError`` for an unknown
    format or a path given twice, ``AuditError`` if a file cannot be written.
    """
    targets: set[Path] = set()
    for name, path in outputs:
        if name not in FORMATS:
            raise UsageError(f"unknown report format '{name}'; known are {', '.join(FORMATS)}")
        if path.resolve() in targets:
            raise UsageError(f"two reports would go to '{path}'")
        targets.add(path.resolve())
    rendered = [(path, FORMATS[name].render(result)) for name, path in outputs]
    for path, data in rendered:
        try:
            atomic_write(path, data)
        except OSError as error:
            reason = error.strerror or error
            raise AuditError(f"cannot write the report '{path}': {reason}") from error
