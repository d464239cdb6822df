"""What becomes of each row of a source that is written anew."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from audit.dataset.faults import RowFault
from audit.dataset.row_text import Row


class Fate(enum.Enum):
    """What becomes of a row that is not changed."""

    KEEP = enum.auto()
    DROP = enum.auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """``row`` is what to write in the place of a row, ``added`` what to write after it.

    A row is a changed copy of the one that was handed over, never that one itself. A row that
    cannot be read can only be kept or dropped.
    """

    row: Row | Fate
    added: tuple[Row, ...] = ()

    @property
    def keeps(self) -> bool:
        """Whether the row is written as it stands, and nothing else."""
        return self.row is Fate.KEEP and not self.added

    def new_rows(self) -> list[Row | None]:
        """Every row to write; None is the row as it stands."""
        if isinstance(self.row, Fate):
            return [*([None] if self.row is Fate.KEEP else []), *self.added]
        return [self.row, *self.added]


Decide = Callable[[int, object], Decision]
"""1-based line or record number, and a row or the ``RowFault`` in its place."""


def decided(decide: Decide, line: int, value: object) -> Decision:
    """What ``decide`` says. Raises ``ValueError`` where it cannot be done."""
    decision = decide(line, value)
    if isinstance(value, RowFault) and (decision.added or not isinstance(decision.row, Fate)):
        raise ValueError("a row that cannot be read can only be kept or dropped")
    return decision
