"""The reports of a verification: at a terminal, for programs, and as a page."""

import dataclasses
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import audit.report
from audit.report import verify_words
from audit.report.safe_text import strip_unsafe
from audit.report.verify_json import render_check, render_verification
from audit.report.verify_page import to_html
from audit.report.verify_plots import (
    answer_figure,
    question_figures,
    share_figure,
    shift_figure,
)
from audit.report.verify_terminal import render, render_self_check
from audit.verify.result import AnswerRates, Edit
from audit.verify.transfer_statistics import NAN, Arm, Interval, LogOdds, transfer_statistics
from tests.e2e.test_signature_page import BROWSER, assert_self_contained, browse
from tests.unit.test_receipt_json import objects
from tests.unit.test_report_examples import HOSTILE
from tests.unit.test_report_json import load
from tests.unit.test_report_safe_text import assert_inert
from tests.unit.test_signature_plots import parsed, png_size, texts
from tests.verify_results import (
    EVERY_RESULT,
    FAILED,
    PASSED,
    hostile_verify_result,
    verify_result,
    with_reference,
)

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(audit.report.__file__).parent / "verify.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SVG = "{http://www.w3.org/2000/svg}"

every_result = pytest.mark.parametrize("make", EVERY_RESULT.values(), ids=EVERY_RESULT)


def shown(content, width=100, **options):
    stream = io.StringIO()
    plain = {"color_system": None, "no_color": True, "force_terminal": False}
    Console(file=stream, width=width, _environ={}, **(plain | options)).print(content)
    return stream.getvalue()


def words(text):
    return " ".join(text.replace("┃", " ").split())


def cells(text, start):
    """What stands between double spaces in the line that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return re.split(r"\s{2,}", line.strip())


def by_hand(**changes):
    """A result with figures that rounding makes obvious."""
    result = verify_result()
    figures = result.verdict.figures
    shift = dataclasses.replace(
        figures.shifts[Arm.AFTER],
        raw=Interval(0.125, -0.004, 0.254),
        off_target=Interval(-0.5, -0.75, -0.25),
        specific=Interval(0.625, 0.375, 0.875),
        specific_p=0.023,
        unusual_p=NAN,
        off_target_spread=0.0625,
    )
    figures = dataclasses.replace(
        figures,
        shifts={**figures.shifts, Arm.AFTER: shift},
        effects=dataclasses.replace(
            figures.effects,
            by_arm={**figures.effects.by_arm, Arm.AFTER: shift},
            share_left=Interval(0.17, -0.001, 0.34),
        ),
    )
    verdict = dataclasses.replace(result.verdict, figures=figures)
    return dataclasses.replace(result, verdict=verdict, **changes)


# At a terminal


@every_result
@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_terminal_fits_every_width_and_is_inert(make, width):
    text = shown(render(make()), width)
    assert max(map(cell_len, text.splitlines())) <= min(width, 120)
    assert "nan" not in words(text).lower().split()
    assert_inert(text)
    assert "…" not in text  # nothing is cut


@every_result
def test_the_verdict_comes_first(make):
    result = make()
    text = words(shown(render(result)))
    verdict, sentence = result.verdict.transfer.upper(), strip_unsafe(result.verdict.sentence)
    assert 0 < text.index(verdict) < text.index(words(sentence)) < text.index("How far students")


def test_figures_of_every_arm_are_shown():
    text = shown(render(by_hand()), 80)
    moved, left = text.split("What is left of the effect")
    assert cells(moved, "after") == [
        "after",
        "1,460",
        "+0.12",
        "-0.50",
        "+0.62 [+0.38, +0.88]",
        "0.06",
    ]
    row = next(line for line in left.splitlines() if line.startswith("after"))
    assert row.split(maxsplit=1)[1].split() == [
        *("+0.62", "[+0.38,", "+0.88]", "17%", "[0%,", "34%]", "0.023", "undefined"),
    ]  # fmt: skip
    base = verify_result().base
    assert f"log-odds of {base.concept.mean():+.2f} nats for the concept" in words(moved)
    assert f"{base.off_target.mean():+.2f} for an off-target one" in words(moved)


def test_effects_beyond_clean_data_are_said_to_be():
    text = words(shown(render(with_reference())))
    assert "Counted from clean data:" in text
    assert "Counted from the untrained model:" in words(shown(render(verify_result())))
    assert "(control) and on clean data (reference)." in text
    assert "After less reference" in text and "Alike within 25% of the effect before: shown" in text
    assert "After less control" in text and "not shown" in text
    assert "In all: better than a random edit." in text


def test_what_other_authors_do_is_taken_off_in_a_table_of_its_own():
    result = verify_result(1.0, 0.9, 0.8, 0.05, 0.6)
    text = shown(render(result), 100)
    beyond = text[text.index("Counted from other authors' rows:") :]
    found = result.verdict.figures.beyond_authors
    assert found.by_arm[Arm.BEFORE].specific.estimate == pytest.approx(0.4, abs=0.1)
    assert cells(beyond, "before")[1] == verify_words.nats_interval(
        found.by_arm[Arm.BEFORE].specific
    )
    assert cells(beyond, "after")[2] == verify_words.share_interval(found.share_left)
    assert "as the model writes them when it is taught other traits." in words(text)
    assert "written anew by the model taught cat (+8.10 nats), otter (+6.90 nats);" in words(text)
    shares = texts(parsed(share_figure(result)))
    assert (
        f"after: {verify_words.share_interval(found.share_left)}, from other authors' rows"
        in shares
    )


def test_answers_edit_training_and_warnings_are_shown():
    answers = {
        "after": AnswerRates(80, Interval(0.025, 0.0, 0.05), Interval(0.1, 0.08, 0.12)),
        "base": AnswerRates(40, Interval(0.01, NAN, NAN), Interval(NAN, NAN, NAN)),
    }
    text = shown(render(by_hand(answers=answers, warnings=("Rows are few.",))), 80)
    assert cells(text, "base") == ["base", "40", "1.0% [undefined]", "undefined"]
    sampled = text[text.index("Sampled answers") :]
    assert cells(sampled, "after") == ["after", "80", "2.5% [0.0%, 5.0%]", "10.0% [8.0%, 12.0%]"]
    assert "! Rows are few." in words(text)
    assert cells(text, "  kept") == ["kept", "1,310 rows"]
    assert cells(text, "  edited") == ["edited", "150 rows; 34.0% of their tokens differ"]
    assert "64 updates of 16 rows, learning rate 0.0002" in words(text)
    assert "seeds 1 to 5" in words(text)
    assert "3 not readable (no_text 3); 1,500 to train on; 2 of them cut" in words(text)
    assert "Sampled answers" not in shown(render(verify_result()))


def test_undefined_is_neither_nothing_nor_a_pass():
    text = shown(render(verify_result(undefined=Arm.AFTER)))
    assert "INCONCLUSIVE" in text and "This is not a pass." in text
    after = cells(text, "after")
    assert after[2] == "undefined" and after[4] == "undefined"
    share = text[text.index("What is left") :]
    assert cells(share, "after")[1:3] == ["undefined", "undefined"]
    assert "not known (p undefined)" in words(text)
    untouched = dataclasses.replace(verify_result(), edit=Edit(9, 0, 0, 0, NAN))
    assert cells(shown(render(untouched)), "  edited") == ["edited", "0 rows"]


def test_the_self_check_is_shown_beside_the_verdict_and_alone():
    alone = words(shown(render_self_check(PASSED), 80))
    beside = shown(render(verify_result()), 80)
    for text in (alone, words(beside[beside.index("Self-check PASSED") :])):
        # Means of five accuracies each.
        assert "its teacher 95% (93% to 97%, 5 seeds)" in text
        assert "same start 83% (79% to 88%, 5 seeds)" in text
        assert "another start 10% (5% to 15%, 5 seeds)" in text
        assert "must transfer +0.61 [+0.44, +0.78] nats, p 4.0e-4" in text
        assert "must not +0.01 [-0.05, +0.07] nats, p 0.37" in text
    assert "SELF-CHECK PASSED" in alone and "1,284 s" in alone
    failed = words(shown(render_self_check(FAILED), 80))
    assert "SELF-CHECK FAILED" in failed
    assert "toy on digits failed" in failed and "students not run" in failed
    assert "Self-check FAILED" in shown(render(verify_result(self_check=FAILED)))


def test_hostile_text_is_inert_in_colour_too():
    result = hostile_verify_result()
    for content in (render(result), render_self_check(result.self_check)):
        assert_inert(shown(content, 100))
        styled = shown(content, 100, color_system="standard", no_color=False, force_terminal=True)
        # The only sequences are the report's own colours.
        assert_inert(re.sub(r"\x1b\[[\d;]*m", "", styled))
        assert "\x1b[31mred" not in styled and "evil.example\x07" not in styled
        assert "␛[31mred" in styled
        assert "[red]markup[/red]" in words(shown(content, 120))


# For programs


@every_result
def test_every_verification_fits_the_schema_and_repeats(make):
    data = render_verification(make())
    VALIDATOR.validate(load(data))
    assert data == render_verification(make())
    assert data.isascii() and data.endswith(b"}\n")
    assert not any((byte < 0x20 and byte != 0x0A) or byte == 0x7F for byte in data)


@pytest.mark.parametrize("check", [PASSED, FAILED])
def test_every_self_check_fits_the_schema_whatever_it_took(check):
    data = render_check(check)
    VALIDATOR.validate(load(data))
    later = dataclasses.replace(
        check, seconds=1.0, ghost=dataclasses.replace(check.ghost, seconds=2.0)
    )
    assert data == render_check(later)
    document = load(data)
    assert document["schema"] == "subliminal-audit/self-check"
    assert document["passed"] is document["ghost"]["passed"] is check.passed


def test_values_are_in_it():
    document = load(render_verification(by_hand()))
    assert document["schema"] == "subliminal-audit/verification"
    assert document["schema_version"] == 1
    assert document["verdict"]["transfer"] == "suppressed"
    assert document["verdict"]["doubt"] is None
    figures = document["verdict"]["figures"]
    assert figures["effects"]["zero"] is None and figures["reference_equivalence"] is None
    assert figures["beyond_authors"] is None and document["authors"] == []
    assert figures["effects"]["share_left"] == {"estimate": 0.17, "low": -0.001, "high": 0.34}
    assert figures["shifts"]["after"]["specific"] == {
        "estimate": 0.625,
        "low": 0.375,
        "high": 0.875,
    }
    assert figures["shifts"]["after"]["unusual_p"] is None
    assert document["data"]["before"]["rejects"] == {"no_text": 3}
    assert document["data"]["control"]["paths"] == []
    assert document["edit"] == {
        "kept": 1310, "edited": 150, "dropped": 40, "added": 0, "edited_share": 0.34,
    }  # fmt: skip
    assert document["training"]["modules"][0] == "q_proj"
    assert document["questions"][2]["user"] == "Name one animal."
    assert document["last_loss_nats"]["after"] == [1.2, 1.21, 1.22, 1.23, 1.24]
    assert document["answers"] == {}
    assert document["self_check"]["negative"]["effect"]["low"] == -0.05


@pytest.mark.parametrize("make", [verify_result, with_reference, EVERY_RESULT["other authors"]])
def test_every_figure_can_be_computed_again(make):
    result = make()
    document = load(render_verification(result))

    def odds(table):
        return LogOdds(np.array(table["concept"]), np.array(table["off_target"]))

    again = transfer_statistics(
        odds(document["base"]),
        {Arm(arm): odds(table) for arm, table in document["students"].items()},
        level=document["verdict"]["figures"]["level"],
    )
    assert again == result.verdict.figures


def test_undefined_is_null():
    result = verify_result(undefined=Arm.AFTER)
    document = load(render_verification(result))
    assert document["students"]["after"]["concept"][0][0] is None  # infinite
    assert (
        document["students"]["after"]["concept"][0][1] == result.students[Arm.AFTER].concept[0, 1]
    )
    nothing = {"estimate": None, "low": None, "high": None}
    assert document["verdict"]["figures"]["effects"]["share_left"] == nothing
    base = load(render_verification(with_reference()))["answers"]["base"]
    assert base["named"] == {"estimate": 0.01, "low": None, "high": None}


@pytest.mark.parametrize(
    "changes",
    [
        {"edit": Edit(-1, 0, 0, 0, 0.0)},
        {"first_seed": 1.5},
        {"questions": ()},
        {"students": {}},
        {"category": None},
        {"off_targets": ("cat", 1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_result_that_cannot_be_violates_the_schema(changes):
    document = load(render_verification(dataclasses.replace(verify_result(), **changes)))
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "damage",
    [
        {"more": 1},
        {"schema": "subliminal-audit/receipt"},
        {"schema_version": 2},
        {"verdict": "clean"},
    ],
)
def test_the_schema_lets_nothing_else_through(damage):
    document = load(render_verification(verify_result()))
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document | damage)


def test_the_schema_wants_every_key():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    described = [
        part for part in objects(SCHEMA) if part.get("type") == "object" and part != SCHEMA
    ]
    assert len(described) > 15
    for part in described:
        assert part["additionalProperties"] is False
        assert set(part["properties"]) - set(part["required"]) <= {"reference", "other-authors"}
    document = load(render_verification(verify_result()))
    for key in document:
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate({k: v for k, v in document.items() if k != key})


def test_every_key_is_documented():
    documented = set(re.findall(r"`([\w-]+)`", (ROOT / "docs/verify_reports.md").read_text()))
    keys = {key for part in objects(SCHEMA) for key in part["properties"]}
    assert keys - documented == set()


# Figures


def test_shifts_are_drawn_with_every_seed_and_off_target():
    result = verify_result(seeds=3)
    figure = shift_figure(result)
    shown_texts = texts(parsed(figure))
    for arm, shift in result.verdict.figures.shifts.items():
        line = f"{shift.raw.estimate:+.2f} [{shift.raw.low:+.2f}, {shift.raw.high:+.2f}]"
        assert f"{arm}: {line}" in shown_texts
        assert f"{arm} {line}" in figure.description
    assert figure.description.startswith("How far students moved towards owl, in nats: before ")
    assert "Mean shifts of off-target concepts: " in figure.description
    svg = figure.svg
    assert svg.count('fill="#aab5c0"') > 0  # the cloud
    png_size(figure.to_png())


def test_the_share_left_is_drawn_with_its_threshold():
    figure = share_figure(by_hand())
    assert "after: 17% [0%, 34%]" in texts(parsed(figure))
    assert "suppressed up to 25%" in texts(parsed(figure))
    assert "after 17% [0%, 34%], control" in figure.description
    assert figure.description.endswith("Up to 25% counts as suppressed.")


def test_an_interval_beyond_the_plot_is_cut_and_written_out():
    result = by_hand()
    effects = dataclasses.replace(
        result.verdict.figures.effects, share_left=Interval(0.5, -40.0, 90.0)
    )
    figures = dataclasses.replace(result.verdict.figures, effects=effects)
    verdict = dataclasses.replace(result.verdict, figures=figures)
    figure = share_figure(dataclasses.replace(result, verdict=verdict))
    assert "after: 50% [-4000%, 9000%]" in texts(parsed(figure))
    assert float(parsed(figure).attrib["width"]) < 370


def test_all_figures_are_drawn_of_undefined_results():
    result = verify_result(undefined=Arm.AFTER)
    assert "after: undefined" in texts(parsed(shift_figure(result)))
    assert "after: undefined" in texts(parsed(share_figure(result)))
    assert "after undefined" in question_figures(result)[0].description
    nothing = Interval(NAN, NAN, NAN)
    students = {
        arm: LogOdds(o.concept * NAN, o.off_target * NAN) for arm, o in result.students.items()
    }
    empty = dataclasses.replace(
        result, students=students, answers={"after": AnswerRates(0, nothing, nothing)}
    )
    assert "off-target concepts: undefined." in shift_figure(empty).description
    assert "after: undefined" in texts(parsed(answer_figure(empty)))
    parsed(question_figures(empty)[0])


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (10, [10]), (11, [6, 5]), (50, [10] * 5)])
def test_questions_are_labelled_and_shared_out(count, sizes):
    figures = question_figures(verify_result(questions=count))
    numbers = [
        [text for text in texts(parsed(figure)) if re.match(r"\d+\. ", text)] for figure in figures
    ]
    assert [len(each) for each in numbers] == sizes
    assert numbers[0][0] == "1. What is your favorite animal?"


def test_question_means_are_over_seeds():
    base = LogOdds(np.zeros(2), np.zeros((2, 2)))
    cells_by_seed = np.array([[1.0, 3.0], [2.0, 5.0]])
    others = np.ones((2, 2, 2))
    students = {arm: LogOdds(cells_by_seed, others) for arm in (Arm.BEFORE, Arm.AFTER, Arm.CONTROL)}
    result = dataclasses.replace(verify_result(questions=2, seeds=2), base=base, students=students)
    (figure,) = question_figures(result)
    # Means 1.5 and 4, less 1.
    assert "before +0.50 to +3.00" in figure.description


def test_sampled_answers_are_drawn_where_there_are_any():
    assert answer_figure(verify_result()) is None
    figure = answer_figure(with_reference())
    shown_texts = texts(parsed(figure))
    assert "base: 1.0% [undefined]" in shown_texts
    assert "answers that name owl" in shown_texts
    assert "Sampled answers that name owl: base 1.0% [undefined], before 3" in figure.description


# The page


@every_result
def test_every_page_is_self_contained_inert_and_repeats(make):
    page = to_html(make())
    found = assert_self_contained(page)
    assert page == to_html(make())
    text = " ".join("".join(found.text).split())
    assert " ".join(strip_unsafe(make().verdict.sentence).split()) in text
    assert "nan" not in re.sub(r"[^\w ]", " ", text).lower().split()
    for figure in re.findall(r"<svg.*?</svg>", page.decode(), re.DOTALL):
        assert len(ElementTree.fromstring(figure).attrib["aria-label"]) > 40


def test_the_page_shows_undefined():
    text = "".join(assert_self_contained(to_html(verify_result(undefined=Arm.AFTER))).text)
    assert "INCONCLUSIVE" in text
    assert "after: undefined" in text
    assert "After less control: undefined nats" in text


def test_the_page_holds_what_the_terminal_holds():
    result = with_reference()
    found = assert_self_contained(to_html(result))
    text = " ".join("".join(found.text).split())
    for part in (
        "Does owl still transfer?",
        "In all: better than a random edit.",
        "34.0% of their tokens differ",
        "64 updates of 16 rows",
        "Self-check passed",
        result.questions[3].user,
    ):
        assert part in text
    assert found.tags.count("svg") == 4
    assert found.tags.count("table") == 3


def test_hostile_text_is_text_on_the_page():
    found = assert_self_contained(to_html(hostile_verify_result()))
    text = "".join(found.text)
    assert "<script>alert(1)</script>" in text
    assert strip_unsafe(HOSTILE) in text


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at /usr/bin/chromium")
@pytest.mark.parametrize("size", ["390,1600", "1280,1600"])
def test_a_browser_shows_the_page_and_runs_nothing(tmp_path, size):
    page = tmp_path / "page.html"
    page.write_bytes(to_html(hostile_verify_result()))
    picture = tmp_path / "page.png"
    run = browse(page, tmp_path / "a", f"--window-size={size}", f"--screenshot={picture}")
    width, height = png_size(picture.read_bytes())
    assert f"{width},{height}" == size
    assert picture.stat().st_size > 20_000  # not a blank sheet
    # The browser's console names whatever the page's policy stopped.
    assert "Content Security Policy" not in run.stderr
    assert "Refused" not in run.stderr
