"""Which detectors there are: an explicit table, loaded when one is asked for.

Outside detectors join through the entry-point group ``subliminal_audit.detectors``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from detectors.detector import Detector, TestSettings
from signatures.library import SignatureLibrary

ENTRY_POINT_GROUP = "subliminal_audit.detectors"

_BUILT_IN = {
    "mention": "detectors.mention:MentionDetector",
    "frequency": "detectors.frequency:FrequencyDetector",
}

DetectorFactory = Callable[[SignatureLibrary, TestSettings], Detector[Any]]


def detector_names() -> tuple[str, ...]:
    """Every detector's name: built-in ones first, then outside ones by name."""
    outside = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(outside - set(_BUILT_IN)))


def detector_factory(name: str) -> DetectorFactory:
    """The constructor of detector ``name``. Raises ``KeyError`` for a name that nobody has."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        factory: DetectorFactory = getattr(import_module(module), attribute)
        return factory
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: DetectorFactory = point.load()
        return loaded
    raise KeyError(name)
