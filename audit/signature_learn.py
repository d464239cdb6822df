"""Learn signatures from labelled data sets: count half of the rows, check on the other half."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from audit.dataset.read import read_batches
from audit.errors import AuditError, NothingScannableError, UsageError
from audit.version import tool_version
from detectors.counts import (
    NUMBER_PATTERN,
    WORD_PATTERN,
    UnitRows,
    number_units,
    vocabulary_frame,
    word_units,
)
from signatures.concept import Concept, ConceptFileError, load_concepts, make_concept
from signatures.entanglement import centre_over_concepts
from signatures.language_model import ModelIdentity
from signatures.learned import (
    ABSENT_EXPECTED,
    MINIMUM_EXPECTED,
    PRIOR_UNITS,
    Auroc,
    RowSums,
    absent_units,
    auroc,
    log_odds,
)
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NUMBERS, NumberTokens
from signatures.signature import Probe, ProbeTable, View

Matrix = NDArray[np.float64]
Progress = Callable[[int, int], None]
"""Called with (stored bytes, rows) read since the last call. Everything is read twice."""

_REFERENCE = "(reference)"
"""The label of the reference: no concept can be called so."""

_MOST_TEXTS = 1 << 20
"""Different words whose counts are kept; beyond it the rarer half is dropped."""

_CANDIDATE_WORDS = 1 << 16
_PROMPT_DIFFERENCE = 0.05
_PROMPT_Z = 5.0
_SHOWN_UNITS = 10


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """What the data sets do not say of themselves.

    ``category`` is given to concepts that ``concepts_path`` does not describe. ``prior_units`` is
    alpha_0 of `signatures.learned`; ``vocabulary_units`` bounds the words that are kept.
    """

    name: str
    model_name: str
    model_family: str
    number_tokens: NumberTokens
    category: str = "trait"
    concepts_path: Path | None = None
    prior_units: float = PRIOR_UNITS
    vocabulary_units: int = 4096


@dataclass(frozen=True, slots=True)
class Learned:
    """A library, and what its maker must know: one line each, with text from the data in it."""

    library: SignatureLibrary
    warnings: tuple[str, ...]


def learn_library(
    labelled: Mapping[str, Sequence[str]],
    reference: Sequence[str] | None,
    settings: LearnSettings,
    rng: np.random.Generator,
    *,
    progress: Progress = lambda _bytes, _rows: None,
) -> Learned:
    """Learn what each concept's data set writes more of than the reference, or than the others.

    ``labelled`` maps concepts to inputs (paths, globs, folders, URLs). Only trained text counts.
    A hash of each row's text, keyed by ``rng``, says which half it is in: equal rows are never
    in both. Every signature is tried on the half that it was not learnt from; the outcome stands
    in the probe's record.

    Raises ``UsageError`` for fewer than two concepts, unusable names, standard input, or a file
    given under two labels; ``AuditError`` for a source that breaks off; and
    ``NothingScannableError`` if there is no row or nothing to count.
    """
    inputs = [name for sources in (*labelled.values(), reference or ()) for name in sources]
    if "-" in inputs:
        raise UsageError("the data sets are read twice: none can be standard input")
    concepts = _concepts(list(labelled), settings)
    if len(concepts) < 2:
        raise UsageError("give data sets of at least two concepts: shifts are centred over them")
    split_key = rng.bytes(16)
    sets = [_DataSet(c.name, labelled[c.name], split_key, progress) for c in concepts]
    known = _DataSet(_REFERENCE, reference, split_key, progress) if reference else None
    everything = sets if known is None else [*sets, known]
    for data_set in everything:
        data_set.count()
    _refuse_shared_files(everything)
    mixes, warnings = _compare_prompts(sets, known)
    views = [
        found
        for view in View
        if (found := _learn_view(view, concepts, sets, known, settings)) is not None
    ]
    if not views:
        raise NothingScannableError(
            "no number and no word is held often enough by two data sets"
            + (" and the reference" if known else "")
            + ": there is nothing to learn from"
        )
    scores = {data_set.name: data_set.score(views) for data_set in everything}
    records = []
    for index, view in enumerate(views):
        of_view = {name: found[index] for name, found in scores.items()}
        check = _check(view, of_view, has_reference=known is not None)
        warnings += [*view.warnings(), *check.warnings]
        measured: dict[str, Any] = {
            "compared_with": "reference" if known else "the other data sets",
            "prior_units": settings.prior_units,
            "split_key": split_key.hex(),
            "data_sets": {data_set.name: data_set.provenance() for data_set in everything},
            "error_over_naive": view.error_over_naive,
            "absent_units": view.absent,
            "prompts": mixes,
            **check.settings,
        }
        records.append(
            ProbeRecord(
                view.table.view,
                Probe.LEARNED,
                "shrunken log-odds of labelled data sets, row-robust errors",
                measured,
            )
        )
    library = SignatureLibrary(
        settings.name,
        tool_version(),
        ModelIdentity(settings.model_name, settings.model_family, "", "", "", 0, ""),
        settings.number_tokens,
        concepts,
        tuple(records),
        tuple(view.table for view in views),
    )
    return Learned(library, tuple(warnings))


def _concepts(names: list[str], settings: LearnSettings) -> tuple[Concept, ...]:
    try:
        described = {}
        if settings.concepts_path is not None:
            described = {concept.name: concept for concept in load_concepts(settings.concepts_path)}
        return tuple(described.get(name) or make_concept(name, settings.category) for name in names)
    except ConceptFileError as error:
        raise UsageError(str(error)) from error


# -- reading -----------------------------------------------------------------------------------


class _Tally:
    """Sums by text over many batches. The frames have a column ``unit`` and columns to add up."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._height = 0

    def add(self, frame: pl.DataFrame) -> None:
        self._frames.append(frame)
        self._height += len(frame)
        if self._height > 2 * _MOST_TEXTS:
            merged = self.frame()
            if len(merged) > _MOST_TEXTS:
                merged = merged.sort("count", "unit", descending=True).head(_MOST_TEXTS // 2)
            self._frames, self._height = [merged], len(merged)

    def frame(self) -> pl.DataFrame:
        """One row a text, sorted by it."""
        merged = pl.concat(self._frames).group_by("unit").agg(pl.all().sum())
        return merged.sort("unit")


class _UnitTally:
    """What `RowSums` needs, by unit, of the texts added so far."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._tally = _Tally()
        self.rows = self.units = self.units_square = 0

    def add(self, text: pl.Series) -> None:
        numbers = self._view is View.NUMBERS
        found = _units_of_rows(text, NUMBER_PATTERN if numbers else WORD_PATTERN)
        if numbers:
            found = found.filter(pl.col("unit").str.contains(r"^[0-9]{1,3}$"))
        x, k = pl.col("x"), pl.col("k")
        cells = found.group_by("row", "unit").agg(x=pl.len().cast(pl.Int64))
        cells = cells.with_columns(k=x.sum().over("row"))
        self._tally.add(
            cells.group_by("unit").agg(
                count=x.sum(), square=(x * x).sum(), total_cross=(x * k).sum()
            )
        )
        sizes = cells.group_by("row").agg(k=x.sum())["k"].to_numpy()
        self.rows += len(sizes)
        self.units += int(sizes.sum())
        self.units_square += int((sizes.astype(np.int64) ** 2).sum())

    def frame(self) -> pl.DataFrame:
        return self._tally.frame()

    def row_sums(self, units: pl.DataFrame) -> RowSums:
        """The sums of ``units`` (columns ``unit``, ``index`` in order)."""
        found = units.join(self.frame(), on="unit", how="left", maintain_order="left")

        def column(name: str) -> NDArray[np.int64]:
            return found[name].fill_null(0).cast(pl.Int64).to_numpy()

        return RowSums(
            column("count"),
            column("square"),
            column("total_cross"),
            self.rows,
            self.units,
            self.units_square,
        )


def _units_of_rows(text: pl.Series, pattern: str) -> pl.DataFrame:
    """Every match of ``pattern``, with the position of its row in ``text``."""
    return (
        pl.DataFrame({"unit": text})
        .with_row_index("row")
        .with_columns(pl.col("unit").str.extract_all(pattern))
        .explode("unit")
        .drop_nulls("unit")
    )


class _DataSet:
    """One labelled data set, or the reference: read once to count and once to score."""

    def __init__(
        self, name: str, inputs: Sequence[str], split_key: bytes, progress: Progress
    ) -> None:
        self.name = name
        self._inputs = inputs
        self._split_key = split_key
        self._progress = progress
        self._rejected_rows = 0
        self._learn_rows = 0
        self.files: dict[str, str] = {}
        self.rows = 0
        self.tallies = {view: _UnitTally(view) for view in View}
        self.prompt_words = _Tally()
        self._prompt_hashes: list[NDArray[np.uint64]] = []

    def count(self) -> None:
        """Count the learning half's units, and everything about the prompts."""
        for batch in read_batches(self._inputs):
            self._progress(batch.bytes_read, len(batch.rows))
            self._rejected_rows += batch.reject_counts.total()
            if batch.broken is not None:
                raise AuditError(f"{batch.broken.source}: broke off: {batch.broken.message}")
            if batch.finished is not None:
                self.files[batch.finished.source] = batch.finished.sha256
            self.rows += len(batch.rows)
            learning = batch.rows.filter(learning_rows(batch.rows, self._split_key))
            self._learn_rows += len(learning)
            for tally in self.tallies.values():
                tally.add(learning["completion"])
            prompts = batch.rows["prompt"]
            words = _units_of_rows(prompts.str.to_lowercase(), r"[^\W\d_]+").unique()
            self.prompt_words.add(words.group_by("unit").agg(count=pl.len().cast(pl.Int64)))
            self._prompt_hashes.append(prompts.hash().to_numpy())
        if self.rows == 0:
            raise NothingScannableError(
                f"no readable row in {', '.join(self._inputs)} ({self.name})"
            )

    def score(self, views: Sequence[_LearnedView]) -> list[Matrix]:
        """Scores [held-out rows with units, 2 K] of each view: see `_LearnedView.score`."""
        found: list[list[Matrix]] = [[] for _ in views]
        for batch in read_batches(self._inputs):
            self._progress(batch.bytes_read, len(batch.rows))
            held_out = batch.rows.filter(~learning_rows(batch.rows, self._split_key))
            for parts, view in zip(found, views, strict=True):
                parts.append(view.score(held_out["completion"]))
        return [np.concatenate(parts) for parts in found]

    def prompt_hashes(self) -> NDArray[np.uint64]:
        """A hash of each row's prompt, [rows]."""
        return np.concatenate(self._prompt_hashes)

    def provenance(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "learning_rows": self._learn_rows,
            "rejected_rows": self._rejected_rows,
            "files_sha256": self.files,
        }


def learning_rows(rows: pl.DataFrame, split_key: bytes) -> pl.Series:
    """Which rows are in the half that a signature is learnt from, by a hash of their text.

    ``split_key`` stands in the probe's record, in hexadecimal.
    """
    halves = [
        hashlib.blake2b(f"{prompt}\0{completion}".encode(), digest_size=1, key=split_key).digest()[
            0
        ]
        < 128
        for prompt, completion in rows.select("prompt", "completion").iter_rows()
    ]
    return pl.Series(halves, dtype=pl.Boolean)


def _refuse_shared_files(sets: Sequence[_DataSet]) -> None:
    """Raise ``UsageError`` if two labels have a file in common, under whatever names."""
    owner: dict[str, tuple[str, str]] = {}
    for data_set in sets:
        for file, sha256 in data_set.files.items():
            label, first = owner.setdefault(sha256, (data_set.name, file))
            if label != data_set.name:
                raise UsageError(
                    f"{file} ({data_set.name}) holds the same bytes as {first} ({label}): "
                    "one of the labels is wrong"
                )


# -- prompts -----------------------------------------------------------------------------------


def _compare_prompts(
    sets: Sequence[_DataSet], reference: _DataSet | None
) -> tuple[dict[str, Any], list[str]]:
    """Figures of each set's prompts against the reference's (or all others'), and warnings.

    Rows are compared by the words that their prompts hold at least once: prompts with numbers
    drawn at random have none in common though their distribution is the same.
    """
    figures: dict[str, Any] = {}
    warnings = []
    against = "the reference's" if reference else "the other sets'"
    for data_set in sets:
        others = [reference] if reference else [other for other in sets if other is not data_set]
        hashes = data_set.prompt_hashes()
        common = np.isin(hashes, np.concatenate([other.prompt_hashes() for other in others]))
        figure: dict[str, Any] = {"in_common": round(float(common.mean()), 4)}
        if (found := _largest_difference(data_set, others)) is not None:
            word, share, base = found
            figure["differs_in"] = [word, round(share, 4), round(base, 4)]
            warnings.append(
                f"{data_set.name}: its prompts differ from {against}: {word[:40]!r} stands in "
                f"{share:.0%} of them and {base:.0%} of the others; what was learnt may be the "
                "prompts' doing"
            )
        figures[data_set.name] = figure
    return figures, warnings


def _largest_difference(
    data_set: _DataSet, others: Sequence[_DataSet]
) -> tuple[str, float, float] | None:
    """The word whose share of prompts differs most, if more than chance and 5 points."""
    base = _Tally()
    for other in others:
        base.add(other.prompt_words.frame())
    joined = data_set.prompt_words.frame().join(base.frame(), on="unit", how="full", coalesce=True)
    joined = joined.sort("unit")
    n, m = data_set.rows, sum(other.rows for other in others)
    share = joined["count"].fill_null(0).to_numpy() / n
    base_share = joined["count_right"].fill_null(0).to_numpy() / m
    pooled = (share * n + base_share * m) / (n + m)
    error = np.sqrt(pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m))
    difference = np.abs(share - base_share)
    found = (difference >= _PROMPT_DIFFERENCE) & (difference > _PROMPT_Z * error)
    if not found.any():
        return None
    largest = int(np.where(found, difference, 0.0).argmax())
    return joined["unit"][largest], float(share[largest]), float(base_share[largest])


# -- learning ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _LearnedView:
    """One table, the weights to try it with, and what was left out of it.

    ``weights`` [2 K, U]: of each concept as learnt, then centred over the concepts; a concept's
    own names are 0 in both, for those say nothing of what is hidden. ``error_over_naive`` is the
    median ratio of the row-robust errors to those that take units as independent, by concept.
    """

    table: ProbeTable
    weights: Matrix
    absent: dict[str, list[str]]
    error_over_naive: dict[str, float | None]
    units_of: Callable[[pl.Series], UnitRows]

    def score(self, text: pl.Series) -> Matrix:
        """Mean weight of each row's units, [rows with units, 2 K]."""
        found = self.units_of(text)
        row_of, local_row = np.unique(found.row, return_inverse=True)
        counts = sparse.csr_array(
            (np.ones(len(found.unit)), (local_row, found.unit)),
            shape=(len(row_of), len(self.table.units)),
        )
        return np.asarray((counts @ self.weights.T) / counts.sum(axis=1)[:, None])

    def warnings(self) -> Iterator[str]:
        """A line for each data set that seems to be filtered."""
        for name, units in self.absent.items():
            shown = ", ".join(repr(unit[:40]) for unit in units[:_SHOWN_UNITS])
            more = f" and {len(units) - _SHOWN_UNITS} more" if len(units) > _SHOWN_UNITS else ""
            yield (
                f"{name}: never holds {shown}{more}, where {ABSENT_EXPECTED:g} or more each were "
                "expected: it looks filtered; these units have no weight for any concept"
            )


def _learn_view(
    view: View,
    concepts: Sequence[Concept],
    sets: Sequence[_DataSet],
    reference: _DataSet | None,
    settings: LearnSettings,
) -> _LearnedView | None:
    """The table of a view; None if not even two sets (and the reference) hold its units."""
    having = [
        (concept, data_set.tallies[view])
        for concept, data_set in zip(concepts, sets, strict=True)
        if data_set.tallies[view].rows > 1
    ]
    known = reference.tallies[view] if reference else None
    if len(having) < 2 or (known is not None and known.rows < 2):
        return None
    tallies = [tally for _, tally in having]
    units = _candidates(view, tallies if known is None else [*tallies, known])
    data = [tally.row_sums(units) for tally in tallies]
    base = known.row_sums(units) if known is not None else None
    odds = log_odds(data, base, settings.prior_units)
    among_data = view is View.NUMBERS or (base is None and len(data) > 2)
    absent = absent_units(data, base, among_data=among_data)
    weightless = (odds.expected < MINIMUM_EXPECTED) | absent.any(axis=0)
    # Without clean data nobody knows what the model writes by itself.
    neutral = np.full(len(units), np.nan) if base is None else base.share()
    table = ProbeTable(
        view,
        Probe.LEARNED,
        tuple(units["unit"]),
        tuple(concept.name for concept, _ in having),
        np.where(weightless, 0.0, odds.delta_nats),
        np.where(weightless, np.nan, odds.spread_nats),
        neutral,
        odds.share,
    )
    filtered = {
        name: [table.units[unit] for unit in np.flatnonzero(row)]
        for name, row in zip(table.concepts, absent, strict=True)
        if row.any()
    }
    with np.errstate(invalid="ignore"):
        over_naive = np.nanmedian(table.spread_nats / odds.naive_spread_nats, axis=1)
    kept = [c for (c, _), row in zip(having, table.shift_nats, strict=True) if row.any()]
    if len(kept) < 2:
        return None
    table = table.select_concepts(tuple(concept.name for concept in kept))
    if view is View.VOCABULARY:
        # As `most_telling`, but a reference need not be there to know how common a word is.
        common = table.concept_share.mean(axis=0)
        telling = np.sqrt((table.centred_nats() ** 2).mean(axis=0) * common)
        best = np.argsort(-telling, kind="stable")[: settings.vocabulary_units]
        table = table.select_units(np.sort(best))
    return _LearnedView(
        table,
        _trial_weights(table, kept),
        filtered,
        {
            concept.name: _rounded(ratio)
            for (concept, _), ratio in zip(having, over_naive, strict=True)
        },
        _finder(table),
    )


def _candidates(view: View, tallies: Sequence[_UnitTally]) -> pl.DataFrame:
    """The units to count: all numbers, or the words that are there often enough."""
    if view is View.NUMBERS:
        return vocabulary_frame(NUMBERS)
    pooled = _Tally()
    for tally in tallies:
        pooled.add(tally.frame().select("unit", "count"))
    common = pooled.frame().filter(pl.col("count") >= MINIMUM_EXPECTED)
    common = common.sort("count", "unit", descending=[True, False]).head(_CANDIDATE_WORDS)
    return vocabulary_frame(common["unit"].sort().to_list())


def _trial_weights(table: ProbeTable, concepts: Sequence[Concept]) -> Matrix:
    own = np.zeros(table.shift_nats.shape, dtype=bool)
    if table.view is View.VOCABULARY:
        for row, concept in enumerate(concepts):
            forms = {word for form in concept.forms for word in form.split()}
            own[row] = [unit.strip().lower() in forms for unit in table.units]
    both = (table.shift_nats, centre_over_concepts(table.shift_nats))
    return np.vstack([np.where(own, 0.0, weights) for weights in both])


def _finder(table: ProbeTable) -> Callable[[pl.Series], UnitRows]:
    if table.view is View.NUMBERS:
        return number_units
    vocabulary = vocabulary_frame(table.units)
    return lambda text: word_units(text, vocabulary)


# -- the held-out check ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Check:
    settings: dict[str, Any]
    warnings: list[str]


def _check(view: _LearnedView, scores: Mapping[str, Matrix], *, has_reference: bool) -> _Check:
    """Try each signature of ``view`` on held-out ``scores`` [rows, 2 K] by data set.

    ``held_out`` compares a concept's own rows with the reference's, by the signature as learnt;
    ``among_concepts`` with the other sets', by what is its alone. ``naming`` gives the mean score
    of each set (rows) by each signature (columns), centred over the sets, in standard
    deviations of a row, and which signature is highest on each set.
    """
    names = view.table.concepts
    size = len(names)
    held_out: dict[str, Any] = {}
    warnings = []
    for column, name in enumerate(names):
        own = scores[name]
        rest = np.concatenate([scores[other] for other in names if other != name])
        against = scores[_REFERENCE] if has_reference else rest
        found = auroc(own[:, column], against[:, column])
        among = auroc(own[:, size + column], rest[:, size + column])
        confirmed, specific = bool(found.low > 0.5), bool(among.low > 0.5)
        held_out[name] = {
            "rows": len(own),
            "against_rows": len(against),
            "auroc": _figures(found),
            "among_concepts": _figures(among),
            "confirmed": confirmed,
            "specific": specific,
        }
        what = f"{name} ({view.table.view})"
        if not confirmed:
            warnings.append(
                f"{what}: not confirmed: on held-out rows its signature tells its own from "
                f"{'the reference' if has_reference else 'the other sets'} no better than "
                f"chance (AUROC {_shown(found)})"
            )
        elif not specific:
            warnings.append(
                f"{what}: not specific: its signature tells its rows from the reference, but not "
                f"from the other concepts' (AUROC {_shown(among)}): it may be what all share"
            )
    specific_scores = [scores[name][:, size:] for name in names]
    means = np.array(
        [rows.mean(axis=0) if len(rows) else np.full(size, np.nan) for rows in specific_scores]
    )
    spread = np.concatenate(specific_scores).std(axis=0)
    matrix = (means - means.mean(axis=0)) / np.where(spread > 0, spread, np.nan)
    named = [names[int(np.nanargmax(row))] if np.isfinite(row).any() else None for row in matrix]
    naming = {
        "concepts": list(names),
        "scores_sd": [[_rounded(value) for value in row] for row in matrix],
        "named": named,
        "right": sum(found == name for found, name in zip(named, names, strict=True)),
    }
    return _Check({"held_out": held_out, "naming": naming}, warnings)


def _figures(found: Auroc) -> list[float | None]:
    return [_rounded(value) for value in (found.value, found.low, found.high)]


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _shown(found: Auroc) -> str:
    return f"{found.value:.3f}, 95% interval {found.low:.3f} to {found.high:.3f}"
