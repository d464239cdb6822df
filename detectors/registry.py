"""Which detectors there are: an explicit table, loaded when one is asked for.

Outside detectors join through the entry-point group ``subliminal_audit.detectors``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from detectors.detector import Detector, TestSettings
from detectors.model_access import ModelAccess
from signatures.library import SignatureLibrary

ENTRY_POINT_GROUP = "subliminal_audit.detectors"

_BUILT_IN = {
    "mention": "detectors.mention:MentionDetector",
    "frequency": "detectors.frequency:FrequencyDetector",
}

_MODEL_BASED = {
    "likelihood": "detectors.likelihood:LikelihoodDetector",
    "divergence": "detectors.divergence:DivergenceDetector",
    "transfer": "detectors.transfer:TransferDetector",
}

DetectorFactory = Callable[[SignatureLibrary, TestSettings], Detector[Any]]
ModelDetectorFactory = Callable[[SignatureLibrary, TestSettings, ModelAccess], Detector[Any]]


def detector_names() -> tuple[str, ...]:
    """Names of the detectors that need no model: built-in ones first, then outside ones by name."""
    outside = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_BUILT_IN, *sorted(outside - set(_BUILT_IN)))


def detector_factory(name: str) -> DetectorFactory:
    """The constructor of detector ``name``. Raises ``KeyError`` for a name that nobody has."""
    if name in _BUILT_IN:
        factory: DetectorFactory = _loaded(_BUILT_IN[name])
        return factory
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: DetectorFactory = point.load()
        return loaded
    raise KeyError(name)


def model_detector_names() -> tuple[str, ...]:
    """Names of the detectors that read rows with a model, in the order in which they run."""
    return tuple(_MODEL_BASED)


def model_detector_factory(name: str) -> ModelDetectorFactory:
    """The constructor of model-based detector ``name``. Raises ``KeyError`` for another name."""
    factory: ModelDetectorFactory = _loaded(_MODEL_BASED[name])
    return factory


def _loaded(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(import_module(module), attribute)
