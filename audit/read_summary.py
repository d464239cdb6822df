"""What a pass over sources found beside their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from audit.dataset.record import Batch, BrokenSource, Reject, SourceSummary

_SHOWN_REJECTS = 20


@dataclass(slots=True)
class ReadSummary:
    """Everything that a report must show of the sources.

    ``sources``, ``broken`` and ``rejects`` (the first few) stand beside the place of their source
    among all: a part of the sources has the places that they have in the whole.
    """

    sources: list[tuple[int, SourceSummary]] = field(default_factory=list)
    broken: list[tuple[int, BrokenSource]] = field(default_factory=list)
    rejects: list[tuple[int, Reject]] = field(default_factory=list)
    reject_counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    rows_with_rejected_text: int = 0
    rows_with_unread_text: int = 0
    unread_columns: Counter[str] = field(default_factory=Counter)

    def count(self, batch: Batch, place: int) -> None:
        """Add a batch of the source at ``place``."""
        self.rows += len(batch.rows)
        self.rows_with_rejected_text += len(batch.rows) - batch.rows["rejected"].null_count()
        self.rows_with_unread_text += batch.rows_with_unread_text
        self.unread_columns.update(batch.unread_columns)
        self.reject_counts.update(batch.reject_counts)
        left = _SHOWN_REJECTS - len(self.rejects)
        self.rejects += [(place, reject) for reject in batch.rejects[:left]]
        if batch.broken is not None:
            self.broken.append((place, batch.broken))
        if batch.finished is not None:
            self.sources.append((place, batch.finished))


def merged(parts: Iterable[ReadSummary]) -> ReadSummary:
    """What one pass over the sources of all ``parts``, in order, would have found."""
    whole = ReadSummary()
    for part in parts:
        whole.sources += part.sources
        whole.broken += part.broken
        whole.rejects += part.rejects
        whole.reject_counts.update(part.reject_counts)
        whole.rows += part.rows
        whole.rows_with_rejected_text += part.rows_with_rejected_text
        whole.rows_with_unread_text += part.rows_with_unread_text
        whole.unread_columns.update(part.unread_columns)
    for found in (whole.sources, whole.broken, whole.rejects):
        found.sort(key=_place)  # of one source they are in order, and stay so
    del whole.rejects[_SHOWN_REJECTS:]
    return whole


def _place(entry: tuple[int, object]) -> int:
    return entry[0]
