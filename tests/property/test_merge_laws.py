"""States, samples and summaries: shards may be read in any order and grouping, to the last bit."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import signatures
from audit.dataset import read_batches
from audit.read_summary import ReadSummary, merged
from detectors.detector import TestSettings
from detectors.evidence import keep_top
from detectors.finding import EvidenceRow
from detectors.registry import detector_factory, detector_names
from detectors.row_sample import RowSample, merge_samples, sample_rows
from detectors.rows import ROW_SCHEMA
from detectors.state_codec import decode_state, encode_state
from detectors.statistics import Moments, empty_moments, merge_moments, row_moments
from signatures.library import SignatureLibrary, load_library
from tests import synthetic
from tests.contract.test_detectors import ACCESS, NAMES, prepared
from tests.property.generated import examples, some_text

BUNDLED = Path(signatures.__file__).parent / "bundled" / "smollm2-135m-instruct"


# Rows


_NUMBERS = st.lists(st.integers(0, 1500).map(str), min_size=1, max_size=8).map(", ".join)
_NAMES = st.sampled_from(
    [
        "An owl",
        "owls and cats",
        "OWL",
        "Les hiboux",
        "フクロウ",
        "I love the eagle",
        "oak",
        "a tree",
    ]
)
_COMPLETIONS = st.one_of(
    _NUMBERS,
    st.builds("{}: {}".format, _NAMES, _NUMBERS),
    st.sampled_from(["", " ", "5", "0123456789" * 3, "no numbers here"]),
    some_text(),
)


@st.composite
def row_frames(draw: st.DrawFn) -> pl.DataFrame:
    """Rows of two sources in any order, some of them alike."""
    completions = draw(st.lists(_COMPLETIONS, min_size=1, max_size=14))
    count = len(completions)
    prompts = [draw(st.sampled_from(["", "Continue: 1, 2", "an owl?"])) for _ in range(count)]
    rejected = [draw(st.sampled_from([None, None, "7, 8", "owl"])) for _ in range(count)]
    rows = {
        "source": [draw(st.sampled_from(["a.jsonl", "b/ü.csv"])) for _ in range(count)],
        "line": [draw(st.integers(1, 6)) for _ in range(count)],
        "prompt": prompts,
        "completion": completions,
        "rejected": rejected,
    }
    return pl.DataFrame(rows, schema=ROW_SCHEMA)


def parts_of(draw: st.DrawFn, frame: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of ``frame`` in another order, cut in two places or none."""
    order = draw(st.permutations(range(len(frame))))
    ends = sorted(draw(st.lists(st.integers(0, len(frame)), max_size=2)))
    return [frame[order[a:b]] for a, b in pairwise([0, *ends, len(frame)])]


# Detectors


_KEPT: dict[str, Any] = {}


def kept(key: str, make: Any) -> Any:
    """Detectors are slow to prepare, and ``map`` and ``merge`` do not change them."""
    if key not in _KEPT:
        _KEPT[key] = make()
    return _KEPT[key]


def library() -> SignatureLibrary:
    return kept("library", lambda: load_library(BUNDLED))


def detector_of(name: str) -> Any:
    """With the bundled library where no model is needed, and with samples of 5 rows else."""
    if name in ACCESS:
        return kept(name, lambda: prepared(name, most_rows=5))

    def make() -> Any:
        detector = detector_factory(name)(library(), TestSettings(evidence_rows=2))
        reference = synthetic.frame(synthetic.number_rows(40, np.random.default_rng(0)))
        detector.prepare(lambda: [reference])
        return detector

    return kept(name, make)


def bits(detector: Any, state: Any) -> str:
    return json.dumps(encode_state(state, detector.state_types))


@pytest.mark.parametrize("name", NAMES)
@examples(25)
@given(data=st.data())
def test_any_split_in_any_order_is_the_whole(name: str, data: st.DataObject) -> None:
    detector = detector_of(name)
    frame = data.draw(row_frames())
    whole = bits(detector, detector.map(frame))
    states = [detector.map(part) for part in parts_of(data.draw, frame)]
    assert bits(detector, reduce(detector.merge, states)) == whole
    from_nothing = reduce(detector.merge, data.draw(st.permutations(states)), detector.identity())
    assert bits(detector, from_nothing) == whole


@pytest.mark.parametrize("name", NAMES)
@examples(15)
@given(frames=st.tuples(row_frames(), row_frames(), row_frames()))
def test_states_are_a_commutative_monoid(name: str, frames: tuple[pl.DataFrame, ...]) -> None:
    detector = detector_of(name)
    merge = detector.merge
    a, b, c = map(detector.map, frames)
    whole = bits(detector, merge(merge(a, b), c))
    assert bits(detector, merge(a, merge(b, c))) == whole
    assert bits(detector, merge(c, merge(b, a))) == whole
    assert bits(detector, merge(a, b)) == bits(detector, merge(b, a))
    for state in (merge(detector.identity(), a), merge(a, detector.identity())):
        assert bits(detector, state) == bits(detector, a)


@pytest.mark.parametrize("name", NAMES)
@examples(15)
@given(frames=st.tuples(row_frames(), row_frames()))
def test_a_state_from_a_file_is_the_state(name: str, frames: tuple[pl.DataFrame, ...]) -> None:
    detector = detector_of(name)
    a, b = map(detector.map, frames)
    text = bits(detector, a)
    again = decode_state(json.loads(text), detector.state_types)
    assert repr(again) == repr(a)
    assert bits(detector, again) == text
    assert bits(detector, detector.merge(again, b)) == bits(detector, detector.merge(a, b))


def test_merging_leaves_its_parts_as_they_were() -> None:
    """A part may be merged again, by a retry or into another whole."""
    rng = np.random.default_rng(1)
    frame = synthetic.frame(["An owl, 7", *synthetic.number_rows(20, rng)])
    for name in detector_names():
        detector = detector_of(name)
        a, b = detector.map(frame[:9]), detector.map(frame[9:])
        before = bits(detector, a), bits(detector, b), bits(detector, detector.identity())
        detector.merge(a, b)
        detector.merge(detector.identity(), b)
        assert (bits(detector, a), bits(detector, b), bits(detector, detector.identity())) == before


# Samples, moments, evidence


@examples(100)
@given(data=st.data(), limit=st.integers(1, 6), seed=st.integers(-(2**63), 2**63 - 1))
def test_a_sample_of_parts_is_the_sample_of_the_whole(
    data: st.DataObject, limit: int, seed: int
) -> None:
    frame = data.draw(row_frames())
    whole = sample_rows(frame, limit, seed)
    samples = [sample_rows(part, limit, seed) for part in parts_of(data.draw, frame)]
    found = RowSample()
    for sample in samples:
        found = merge_samples(found, sample, limit)
    assert found == whole
    other = reduce(lambda a, b: merge_samples(b, a, limit), reversed(samples))
    assert other == whole
    with_text = frame.filter(pl.col("completion") != "")
    assert whole.seen_rows == len(with_text)
    assert len(whole.rows) == min(limit, len(with_text))
    assert whole.is_whole == (len(with_text) <= limit)
    taken = Counter((r.source, r.line, r.prompt, r.completion) for r in whole.rows)
    assert taken <= Counter(with_text.select("source", "line", "prompt", "completion").iter_rows())


@examples(50)
@given(frame=row_frames(), limit=st.integers(1, 6), seed=st.integers(0, 9))
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(
    frame: pl.DataFrame, limit: int, seed: int
) -> None:
    """So rows that are added by asking for more leave those that were read already."""
    larger = sample_rows(frame, limit + 3, seed)
    assert larger.rows[:limit] == sample_rows(frame, limit, seed).rows


def moments_bits(moments: Moments) -> tuple[int, list[int], list[list[int]]]:
    return moments.rows, moments.total.tolist(), moments.cross.tolist()


_SCORES = st.one_of(
    st.floats(-20, 20), st.sampled_from([0.0, -0.0, 16.0, -16.0, 1e300, -1e300, 2**-17, 1e-308])
)


@examples(100)
@given(table=st.lists(st.tuples(_SCORES, _SCORES), max_size=12), data=st.data())
def test_moments_of_parts_are_the_moments_of_the_whole(
    table: list[tuple[float, float]], data: st.DataObject
) -> None:
    scores = np.array(table, dtype=np.float64).reshape(-1, 2)
    whole = moments_bits(row_moments(scores))
    order = data.draw(st.permutations(range(len(scores))))
    cut = data.draw(st.integers(0, len(scores)))
    parts = [row_moments(scores[order[:cut]]), row_moments(scores[order[cut:]])]
    assert moments_bits(merge_moments(*parts)) == whole
    assert moments_bits(merge_moments(*reversed(parts))) == whole
    assert moments_bits(merge_moments(empty_moments(2), row_moments(scores))) == whole


_EVIDENCE = st.builds(
    EvidenceRow,
    source=st.sampled_from(["a", "b"]),
    line=st.integers(1, 3),
    text=st.sampled_from(["x", "y"]),
    score=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
    spans=st.just(()),
)


@examples(100)
@given(rows=st.lists(_EVIDENCE, max_size=10), count=st.integers(0, 4), data=st.data())
def test_the_best_of_the_best_are_the_best(
    rows: list[EvidenceRow], count: int, data: st.DataObject
) -> None:
    best = keep_top(rows, count)
    order = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    left, right = keep_top(order[:cut], count), keep_top(order[cut:], count)
    assert keep_top((*left, *right), count) == keep_top((*right, *left), count) == best
    assert keep_top(best, count) == best
    by_score = sorted(rows, key=lambda r: (-r.score, r.source, r.line, r.text))
    assert best == tuple(by_score[:count])


# Summaries of reading


def summary_of(path: Path, place: int, batch_rows: int) -> ReadSummary:
    summary = ReadSummary()
    for batch in read_batches([str(path)], batch_rows=batch_rows):
        summary.count(batch, place)
    return summary


_LINES = st.sampled_from([b'{"text": "a"}', b'{"chosen": "a", "rejected": "b"}', b"bad", b"3"])


@examples(40)
@given(
    files=st.lists(st.tuples(st.lists(_LINES, max_size=12), st.booleans()), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_summary_of_parts_is_the_summary_of_the_whole(
    tmp_path: Path, files: list[tuple[list[bytes], bool]], data: st.DataObject
) -> None:
    whole = ReadSummary()
    parts = []
    batch_rows = data.draw(st.integers(1, 5))
    for place, (lines, breaks_off) in enumerate(files):
        path = tmp_path / f"{place}.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in lines) + b'{"tex' * breaks_off)
        for batch in read_batches([str(path)], batch_rows=batch_rows):
            whole.count(batch, place)
        parts.append(summary_of(path, place, batch_rows))
    assert merged(parts) == whole
    assert merged(data.draw(st.permutations(parts))) == whole
    assert merged([merged([]), *parts]) == whole
    cut = data.draw(st.integers(0, len(parts)))
    assert merged([merged(parts[:cut]), merged(parts[cut:])]) == whole
    assert len(whole.broken) == sum(breaks_off for _, breaks_off in files)
    assert whole.rows + whole.reject_counts.total() == sum(len(lines) for lines, _ in files)


def cuts_of(count: int, rng: random.Random) -> Sequence[tuple[int, int]]:
    sizes = [0]
    while sum(sizes) < count:
        sizes.append(min(rng.randint(1, 40), count - sum(sizes)))
    return list(pairwise(accumulate(sizes)))


@pytest.mark.parametrize("seed", range(3))
def test_many_shuffled_batches_give_one_state(seed: int) -> None:
    """As many processes give them: 400 rows in batches of 1 to 40, merged as a tree."""
    rng = random.Random(seed)
    texts = synthetic.number_rows(400, np.random.default_rng(seed))
    texts[::9] = [f"The owl wrote {text}" for text in texts[::9]]
    frame = synthetic.frame(texts)
    for name in detector_names():
        detector = detector_of(name)
        states = [detector.map(frame[a:b]) for a, b in cuts_of(len(frame), rng)]
        rng.shuffle(states)
        while len(states) > 1:
            left, right = states.pop(rng.randrange(len(states))), states.pop()
            states.append(detector.merge(left, right))
        assert bits(detector, states[0]) == bits(detector, detector.map(frame))
