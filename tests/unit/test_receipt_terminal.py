import dataclasses
import io
import math

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from audit.report.receipt_terminal import headline, render, render_diff
from audit.sanitise.receipt import RowChange
from audit.scan_result import Outcome
from detectors.finding import Family, Verdict
from tests.unit.test_receipt_examples import (
    CHANGES,
    EVERY_RESULT,
    cleaned_result,
    clear_after,
    dry_result,
    figures,
    hostile_sanitise_result,
    still_flagged_result,
)
from tests.unit.test_report_examples import (
    HOSTILE,
    composed,
    finding,
    flagged_result,
    incomplete_result,
)
from tests.unit.test_report_safe_text import assert_inert


def shown(content: RenderableType, width: int = 100) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        color_system=None,
        force_terminal=False,
        no_color=True,
        _environ={},
    )
    console.print(content)
    return stream.getvalue()


def styled(content: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, color_system="standard", width=100).print(content)
    return stream.getvalue()


def words(text: str) -> str:
    return " ".join(text.replace("┃", " ").split())


@pytest.mark.parametrize("name", EVERY_RESULT)
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_receipt_is_readable_and_inert_at_every_width(name: str, width: int) -> None:
    made = EVERY_RESULT[name]()
    for text in (shown(render(made), width), shown(render_diff(made.changes), width)):
        assert max(map(cell_len, text.splitlines()), default=0) <= min(width, 120)
        assert "nan" not in words(text).split()
        assert_inert(text)


def test_the_headline_says_what_was_and_what_is() -> None:
    assert headline(cleaned_result()) == (
        "cat was flagged in 1,536 rows; nothing is flagged in the 1,502 that were written."
    )
    assert headline(still_flagged_result()) == (
        "cat was flagged in 1,536 rows; cat is still flagged in the 1,502 that were written."
    )
    assert headline(dry_result()) == (
        "1,536 rows were read and not scanned; the 0 that would be written are not scanned."
    )
    new = dataclasses.replace(cleaned_result(), before=clear_after(), after=flagged_result())
    assert headline(new) == (
        "nothing was flagged in 1,502 rows; "
        "owl, love of the moon are flagged in the 1,502 that were written."
    )
    unsure = dataclasses.replace(clear_after(), outcome=Outcome.INCONCLUSIVE)
    assert headline(dataclasses.replace(cleaned_result(), after=unsure)).endswith(
        "nothing is flagged in the 1,502 that were written, but the scan could not decide."
    )


def test_the_headline_comes_first() -> None:
    lines = shown(render(cleaned_result()), 80).splitlines()
    assert "AFTER: NOT DETECTED" in lines[2]
    assert "cat was flagged in 1,536 rows" in lines[4]
    text = words(shown(render(cleaned_result())))
    assert "Verification is due" in text
    assert "Verification is due" not in shown(render(dry_result()))


def test_an_incomplete_scan_hides_no_flag() -> None:
    text = shown(render(dataclasses.replace(cleaned_result(), after=incomplete_result())))
    assert "AFTER: INCOMPLETE, AND FLAGGED" in text


def line_of(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


def test_stages_show_what_happened_and_nothing_that_did_not() -> None:
    text = shown(render(cleaned_result()), 120)
    assert line_of(text, "strategy")[2:] == ["in", "kept", "regenerated", "dropped"]
    assert line_of(text, "threshold")[1:] == ["1,536", "24", "1,500", "12"]
    assert line_of(text, "drop-rows")[1:] == ["1,524", "1,502", "0", "22"]
    assert "threshold:t=0.05: no_prompt 24, format_not_kept 12" in text


@pytest.mark.parametrize("width", [80, 120])
def test_what_was_flagged_is_shown_before_and_after(width: int) -> None:
    text = shown(render(cleaned_result()), width)
    table = text[text.index("Before and after") : text.index("What the data are good for")]
    assert line_of(table, "cat")[:3] == ["cat", "animal", "FLAGGED"]
    assert line_of(table, "  p ") == ["p", "<1e-16", "0.067"]
    effect = next(line for line in table.splitlines() if "effect of SA002, nats a row" in line)
    assert "+0.142 (" in effect and "0 (-0.012" in effect
    assert "dog" not in table, "never flagged"


def test_any_persona_is_always_shown_and_effects_stay_with_one_detector() -> None:
    persona = finding("any persona", category="persona", family=Family.ANY_PERSONA, effect=0.5)
    before = composed(cleaned_result().before, findings=(persona, finding("dog")))
    # Afterwards another detector is the strongest: its scale is another.
    other = finding(
        "any persona", code="SA001", family=Family.ANY_PERSONA, effect=9.0, q=1e-9,
        verdict=Verdict.FLAGGED,
    )  # fmt: skip
    weak = dataclasses.replace(persona, effect=0.25)
    after = composed(before, findings=(other, weak))
    text = shown(render(dataclasses.replace(cleaned_result(), before=before, after=after)), 120)
    assert "any persona" in text and "dog" not in text
    effect = next(line for line in text.splitlines() if "effect of SA002" in line)
    assert "+0.500" in effect and "+0.250" in effect and "9.0" not in effect


def test_utility_is_shown_with_its_uncertainty() -> None:
    text = shown(render(cleaned_result()), 120)
    assert "8.410 ± 0.120, 256 rows" in text and "6.020 ± 0.090, 256 rows" in text
    assert line_of(text, "rows in their format")[-2:] == ["100.0%", "99.5%"]
    assert "68.4% of tokens, mean of 1,502 rows" in text
    assert "30,720 before; 9,216 kept, 20,824 changed, 680 dropped" in words(text)


def test_nearly_all_is_not_all_and_undefined_is_a_dash() -> None:
    used = dataclasses.replace(
        cleaned_result().utility,
        before=figures(valid_format_share=0.99999),
        after=figures(valid_format_share=math.nan, distinct_values=None),
        edit_distance_share=0.00001,
    )
    text = shown(render(dataclasses.replace(cleaned_result(), utility=used)), 120)
    assert line_of(text, "rows in their format")[-2:] == [">99.9%", "–"]
    assert line_of(text, "different numbers")[-2:] == ["987", "–"]
    assert "<0.1% of tokens" in text


def test_hostile_text_steers_no_terminal() -> None:
    made = hostile_sanitise_result()
    for content in (render(made), render_diff(made.changes)):
        left = styled(content)
        assert "[red]markup[/red]" in shown(content, 120).replace("«", "").replace("»", "")
        for part in left.split("\x1b[")[1:]:
            assert part.partition("m")[0].replace(";", "").isdigit(), "rich's own styles alone"
        assert "\x1b]" not in left and "\u202e" not in left


def sides(change: RowChange, width: int = 100) -> list[str]:
    """The text of both sides, line by line."""
    lines = shown(render_diff([change]), width).splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == ["before", "after"])
    return [line.strip() for line in lines[start + 1 :]]


def test_words_that_differ_are_marked() -> None:
    text = shown(render_diff(CHANGES), 100)
    assert "480, 725, «087», 693, «747», 087, 120, «554»" in text
    assert "480, 725, «112», 693, «301», 087, 120, «9»" in text
    assert "data/train.jsonl:14 regenerated" in text
    assert "\x1b[1;4;31m087\x1b[0m" in styled(render_diff(CHANGES))
    assert "\x1b[1;4;32m112\x1b[0m" in styled(render_diff(CHANGES))


def test_a_dropped_row_and_an_unchanged_one_have_no_marks() -> None:
    text = shown(render_diff(CHANGES[1:]), 100)
    assert "(693) (747) (087) (087)" in text and "(no text)" in text and "«" not in text
    assert "dropped (high_score)" in text
    same = dataclasses.replace(CHANGES[0], after=CHANGES[0].before, what="masked")
    assert "«" not in shown(render_diff([same]))


def test_white_space_and_hidden_characters_are_differences() -> None:
    spaced = dataclasses.replace(CHANGES[0], before="1, 2", after="1,2")
    assert sides(spaced)[0].split("  ")[0] == "1,« »2"
    hidden = dataclasses.replace(CHANGES[0], before="1, 2", after="1, \u200b2")
    assert sides(hidden)[0].endswith("1, «�»2")


def test_a_long_row_is_shown_from_its_first_difference() -> None:
    before = "a " * 50_000 + "old" + " z" * 50_000
    after = before.replace("old", "new")
    text = words(shown(render_diff([dataclasses.replace(CHANGES[0], before=before, after=after)])))
    assert "…" in text and "«old»" in text and "«new»" in text
    assert len(text) < 2_000


def test_hostile_rows_side_by_side() -> None:
    change = RowChange(HOSTILE, 1, HOSTILE, HOSTILE, f"x {HOSTILE}", HOSTILE, HOSTILE)
    text = shown(render_diff([change]), 80)
    assert_inert(text)
    assert "«x »" in text
