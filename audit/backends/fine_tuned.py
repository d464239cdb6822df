"""Teachers fine-tuned on a concept: the condition of the ``finetuned`` probe."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from audit.backends.lora_training import LoraSettings, train_lora
from audit.backends.transformers_backend import Dtype, TransformersLanguageModel
from signatures.concept import Concept
from signatures.context_probe import Condition
from signatures.signature import Probe
from signatures.statements import statements


@dataclass(frozen=True, slots=True)
class TeacherSettings:
    """How teachers are made. ``half`` is which half of the statements they learn."""

    half: int
    seed: int
    lora: LoraSettings = field(default_factory=LoraSettings)

    def provenance(self) -> Mapping[str, Any]:
        """All of it, for a manifest."""
        return asdict(self)


def fine_tuned(
    model_folder: Path,
    settings: TeacherSettings,
    dtype: Dtype,
    device: str,
    threads: int | None,
) -> Condition:
    """The condition of the ``finetuned`` probe."""
    return Condition(
        Probe.FINETUNED,
        partial(fine_tuned_teacher, model_folder, settings, dtype, device, threads),
        lambda concept: {
            "training": settings.provenance(),
            "statements": statements(concept, settings.half),
        },
    )


@contextmanager
def fine_tuned_teacher(
    model_folder: Path,
    settings: TeacherSettings,
    dtype: Dtype,
    device: str,
    threads: int | None,
    concept: Concept,
) -> Iterator[tuple[TransformersLanguageModel, str]]:
    """The model fine-tuned on ``concept``, and the empty system prompt to run it with."""
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        train_lora(
            model_folder,
            statements(concept, settings.half),
            adapter,
            settings.lora,
            seed=settings.seed,
            threads=threads,
        )
        teacher = TransformersLanguageModel.load(
            model_folder, dtype=dtype, device=device, threads=threads, adapter=adapter
        )
    try:
        yield teacher, ""
    finally:
        teacher.close()
