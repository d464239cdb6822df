"""Self-contained pages: no script, no request, nothing unescaped.

Every text of a page passes ``strip_unsafe`` and HTML escaping on its way out, and the page's policy
allows one style sheet, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from typing import Any

from audit.errors import MissingExtraError
from audit.report.drawing import Figure
from audit.report.safe_text import strip_unsafe


def render_page(name: str, facts: Mapping[str, Any]) -> bytes:
    """The template ``name``.html.jinja beside this file, filled with ``facts``, as UTF-8.

    The template extends ``page.html.jinja``; ``name``.css follows ``page.css``. Raises
    ``MissingExtraError`` without the extra ``report``.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError("writing a page", "jinja2", "report") from error

    def made_safe(value: Any) -> Any:
        """Runs on every value before it is escaped; only drawings and the style are markup."""
        if isinstance(value, Figure):
            return Markup(value.svg)
        if isinstance(value, str) and not isinstance(value, Markup):
            return strip_unsafe(value)
        return value

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        finalize=made_safe,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _part("page.css") + _part(f"{name}.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template(f"{name}.html.jinja")
    return template.render(facts, style=Markup(style), style_sha256=digest).encode("utf-8")


def check_can_draw() -> None:
    """Raise ``MissingExtraError`` where a page could not be written: before hours of work."""
    for module, package in (("jinja2", "jinja2"), ("vl_convert", "vl-convert-python")):
        if find_spec(module) is None:
            raise MissingExtraError("writing a page", package, "report")


def _part(name: str) -> str:
    return (resources.files("audit.report") / name).read_text("utf-8")
