"""The seam between the transfer detector and engines with gradients: what one step would move.

All is linearised at the model's own weights, in the coordinates that LoRA trains first: for every
linear layer W of the network, B in W + B A with a random fixed A and B = 0. The detector owns these
protocols; `audit.backends.first_order_student` implements them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from signatures.language_model import SequenceRequest, TokenIds

Matrix = NDArray[np.float64]

Target = tuple[SequenceRequest, ...]
"""Answers to questions on one concept. Its value is the mean of their log P(answer | question)."""

RowProgress = Callable[[int, int], None]
"""Called with (rows read, rows wanted)."""


def silent(_done: int, _wanted: int) -> None:
    """The progress that is shown to nobody."""


@dataclass(frozen=True, slots=True)
class ReadingOrder:
    """What to read: ``rows`` of training data, and the ``targets`` they may move.

    ``blocks`` [rows] is the block (0, 1, ...; none is empty) whose mean gradient each row joins.
    ``seed`` draws A.
    """

    rows: Sequence[SequenceRequest]
    targets: Sequence[Target]
    blocks: NDArray[np.int64]
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for an empty text or target, or blocks that do not fit the rows."""
        if not self.rows or not self.targets or not all(self.targets):
            raise ValueError("a reading needs rows and targets, and no empty target")
        for request in (*self.rows, *(answer for target in self.targets for answer in target)):
            if not request.continuation:
                raise ValueError("a row or an answer without a token has no gradient")
        sizes = np.bincount(self.blocks) if len(self.blocks) else np.zeros(0)
        if len(self.blocks) != len(self.rows) or not sizes.all():
            raise ValueError("every row needs a block, and no block may be empty")


class Reading(Protocol):
    """What one pass forward and back over the rows found.

    The gradients are of the summed log-likelihood of a row's trained tokens; a step of rate e on a
    row adds e times its gradient to the weights (plain gradient ascent).
    """

    @property
    def pulls(self) -> Matrix:
        """[rows, targets]: d value(target) / d rate of a step on the row, nats."""
        ...

    @property
    def own_gains(self) -> Matrix:
        """[rows]: d log-likelihood of the row itself / d rate of that step, nats; at least 0."""
        ...

    def word_rises(
        self, steps: Matrix, questions: Sequence[TokenIds], words: NDArray[np.int64]
    ) -> Matrix:
        """[steps, words]: by how much each step raises log P(word | question), nats.

        The mean over ``questions``. ``steps`` [steps, blocks] are rates of the blocks' mean
        gradients; their sum is truly taken, forwards and backwards, and half of the difference
        returned, so that what is even in the step falls out.
        """
        ...


class Student(Protocol):
    """A model whose gradients can be had: the one that would be fine-tuned."""

    def read(self, order: ReadingOrder, progress: RowProgress = silent) -> Reading:
        """Gradients of all targets and rows: one pass forward and back over each.

        Raises ``ValueError`` for a request that the model cannot read: an empty prefix, an unknown
        token id, or more tokens than it has positions for.
        """
        ...
