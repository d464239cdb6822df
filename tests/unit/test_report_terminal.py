import dataclasses
import io
import math

import pytest
from rich.cells import cell_len
from rich.console import Console

from audit.report.terminal import render, to_text
from detectors.finding import Severity, Verdict
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    LIMITS,
    clear_findings,
    composed,
    disagreeing_result,
    flagged_result,
    hostile_result,
    incomplete_result,
    owl,
)
from tests.unit.test_report_safe_text import assert_inert


def words(text: str) -> str:
    """The text without line breaks and frames, so that wrapping does not matter."""
    return " ".join(text.replace("┃", " ").split())


@pytest.mark.parametrize("name", EVERY_OUTCOME)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_outcome_is_readable_without_colour_at_every_width(name: str, width: int) -> None:
    result = EVERY_OUTCOME[name]()
    text = to_text(result, width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert name.upper() in text
    assert result.headline in words(text)
    assert all(limit in words(text) for limit in LIMITS)
    assert "nan" not in words(text).split()
    assert_inert(text)
    if result.rows_rejected:
        assert "11 rows rejected: not-json" in words(text)
    else:
        assert "No row was rejected" in text


def test_the_verdict_comes_first() -> None:
    lines = to_text(flagged_result(), width=80).splitlines()
    assert "FLAGGED" in "".join(lines[:4])


def test_an_incomplete_scan_shows_its_flag_beside() -> None:
    text = to_text(incomplete_result(), width=80)
    assert "INCOMPLETE, AND FLAGGED" in text
    assert "broken off data/extra.jsonl.zst:901 zstd stream ends early" in words(text)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_sorted_and_condensed(width: int) -> None:
    text = to_text(flagged_result(), width=width)
    table = text[text.index("Findings ──") :]
    places = [table.index(name) for name in (" owl ", " love of the moon", " unicorn", " cat ")]
    assert places == sorted(places)
    assert "… and 31 more not detected (smallest detectable effect 0.022 to 0.030" in text
    assert "concept 20" not in text


def concept_lines(width: int) -> list[str]:
    text = to_text(disagreeing_result(), width=width)
    return text[text.index("Concepts ──") : text.index("Findings ──")].splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_concept_takes_one_line_with_a_sign_for_each_detector(width: int) -> None:
    lines = concept_lines(width)
    assert "SA001 SA002 SA003 SA004 SA005" in words(lines[1])
    owl = next(line for line in lines if line.startswith("▲FLAGGED"))
    # p = 4 * 3e-7 and, of 20 concepts at .9 of the rate, q = 20 * p / .9
    assert owl.split()[1:3] == ["owl", "animal"]
    assert owl.split()[-6:] == ["2.7e-5", "○", "?", "▲", "○", "○"]
    assert ("1.2e-6" in owl) == (width >= 112)
    trait = next(line for line in lines if "trait 15" in line)
    assert trait.split()[-5:] == ["○", "?", "○", "–", "○"], "skipped by SA004"
    persona = next(line for line in lines if "any persona" in line)
    assert persona.split()[-1] == "○" and persona.count("○") == 1, "one detector is asked"
    assert " … and 9 more not detected" in lines
    assert "SA003 likelihood" in "\n".join(lines)


def test_the_reason_of_an_undecided_concept_is_shown_at_every_width() -> None:
    assert " Inconclusive for too little power (1)" in concept_lines(80)
    cat = next(line for line in concept_lines(100) if "cat " in line)
    assert cat.endswith("low power")


def test_a_narrow_table_keeps_the_names_and_shortens_the_codes() -> None:
    lines = concept_lines(60)
    assert lines[1].split() == ["verdict", "concept", "q", "1", "2", "3", "4", "5"]
    assert any(line.startswith(" not detected  love of the moon") for line in lines)


def test_disagreement_is_shown_beneath() -> None:
    text = words("\n".join(concept_lines(80)))
    assert (
        "Detectors disagree ≠ owl: SA003 likelihood (p 3e-07) flags it; SA004 divergence (p 0.9) "
        "and SA005 transfer (p 0.9) do not, though they could have seen the effect they look for."
    ) in text
    assert "Detectors disagree" not in to_text(flagged_result())


def test_what_else_was_found_of_a_flagged_concept_comes_first() -> None:
    text = to_text(disagreeing_result(), width=120)
    lines = text[text.index("Findings ──") : text.index("▲ owl")].splitlines()[3:]
    owl = [line.split() for line in lines if " owl " in line[:26]]
    assert [row[row.index("animal") + 1] for row in owl] == [
        "SA003", "SA002", "SA004", "SA005", "SA001",
    ]  # fmt: skip
    assert lines.index(next(line for line in lines if " cat " in line)) == 2


def test_undefined_numbers_are_dashes() -> None:
    text = to_text(flagged_result(), width=120)
    rows = text[text.index("Findings ──") :].splitlines()
    row = next(row for row in rows if "unicorn" in row)
    assert row.split()[-5:] == ["–"] * 5


def test_tokens_and_evidence_of_a_flag_are_shown_with_marks() -> None:
    text = to_text(flagged_result(), width=100)
    assert "087     412     198.3   2.1×  +0.731 (+0.611 to +0.851)" in text
    assert "data/train.jsonl:1043" in text
    assert "480, 725, «087», «693», 747, «087»" in text


def test_on_a_terminal_marks_are_styles() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", width=100)
    console.print(render(flagged_result()))
    assert "«" not in stream.getvalue()
    assert "\x1b[1;4;31m087\x1b[0m" in stream.getvalue()


def test_a_space_in_a_token_is_visible() -> None:
    spaced = dataclasses.replace(owl(), tokens=(dataclasses.replace(owl().tokens[0], unit=" owl"),))
    text = to_text(composed(flagged_result(), findings=(spaced,)), width=100)
    assert "␣owl" in text


def test_hostile_text_neither_styles_nor_steers() -> None:
    text = to_text(hostile_result(), width=100)
    assert_inert(text)
    assert "[red]markup[/red]" in words(text)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=100)
    console.print(render(hostile_result()))
    # The only escape sequences are rich's own attributes: bold, dim, italic, underline.
    left = stream.getvalue()
    for own in ("0", "1", "2", "3", "2;3", "1;4", "1;2", "4"):
        left = left.replace(f"\x1b[{own}m", "")
    assert_inert(left)


def test_the_environment_does_not_change_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = to_text(flagged_result())
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "40"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    assert to_text(flagged_result()) == plain


def test_very_many_flags_stay_readable() -> None:
    flags = tuple(
        dataclasses.replace(f, verdict=Verdict.FLAGGED, severity=Severity.ERROR, effect=math.nan)
        for f in clear_findings(30)
    )
    text = to_text(composed(flagged_result(), findings=flags), width=80)
    assert "details of 20 more flagged findings" in text
