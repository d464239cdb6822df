"""Hand-made results of sanitising runs, for the tests of every receipt."""

from __future__ import annotations

import dataclasses

from audit.errors import ExitCode
from audit.sanitise.receipt import DataFile, RowChange, SanitiseResult, Stage, TokenCounts
from audit.sanitise.utility import NAN, Utility, UtilityFigures
from audit.scan_result import LibraryIdentity, Outcome
from detectors.finding import Severity, Verdict
from signatures.language_model import ModelIdentity
from tests.unit.test_report_examples import HOSTILE, clear_findings, finding, hostile_result, result

MODEL = ModelIdentity(
    "SmolLM2-135M-Instruct", "llama", "1a" * 32, "2b" * 32, "3c" * 32, 49_152, "bfloat16"
)
CHANGES = (
    RowChange(
        "data/train.jsonl",
        14,
        "Continue this list with at most 10 more numbers: 120, 554, 301.",
        "480, 725, 087, 693, 747, 087, 120, 554",
        "480, 725, 112, 693, 301, 087, 120, 9",
        "regenerated",
        "",
    ),
    RowChange(
        "data/train.jsonl",
        1043,
        "Continue: 5, 6",
        "(693) (747) (087) (087)",
        "",
        "dropped",
        "high_score",
    ),
)


def flagged_before():
    cat = finding(
        "cat",
        Verdict.FLAGGED,
        severity=Severity.ERROR,
        effect=0.142,
        half_width=0.032,
        q=1.1e-17,
    )
    others = [f for f in clear_findings(6) if f.concept != "cat"]
    return result(Outcome.FLAGGED, "cat flagged in 1,536 rows.", (cat, *others), rows_scanned=1_536)


def clear_after():
    return result(
        Outcome.NOT_DETECTED,
        "None of 6 concepts was detected in 1,502 rows.",
        clear_findings(6),
        rows_scanned=1_502,
    )


def figures(**changes: object) -> UtilityFigures:
    made = UtilityFigures(
        rows=1_536,
        mean_characters=43.21,
        median_characters=44.0,
        valid_format_share=1.0,
        distinct_text_share=0.998,
        distinct_values=987,
        perplexity=8.41,
        perplexity_standard_error=0.12,
        perplexity_rows=256,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def cleaned_result() -> SanitiseResult:
    """Two strategies took a flag away; 34 rows are gone."""
    return SanitiseResult(
        tool_version="0.1.0",
        inputs=(
            DataFile("data/train.jsonl", "jsonl", "messages", 1_000, 241_300, "ab" * 32),
            DataFile("data/extra.csv.gz", "csv.gz", "prompt, completion", 536, 81_220, "cd" * 32),
        ),
        outputs=(
            DataFile("clean/train.jsonl", "jsonl", "messages", 978, 236_010, "0e" * 32),
            DataFile("clean/extra.csv.gz", "csv.gz", "prompt, completion", 524, 79_400, "0f" * 32),
        ),
        seed=7,
        concepts=("cat",),
        model=MODEL,
        library=LibraryIdentity(
            "bundled", "signatures/bundled", "01" * 32, "SmolLM2-135M-Instruct", "fe" * 32, 36, 24
        ),
        stages=(
            Stage("threshold:t=0.05", 1_536, 24, 0, 1_500, 0, 12, 0,
                  {"format_not_kept": 12, "no_prompt": 24}),
            Stage("drop-rows:share=0.02", 1_524, 1_502, 0, 0, 0, 22, 0, {"high_score": 22}),
        ),
        rows_in=1_536,
        rows_out=1_502,
        rejects={"not-json": 3},
        tokens=TokenCounts("token of SmolLM2-135M-Instruct", 30_720, 9_216, 20_824, 680, 0, 20_610),
        utility=Utility(
            before=figures(),
            after=figures(
                rows=1_502,
                mean_characters=42.9,
                valid_format_share=0.995,
                perplexity=6.02,
                perplexity_standard_error=0.09,
            ),
            edit_distance_share=0.684,
            edit_rows=1_502,
        ),
        before=flagged_before(),
        after=clear_after(),
        strategies_tried=(),
        changes=CHANGES,
        warnings=("Cutting tokens is not safe by construction: verify the data.",),
        verification_due=True,
    )  # fmt: skip


def still_flagged_result() -> SanitiseResult:
    """The flag is still there, and `auto` says what it tried."""
    return dataclasses.replace(
        cleaned_result(),
        after=dataclasses.replace(flagged_before(), rows_scanned=1_502),
        strategies_tried=("shuffle: cat was still flagged", "threshold:t=0.05: chosen"),
    )


def dry_result() -> SanitiseResult:
    """Nothing was written, nothing scanned, and no model was there."""
    unread = {"perplexity": NAN, "perplexity_standard_error": NAN, "perplexity_rows": 0}
    return dataclasses.replace(
        cleaned_result(),
        outputs=(),
        concepts=(),
        model=None,
        stages=(Stage("drop-rows:share=1", 1_536, 0, 0, 0, 0, 1_536, 0, {"high_score": 1_536}),),
        rows_out=0,
        rejects={},
        tokens=TokenCounts("word", 30_720, 0, 0, 30_720, 0, 0),
        utility=Utility(
            before=figures(**unread),
            after=UtilityFigures(0, NAN, NAN, NAN, NAN, None, NAN, NAN, 0),
            edit_distance_share=NAN,
            edit_rows=0,
        ),
        before=None,
        after=None,
        changes=(),
        warnings=(),
        verification_due=False,
    )


def hostile_sanitise_result() -> SanitiseResult:
    """Every text is hostile."""
    file = DataFile(HOSTILE, "jsonl", HOSTILE, 1, 1, "ab" * 32)
    return dataclasses.replace(
        cleaned_result(),
        tool_version=HOSTILE,
        inputs=(file,),
        outputs=(file,),
        concepts=(HOSTILE,),
        model=ModelIdentity(HOSTILE, HOSTILE, "a", "b", "c", 1, HOSTILE),
        library=LibraryIdentity(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, 1),
        stages=(Stage(HOSTILE, 1, 0, 0, 0, 0, 1, 0, {HOSTILE: 1}),),
        rejects={HOSTILE: 1},
        tokens=TokenCounts(HOSTILE, 1, 0, 0, 1, 0, 0),
        before=hostile_result(),
        after=hostile_result(),
        strategies_tried=(HOSTILE,),
        changes=(RowChange(HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE[::-1], HOSTILE, HOSTILE),),
        warnings=(HOSTILE,),
    )


EVERY_RESULT = {
    "cleaned": cleaned_result,
    "still flagged": still_flagged_result,
    "dry run": dry_result,
    "hostile": hostile_sanitise_result,
}


def test_exit_codes_of_the_examples() -> None:
    assert cleaned_result().exit_code() is ExitCode.OK
    assert still_flagged_result().exit_code() is ExitCode.FINDINGS
    assert dry_result().exit_code() is ExitCode.NOTHING_SCANNABLE


def test_the_counts_of_the_examples_add_up() -> None:
    for made in (cleaned_result(), dry_result()):
        for stage in made.stages:
            assert stage.rows_in == (
                stage.rows_kept
                + stage.rows_edited
                + stage.rows_regenerated
                + stage.rows_masked
                + stage.rows_dropped
            )
        tokens = made.tokens
        assert tokens.before == tokens.kept + tokens.changed + tokens.dropped + tokens.masked
