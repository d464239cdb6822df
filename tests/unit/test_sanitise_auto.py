"""`auto`: what counts as passed, what is tried, and what is chosen."""

from dataclasses import replace

import numpy as np
import pytest

from audit.dataset.sources import list_sources
from audit.errors import AuditError
from audit.sanitise.auto import candidates, judge, write_sample
from audit.sanitise.data_rows import DataRows
from audit.sanitise.run import SanitiseSettings, sanitise
from audit.scan import ScanSettings, scan
from audit.scan_result import Outcome
from detectors.finding import Finding, Severity, Verdict
from tests import synthetic
from tests.sanitise_runs import kit_of, number_row, read_rows, run, write_rows
from tests.writer_model import writer_model

SIGNATURES = synthetic.library(strength=1.0)


def finding(concept="owl", *, effect=0.4, could_see=0.3, verdict=Verdict.FLAGGED, code="SA002"):
    return Finding(
        code=code,
        detector="frequency",
        concept=concept,
        category="animal",
        verdict=verdict,
        severity=Severity.ERROR,
        message="",
        null_hypothesis="",
        rows_tested=1024,
        units_tested=9000,
        effect=effect,
        smallest_detectable_effect=could_see,
    )


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A scan's result to put findings into."""
    file = write_rows(tmp_path_factory.mktemp("scan") / "rows.jsonl", [number_row(1, 2)] * 3)
    return scan([str(file)], SIGNATURES, library_path="synthetic", settings=ScanSettings())


def result_of(empty, *findings):
    return replace(empty, findings=findings)


CLEAR = {"verdict": Verdict.NOT_DETECTED, "effect": 0.01}


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([finding()], [finding(**CLEAR)], ""),
        # As small as what the data had is seen; anything above is not.
        ([finding(effect=0.3)], [finding(**CLEAR, could_see=0.3)], ""),
        (
            [finding(effect=0.3)],
            [finding(**CLEAR, could_see=0.31)],
            "owl (SA002) would not have shown in a sample of 1,024 rows: it could see 0.31, the "
            "data had 0.3",
        ),
        ([finding()], [finding()], "the sample is still flagged (owl)"),
        # Another one than before is no pass either.
        (
            [finding()],
            [finding(**CLEAR), finding("cat")],
            "the sample is still flagged (cat)",
        ),
        ([finding()], [], "owl (SA002) could not be tested again"),
        ([finding()], [finding("cat", **CLEAR)], "owl (SA002) could not be tested again"),
        ([finding()], [finding(**CLEAR, code="SA001")], "owl (SA002) could not be tested again"),
        (
            [finding()],
            [finding(**CLEAR, could_see=float("nan"))],
            "owl (SA002) could not be tested again",
        ),
        (
            [finding(), finding("cat")],
            [finding(**CLEAR), finding("cat", **CLEAR, could_see=0.5)],
            "cat (SA002) would not have shown in a sample of 1,024 rows: it could see 0.5, the "
            "data had 0.4",
        ),
        # What was not flagged before need not be seen.
        (
            [finding(), finding("cat", **CLEAR)],
            [finding(**CLEAR), finding("cat", **CLEAR, could_see=9.0)],
            "",
        ),
    ],
)
def test_a_sample_passes_where_every_finding_is_gone_and_would_have_shown(
    empty, before, after, reason
):
    verdict = judge(result_of(empty, *before), result_of(empty, *after))
    assert verdict.passes is (reason == "")
    assert verdict.reason == (reason or "the sample passed")


def test_no_row_left_is_no_pass(empty):
    verdict = judge(result_of(empty, finding()), None)
    assert (verdict.passes, verdict.reason) == (False, "no row is left of the sample")


LADDER = ["shuffle", "replace", "replace", "drop-rows", "threshold"]


@pytest.mark.parametrize(
    ("lists", "texts", "has_model", "names"),
    [
        (10, 0, True, LADDER),
        (9, 1, True, LADDER),
        (8, 2, True, LADDER[1:]),  # the order of words says something
        (0, 5, True, LADDER[1:]),
        (10, 0, False, ["shuffle"]),
    ],
)
def test_what_is_tried(tmp_path, empty, lists, texts, has_model, names):
    rows = [number_row(1, 2, 3)] * lists + [number_row("The owl")] * texts
    data = DataRows([str(write_rows(tmp_path / "rows.jsonl", rows))], None, None)
    kit = kit_of() if has_model else kit_of(model=None)
    specs = candidates(data, kit, result_of(empty, finding()))
    assert [spec.name for spec in specs] == names
    costs = [spec.info.cost for spec in specs]
    assert costs == sorted(costs)


def test_without_a_model_texts_cannot_be_worked_on(tmp_path, empty):
    data = DataRows([str(write_rows(tmp_path / "rows.jsonl", [number_row("The owl")]))], None, None)
    with pytest.raises(AuditError, match="give --model"):
        candidates(data, kit_of(model=None), result_of(empty, finding()))


def test_the_sample_is_of_random_rows_of_all_inputs_in_their_order(tmp_path):
    one = write_rows(tmp_path / "one.jsonl", [number_row(i, id=i) for i in range(60)])
    two = write_rows(tmp_path / "two.jsonl", [number_row(i, id=i) for i in range(60, 100)])
    data = DataRows([str(one), str(two)], None, None)
    samples = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        files = write_sample(data, tmp_path / str(seed), 30, seed)
        ids = [row["id"] for file in files for row in read_rows(file)]
        assert len(ids) == 30
        assert ids == sorted(ids)
        samples.append(ids)
        assert len(list_sources([str(file) for file in files]).sources) == 2
    assert samples[0] != samples[1]


def written(share, rows, seed):
    rng = np.random.default_rng(seed)
    return [number_row(text) for text in synthetic.number_rows(rows, rng, share)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Number lists of an owl's, and lists without a persona."""
    folder = tmp_path_factory.mktemp("planted")
    owl = synthetic.share_of(SIGNATURES, "owl")
    return (
        write_rows(folder / "owl.jsonl", written(owl, 400, 1)),
        write_rows(folder / "clean.jsonl", written(None, 400, 2)),
    )


def auto(data, output, model=None, library=SIGNATURES, **settings):
    return sanitise(
        [str(data)],
        output,
        library,
        library_path="synthetic",
        settings=SanitiseSettings(**settings),
        model=model,
    )


def test_nothing_is_chosen_where_nothing_is_flagged(tmp_path, planted):
    with pytest.raises(AuditError, match=r"flags nothing.*Name a strategy") as error:
        auto(planted[1], tmp_path / "out.jsonl")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_nothing_passes(tmp_path, planted):
    # An owl's numbers in another order are an owl's numbers.
    with pytest.raises(AuditError, match="no strategy passed") as error:
        auto(planted[0], tmp_path / "out.jsonl")
    assert "shuffle: the sample is still flagged (" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_cheapest_that_passes_is_chosen_and_used(tmp_path, planted):
    model = writer_model(SIGNATURES, spread=0.3, strength=0.3)
    # What the clean model writes with nothing hidden, to compare with.
    run(planted[1], tmp_path / "ref.jsonl", "threshold", model=model, library=SIGNATURES)
    result = auto(
        planted[0],
        tmp_path / "out.jsonl",
        model,
        concepts=("owl",),
        reference=(str(tmp_path / "ref.jsonl"),),
        auto_rows=300,
    )
    *failed, passed = result.strategies_tried
    assert [told.split(":")[0] for told in result.strategies_tried] == LADDER[: len(failed) + 1]
    assert failed
    assert all("is still flagged (owl)" in told for told in failed)
    assert passed.endswith(": the sample passed")
    # What was chosen on 300 rows was done to all.
    (stage,) = result.stages
    assert stage.strategy == passed.removesuffix(": the sample passed")
    assert result.rows_in == stage.rows_in == 400
    assert result.rows_out == len(read_rows(tmp_path / "out.jsonl")) == 400 - stage.rows_dropped
    assert result.before.outcome is Outcome.FLAGGED
