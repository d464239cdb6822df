"""What a model-based detector is given beside the library and the test's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detectors.first_order import Student
from detectors.model_rows import ReadProgress, RowReader
from signatures.concept import Concept
from signatures.language_model import LanguageModel

ModelProgress = Callable[[str, int, int], None]
"""Called with (what is being done, rows done, rows wanted)."""


def _silent(_what: str, _done: int, _wanted: int) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How much of the data the model reads. All of it is random rows.

    ``most_rows``: at most this many rows of the data, and of the reference each. ``sequential``:
    stop reading as soon as every question is decided, and with ``stop_at_persona`` as soon as it
    is certain that some persona wrote the rows, though not yet which. ``most_tokens``: longer
    completions are read up to here. ``seed`` draws the rows.
    """

    most_rows: int = 1024
    sequential: bool = True
    stop_at_persona: bool = False
    most_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a count below 1."""
        for name in ("most_rows", "most_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


class ModelAccess:
    """The model that is to be fine-tuned, or that stands for it.

    ``student`` takes first-order training steps; None where the backend has no gradients.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        student: Student | None = None,
        settings: ModelSettings | None = None,
        progress: ModelProgress = _silent,
    ) -> None:
        """Nothing is read yet."""
        self.model = model
        self.student = student
        self.settings = settings or ModelSettings()
        self.progress = progress
        self._reader: tuple[tuple[Concept, ...], RowReader] | None = None

    def reader(self, concepts: tuple[Concept, ...]) -> RowReader:
        """The one reader of rows under ``concepts``: what one detector read, another has."""
        if self._reader is None or self._reader[0] != concepts:
            self._reader = concepts, RowReader(self.model, concepts, self.settings.most_tokens)
        return self._reader[1]

    def show(self, what: str) -> ReadProgress:
        """Progress of ``what``, for a reader."""
        return lambda done, wanted: self.progress(what, done, wanted)
