"""Models in Ray's actors that read the rows of a scan: one a GPU, or a CPU worker.

Every call of a `LanguageModel` goes to one actor as a whole, so that each forward pass holds the
very rows that it would in one process; a `RowReader` makes one call for each system prompt, which
are answered at once. The results are those of one process, to the last bit.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.backends.chat_encoder import ChatEncoder, load_chat_encoder
from audit.backends.first_order_student import TransformersStudent
from audit.backends.open_model import ModelChoice, Writer, open_model
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.backends.vllm_backend import default_model_len
from audit.engines.ray_cluster import MOST_RETRIES, worker_errors
from audit.errors import AuditError, UsageError
from detectors.first_order import Matrix, Reading, ReadingOrder, RowProgress, silent
from detectors.model_access import ModelAccess, ModelProgress, ModelSettings
from signatures.language_model import ModelIdentity, PrefixRequest, SequenceRequest, TokenIds

_UNREAD = "no row was read with the model: nothing was decided"


@contextmanager
def open_ray_access(
    ray: Any,
    workers: int,
    choice: ModelChoice | None,
    settings: ModelSettings,
    progress: ModelProgress,
) -> Iterator[ModelAccess | None]:
    """Access to the chosen model, run by at most ``workers`` actors of ``ray``; None without a
    choice.

    The actors are started with the first call: no GPU waits while data are read. Raises as
    `load_chat_encoder` does, and ``UsageError`` where no machine of the cluster has what one model
    needs.
    """
    if choice is None:
        yield None
        return
    choice = replace(choice, path=choice.path.resolve(), threads=_threads(choice))
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    placing = place_models(choice, machines, workers)
    encoder = load_chat_encoder(choice.path, dtype=choice.dtype, adapter=choice.adapter)
    if choice.backend == "vllm":
        encoder.longest = default_model_len(encoder) - 1
    model = RayLanguageModel(encoder, _Actors(ray, choice, placing))
    try:
        # As in one process: vLLM has no gradients.
        student = RayStudent(model) if choice.backend == "transformers" else None
        yield ModelAccess(model, student=student, settings=settings, progress=progress)
    finally:
        model.close()


def _threads(choice: ModelChoice) -> int | None:
    """As many as one process would use: sums of other threads may differ in the last bit."""
    if choice.threads is not None or choice.backend != "transformers":
        return choice.threads
    try:
        import torch
    except ImportError:
        return None  # loading the encoder tells what is missing
    return int(torch.get_num_threads())


def place_models(
    choice: ModelChoice, machines: Sequence[Mapping[str, float]], workers: int
) -> Placing:
    """What one model takes of a machine, and how many of at most ``workers`` there is room for.

    ``machines`` are Ray's resources of each. A model on a GPU, and one that vLLM runs where a
    machine has GPUs, has them for itself. Raises ``UsageError`` where it fits nowhere.
    """
    has_gpus = any(machine.get("GPU", 0) for machine in machines)
    if choice.device.startswith("cuda") or (choice.backend == "vllm" and has_gpus):
        each = choice.tensor_parallel
        room = sum(int(machine.get("GPU", 0)) // each for machine in machines)
        if not room:
            raise UsageError(
                f"no machine that Ray knows has {each} GPU{'s' * (each > 1)} to read rows with"
            )
        return Placing({"num_gpus": each, "num_cpus": 1}, min(workers, room))
    cpus = [int(machine.get("CPU", 0)) for machine in machines]
    each = max(1, min(choice.threads or 1, max(cpus, default=1)))
    room = sum(count // each for count in cpus)
    return Placing({"num_cpus": each}, max(1, min(workers, room)))


@dataclass(frozen=True, slots=True)
class Placing:
    """``count`` models, each with ``resources`` as `ray.remote` names them."""

    resources: Mapping[str, int]
    count: int


class RayLanguageModel(ChatEncoder):
    """A `LanguageModel` whose calls actors answer: each is sent when it is made, and waited for
    when its first result is asked for."""

    def __init__(self, encoder: ChatEncoder, actors: _Actors) -> None:
        """Texts become tokens here, by ``encoder``."""
        super().__init__(
            encoder.tokenizer, encoder.identity, encoder.end_of_turn_ids(), encoder.longest
        )
        self.actors = actors

    def next_token_log_probs(
        self, requests: Sequence[PrefixRequest], token_ids: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """See `LanguageModel`."""
        return self._answered("next_token_log_probs", list(requests), token_ids)

    def sequence_log_probs(
        self, requests: Sequence[SequenceRequest]
    ) -> Iterator[NDArray[np.float32]]:
        """See `LanguageModel`."""
        return self._answered("sequence_log_probs", list(requests))

    def restricted_log_probs(
        self, requests: Sequence[SequenceRequest], token_ids: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """See `LanguageModel`."""
        return self._answered("restricted_log_probs", list(requests), token_ids)

    def _answered(self, method: str, *arguments: Any) -> Iterator[NDArray[np.float32]]:
        actors = self.actors
        if not arguments[0]:
            return iter(())
        answer = actors.next(self.identity).score.remote(method, *arguments)

        def results() -> Iterator[NDArray[np.float32]]:
            yield from actors.get(answer)

        return results()

    def close(self) -> None:
        """End the actors. Calling it twice is harmless."""
        self.actors.end()


class RayStudent:
    """First-order steps of the model of one actor; see `detectors.first_order.Student`.

    The gradients of all rows meet those of the targets: there is nothing to part.
    """

    def __init__(self, model: RayLanguageModel) -> None:
        """Of a model that transformers runs."""
        self._model = model

    def read(self, order: ReadingOrder, progress: RowProgress = silent) -> _RayReading:
        """See `detectors.first_order.Student.read`."""
        actors = self._model.actors
        reading = _RayReading(actors, actors.next(self._model.identity), order)
        progress(len(order.rows), len(order.rows))
        return reading


class _RayReading:
    def __init__(self, actors: _Actors, actor: Any, order: ReadingOrder) -> None:
        self._actors = actors
        self._actor = actor
        self._order = actors.put(order)
        # A worker that was begun again has no gradients any more: the number tells it.
        self._number = uuid.uuid4().hex
        self.pulls: Matrix
        self.own_gains: Matrix
        self.pulls, self.own_gains = actors.get(
            actor.read_gradients.remote(self._number, self._order)
        )

    def word_rises(
        self, steps: Matrix, questions: Sequence[TokenIds], words: NDArray[np.int64]
    ) -> Matrix:
        """See `detectors.first_order.Reading.word_rises`."""
        rises: Matrix = self._actors.get(
            self._actor.word_rises.remote(self._number, self._order, steps, questions, words)
        )
        return rises


class _Actors:
    """Actors with a model each; ``started`` once the first is needed."""

    def __init__(self, ray: Any, choice: ModelChoice, placing: Placing) -> None:
        self._ray = ray
        self._choice = choice
        self._placing = placing
        self.started: list[Any] = []
        self._turn = 0

    def next(self, identity: ModelIdentity) -> Any:
        """The actor whose turn it is. Raises ``AuditError`` unless all have that model."""
        if not self.started:
            # Begun again when its process dies, and the call with it.
            actor = self._ray.remote(
                max_restarts=MOST_RETRIES, max_task_retries=MOST_RETRIES, **self._placing.resources
            )(_ModelActor)
            self.started = [actor.remote(self._choice) for _ in range(self._placing.count)]
            found = self.get([actor.identity.remote() for actor in self.started])
            if any(each != identity for each in found):
                raise AuditError(
                    f"{self._choice.path}: a machine of the cluster has another model there"
                )
        self._turn = (self._turn + 1) % len(self.started)
        return self.started[self._turn]

    def put(self, value: Any) -> Any:
        """``value``, to be sent once."""
        return self._ray.put(value)

    def get(self, answers: Any) -> Any:
        """What actors answer. Raises what they raise, and ``AuditError`` for one that died."""
        with worker_errors(_UNREAD):
            return self._ray.get(answers)

    def end(self) -> None:
        """Give back what they hold."""
        for actor in self.started:
            self._ray.kill(actor, no_restart=True)
        self.started = []


class _ModelActor:
    """Runs in a worker. The model is loaded by the first call, so that an error is the call's."""

    def __init__(self, choice: ModelChoice) -> None:
        # Ray shows a worker no GPU but its own.
        own = "cuda:0" if choice.device.startswith("cuda") else choice.device
        self._choice = replace(choice, device=own)
        self._reading: tuple[str, Reading] | None = None

    @cached_property
    def _model(self) -> Writer:
        return open_model(self._choice)

    def identity(self) -> ModelIdentity:
        return self._model.identity

    def process(self) -> int:
        """Its id."""
        return os.getpid()

    def score(self, method: str, *arguments: Any) -> list[NDArray[np.float32]]:
        return list(getattr(self._model, method)(*arguments))

    def read_gradients(self, number: str, order: ReadingOrder) -> tuple[Matrix, Matrix]:
        reading = self._read(number, order)
        return reading.pulls, reading.own_gains

    def word_rises(self, number: str, order: ReadingOrder, *arguments: Any) -> Matrix:
        return self._read(number, order).word_rises(*arguments)

    def _read(self, number: str, order: ReadingOrder) -> Reading:
        if self._reading is None or self._reading[0] != number:
            self._reading = None
            model = self._model
            assert isinstance(model, TransformersLanguageModel)
            self._reading = number, TransformersStudent(model).read(order)
        return self._reading[1]
