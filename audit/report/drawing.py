"""Draws Vega-Lite charts as small, inert SVG and as PNG: no browser, no network, no script.

Colours carry meaning only beside shape, position or text, and the colour-blind tell them apart. A
page may restyle the greys below by their values, for a dark screen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from audit.errors import MissingExtraError

INK = "#1f2a36"
MUTED = "#5b6875"
FAINT = "#dde2e7"
CLOUD = "#aab5c0"
RAISED = "#0f66b0"
LOWERED = "#b4540a"
HUB = "#7a3e9d"
"""Blue, orange and purple of about equal lightness, 4.5 to 1 or better on white."""

Chart = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""

_VEGA_LITE = "https://vega.github.io/schema/vega-lite/v6.json"  # a name: nothing is fetched
_THEME: dict[str, Any] = {
    "background": None,
    "font": "Liberation Sans, Helvetica, Arial, sans-serif",
    "axis": {
        "domainColor": MUTED,
        "gridColor": FAINT,
        "labelColor": MUTED,
        "labelFontSize": 11,
        "tickColor": MUTED,
        "titleColor": INK,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "legend": {"labelColor": INK, "labelFontSize": 11, "orient": "top", "title": None},
    "title": {"anchor": "start", "color": INK, "fontSize": 13},
    "view": {"stroke": None},
    "padding": 6,
}
_PNG_SCALE = 2.0
_PNG_PIXELS_LIMIT = 36e6
_SVG = "http://www.w3.org/2000/svg"
_FOR_SCRIPTS = {"role", "class", "pointer-events"}
_COORDINATES = {"d", "transform", "x", "y", "x1", "x2", "y1", "y2"}
_DEFAULTS = {
    ("opacity", "1"),
    ("stroke-width", "1"),
    ("font-weight", "normal"),
    ("x2", "0"),
    ("y2", "0"),
    ("transform", "translate(0,0)"),
    ("font-family", _THEME["font"]),  # stands on the root
}
_INHERITED = ("fill", "stroke", "stroke-width", "font-size", "text-anchor")
_LONG_NUMBER = re.compile(r"\d+\.\d{2,}")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure. ``description`` says in words what it shows.

    ``svg`` is an ``<svg>`` element without background, to stand inside a page.
    """

    svg: str
    description: str

    def to_svg(self) -> bytes:
        """The figure as a file of its own, on white."""
        start, rest = self.svg.split(">", 1)
        background = '<rect width="100%" height="100%" fill="#fff"/>'
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{start}>{background}{rest}\n'.encode()

    def to_png(self) -> bytes:
        """The figure as PNG on white, twice its size in points unless that is very many pixels."""
        root = ElementTree.fromstring(self.svg)
        points = float(root.attrib["width"]) * float(root.attrib["height"])
        scale = min(_PNG_SCALE, math.sqrt(_PNG_PIXELS_LIMIT / points))
        png: bytes = _renderer().svg_to_png(self.to_svg().decode(), scale=scale)
        return png


def draw(chart: Chart, description: str) -> Figure:
    """Draw a Vega-Lite chart. Texts in it must hold no control characters (``strip_unsafe``).

    Raises ``MissingExtraError`` without the extra ``report``.
    """
    spec = {"$schema": _VEGA_LITE, "config": _THEME, **chart}
    return Figure(_small_svg(_renderer().vegalite_to_svg(spec), description), description)


def _renderer() -> ModuleType:
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError("drawing", "vl-convert-python", "report") from error
    module: ModuleType = vl_convert
    return module


def plain_text(text: str) -> str:
    """``text`` without the few characters that no XML document may hold."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def _small_svg(svg: str, description: str) -> str:
    """The same drawing: coordinates to 0.1 point, equal paths joined, one description for all."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name.startswith("aria-") or name in _FOR_SCRIPTS or (name, value) in _DEFAULTS:
                del element.attrib[name]
            elif name in _COORDINATES:
                element.attrib[name] = _LONG_NUMBER.sub(_rounded, value)
    for element in reversed(list(root.iter())):  # parts before wholes
        _join_paths(element)
        _hoist(element)
    root.attrib |= {
        "role": "img",
        "aria-label": plain_text(description),
        "font-family": _THEME["font"],
    }
    return ElementTree.tostring(root, encoding="unicode")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _join_paths(group: ElementTree.Element) -> None:
    """Join neighbouring paths that differ only in their shape: a heat map has thousands."""
    last: ElementTree.Element | None = None
    for element in list(group):
        if element.tag != f"{{{_SVG}}}path":
            last = None
            continue
        if "fill" not in element.attrib and "stroke" not in element.attrib:
            group.remove(element)  # Vega's groups start with a background that nothing paints
        elif (
            last is not None and _style(last) == _style(element) and "transform" not in _style(last)
        ):
            last.attrib["d"] += element.attrib["d"]
            group.remove(element)
        else:
            last = element


def _hoist(group: ElementTree.Element) -> None:
    """Say once what all parts of a group say: only for properties that parts inherit."""
    if len(group) < 2:
        return
    for name in _INHERITED:
        values = {element.attrib.get(name) for element in group}
        if len(values) == 1 and None not in values and name not in group.attrib:
            group.attrib[name] = str(values.pop())
            for element in group:
                del element.attrib[name]


def _style(path: ElementTree.Element) -> dict[str, str]:
    return {name: value for name, value in path.attrib.items() if name != "d"}
