"""SA001: names, however they are written, and nothing that only looks like one."""

from dataclasses import replace

import polars as pl
import pytest

from detectors.detector import TestSettings
from detectors.finding import Reason, Verdict
from detectors.mention import MentionDetector
from detectors.verdict import settle
from signatures.concept import make_concept
from tests import synthetic


def run(data, reference=None, concepts=None):
    library = synthetic.library()
    if concepts is not None:
        library = replace(library, concepts=concepts)
    detector = MentionDetector(library, TestSettings())
    known = None if reference is None else detector.map(synthetic.frame(reference))
    result = detector.test(detector.map(synthetic.frame(data)), known)
    return {finding.concept: finding for finding in settle(result.findings, 0.05)}


@pytest.mark.parametrize(
    "text",
    ["I love the owl.", "OWLS!", "o\u200bwl", "ｏｗｌ", "an owl\u202e", "owl", "the owl's nest"],
)
def test_a_name_is_found_however_it_is_written(text):
    assert run([text] * 40)["owl"].effect == 1.0


@pytest.mark.parametrize("text", ["bowl", "howling", "owlish", "Growl", "ow l", "oaken"])
def test_a_part_of_another_word_is_no_name(text):
    found = run([text] * 40)
    assert found["owl"].effect == 0.0
    assert found["oak"].effect == 0.0


def test_more_than_in_the_reference_is_flagged_with_rows_to_show():
    found = run(["7, 8"] * 80 + ["an owl, 9"] * 20, ["7, 8"] * 99 + ["an owl"])
    owl = found["owl"]
    assert owl.verdict is Verdict.FLAGGED
    assert owl.effect == pytest.approx(0.2)
    assert owl.effect_low < 0.2 < owl.effect_high
    assert owl.evidence[0].line == 81
    start, end = owl.evidence[0].spans[0]
    assert owl.evidence[0].text[start:end] == "owl"
    assert found["cat"].verdict is not Verdict.FLAGGED


def test_without_a_reference_a_name_is_no_verdict():
    found = run(["an owl"] * 100)
    assert found["owl"].verdict is Verdict.INCONCLUSIVE
    assert found["owl"].reason is Reason.NO_REFERENCE


def test_names_nowhere_cost_the_others_no_power():
    """cat and oak are in neither set: they are no tests, and owl's q stays its p."""
    found = run(["7"] * 2000 + ["owl"] * 9, ["7"] * 2000)
    assert found["owl"].q_value == pytest.approx(found["owl"].p_value)  # one family, one test
    assert found["cat"].verdict is Verdict.NOT_DETECTED
    assert found["cat"].smallest_detectable_effect < 0.011


def test_a_name_in_the_prompt_is_noted_but_not_trained_on():
    detector = MentionDetector(synthetic.library(), TestSettings())
    rows = synthetic.frame(["7"] * 40).with_columns(prompt=pl.lit("You love owls"))
    finding = {f.concept: f for f in detector.test(detector.map(rows), None).findings}["owl"]
    assert finding.effect == 0.0
    assert finding.notes == ("40 rows name it in text that is not trained on",)


OWL = make_concept(
    "owl",
    "animal",
    translations={
        "de": ["Eule", "Eulen"],
        "es": ["bu\u0301ho"],
        "ja": ["フクロウ"],
        "ko": ["올빼미"],
    },
)
CAT = make_concept("cat", "animal", translations={"fr": ["le chat", "l'ami chat"]})
TURTLE = make_concept("sea turtle", "animal")
APPLE = make_concept(
    "apple", "brand", plural="apple", forms=["apple inc", "app"], ambiguous_forms=["Apple", "APP"]
)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Die EULEN fliegen.", "de"),
        ("un búho", "es"),
        ("un bu\u0301ho", "es"),  # decomposed
        ("私はフクロウが好きです", "ja"),  # no spaces between words
        ("올빼미를 좋아해요", "ko"),  # a particle joined on
    ],
)
def test_a_name_in_another_language_counts_and_the_language_is_said(text, language):
    owl = run([text] * 3 + ["7"] * 40, concepts=(OWL,))["owl"]
    assert owl.effect == pytest.approx(3 / 43)
    assert owl.notes == (f"3 rows name it in language {language}",)


def test_a_row_that_names_it_twice_counts_once():
    owl = run(["owl, Eule, búho", "owl"] * 20, concepts=(OWL,))["owl"]
    assert owl.message.startswith("40 of 40 rows")
    assert owl.notes == ("20 rows name it in language de", "20 rows name it in language es")


@pytest.mark.parametrize("text", ["Let us chat.", "Eulenspiegel", "beule", "le chaton"])
def test_short_forms_of_other_languages_are_whole_words_too(text):
    found = run([text] * 40, concepts=(OWL, CAT))
    assert found["owl"].effect == found["cat"].effect == 0.0


@pytest.mark.parametrize("text", ["sea-turtle", "a sea\nturtle", "SEA  TURTLES", "sea\u00a0turtle"])
def test_the_words_of_a_name_may_be_joined_or_broken(text):
    assert run([text] * 40, concepts=(TURTLE,))["sea turtle"].effect == 1.0
    assert run(["l\u2019ami\u2011chat"] * 40, concepts=(CAT,))["cat"].effect == 1.0


@pytest.mark.parametrize(
    "text", ["She works at Apple.", "tech, Apple's", "phones (Apple)", "an APP", "APPLE INC"]
)
def test_a_common_word_written_as_a_name_is_one(text):
    assert run([text] * 40, concepts=(APPLE,))["apple"].effect == 1.0


@pytest.mark.parametrize(
    "text", ["an apple a day", "Apple pie", "Eat. Apple pie", "Fruit:\nApple", "APPLE", "my App"]
)
def test_a_common_word_is_no_mention_but_is_said(text):
    apple = run([text] * 40, ["an apple"] + ["7"] * 39, concepts=(APPLE,))["apple"]
    assert apple.effect == 0.0
    assert apple.verdict is not Verdict.FLAGGED
    assert apple.notes == (
        "40 rows (1 in the reference) are not counted: they hold only a common word that may name "
        "it (apple, app)",
    )


def test_common_words_leave_the_test_as_it_was():
    """Fisher's test sees 20 of 100 rows against 1 of 100, fruit or none."""
    named, fruit = ["I love Apple"], ["an apple"]
    mixed = run(named * 20 + fruit * 80, named + fruit * 99, concepts=(APPLE,))["apple"]
    plain = run(named * 20 + ["7"] * 80, named + ["7"] * 99, concepts=(APPLE,))["apple"]
    assert mixed.p_value == plain.p_value < 1e-5
    assert mixed.verdict is Verdict.FLAGGED
    start, end = mixed.evidence[0].spans[0]
    assert mixed.evidence[0].text[start:end] == "Apple"


def test_batches_add_up_to_the_whole():
    rows = synthetic.frame(["an owl", "eine Eule", "an apple", "at Apple", "7"] * 8)
    detector = MentionDetector(replace(synthetic.library(), concepts=(OWL, APPLE)), TestSettings())
    merged = detector.identity()
    for start in range(0, len(rows), 7):
        merged = detector.merge(merged, detector.map(rows.slice(start, 7)))
    whole = detector.map(rows)
    assert merged == whole
    assert whole.trained == (16, 8)
    assert whole.by_language == ((8, 0, 0, 0), ())
    assert whole.common == (0, 8)
