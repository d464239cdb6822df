"""`auto`: the cheapest strategy whose output passes a scan, tried on a sample first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audit.dataset.decision import Decision, Fate
from audit.dataset.rewrite import rewrite
from audit.errors import AuditError
from audit.sanitise.data_rows import DataRows, random_rank
from audit.sanitise.grammars import numbers_style
from audit.sanitise.registry import Spec, parse_spec
from audit.sanitise.strategy import Kit
from audit.scan_result import ScanResult
from detectors.finding import Finding, Verdict

_LADDER = (
    "shuffle",
    "replace:share=0.1",
    "replace:share=0.5",
    "drop-rows:share=0.5",
    "threshold:t=0.05",
)
"""Tried in order of `StrategyInfo.cost`: from what takes least away to writing all anew."""

_MOSTLY = 0.9


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a strategy's sample passed, and why or why not."""

    passes: bool
    reason: str


def candidates(sample: DataRows, kit: Kit, before: ScanResult) -> tuple[Spec, ...]:
    """The strategies to try, cheapest first. Raises ``AuditError`` where none could be judged."""
    if not before.flagged():
        raise AuditError(
            "auto: the scan of the data flags nothing, so there is nothing to see a strategy "
            f"remove ({before.headline}) Name a strategy with --strategy"
        )
    lists = float(np.mean([any(map(numbers_style, row.texts)) for row in sample.rows()]))
    found = tuple(
        spec
        for spec in sorted(map(parse_spec, _LADDER), key=lambda spec: spec.info.cost)
        if (kit.model is not None or not spec.info.needs_model)
        and (spec.name != "shuffle" or lists >= _MOSTLY)
    )
    if not found:
        raise AuditError(
            "auto: without a model only number lists can be shuffled, and these rows are none: "
            "give --model, or name a strategy"
        )
    return found


def judge(before: ScanResult, after: ScanResult | None) -> Judgement:
    """Whether the sample passed: every finding that the data had is gone, and would have shown.

    A finding would have shown if the smallest effect that the scan of the sanitised sample could
    see (with its power) is not above the effect that the data had. ``after`` is None where no row
    is left.
    """
    if after is None:
        return Judgement(False, "no row is left of the sample")
    if flagged := after.flagged():
        names = sorted({finding.concept for finding in flagged})
        return Judgement(False, f"the sample is still flagged ({', '.join(names)})")
    again = {(finding.code, finding.concept): finding for finding in after.findings}
    for finding in before.flagged():
        blind = _blind(finding, again.get((finding.code, finding.concept)))
        if blind:
            return Judgement(False, blind)
    return Judgement(True, "the sample passed")


def _blind(finding: Finding, again: Finding | None) -> str:
    what = f"{finding.concept} ({finding.code})"
    if again is None or not np.isfinite(again.smallest_detectable_effect):
        return f"{what} could not be tested again"
    if again.verdict is Verdict.FLAGGED:
        return f"{what} is still flagged"
    if not again.smallest_detectable_effect <= finding.effect:
        return (
            f"{what} would not have shown in a sample of {again.rows_tested:,} rows: it could see "
            f"{again.smallest_detectable_effect:.2g}, the data had {finding.effect:.2g}"
        )
    return ""


def write_sample(data: DataRows, folder: Path, most_rows: int, seed: int) -> list[Path]:
    """Write ``most_rows`` random rows (all where there are fewer) into files in ``folder``."""
    total = sum(1 for _ in data.rows())
    chosen = set(heapq.nsmallest(most_rows, range(total), key=lambda n: random_rank(n, seed)))
    number = 0

    def decide(_line: int, value: object) -> Decision:
        nonlocal number
        if not data.is_readable(value):
            return Decision(Fate.DROP)
        number += 1
        return Decision(Fate.KEEP if number - 1 in chosen else Fate.DROP)

    written = []
    for place, source in enumerate(data.sources):
        path = folder / f"{place}-{Path(source.name).name}"
        rewrite(source, path, decide, data.limits)
        written.append(path)
    return written
