"""The rows that speak most for a concept, kept while rows stream by."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from detectors.finding import EvidenceRow

TopRows = tuple[EvidenceRow, ...]


def _best_first(row: EvidenceRow) -> tuple[float, str, int, str]:
    return (-row.score, row.source, row.line, row.text)


def keep_top(rows: Iterable[EvidenceRow], count: int) -> TopRows:
    """The ``count`` rows of highest score, best first; ties by source, line and text.

    Keeping the best of the best is a commutative monoid, so shards may be merged in any order.
    """
    return tuple(heapq.nsmallest(count, rows, key=_best_first))
