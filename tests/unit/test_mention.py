"""SA001: names, however they are written, and nothing that only looks like one."""

import polars as pl
import pytest

from detectors.detector import TestSettings
from detectors.finding import Reason, Verdict
from detectors.mention import MentionDetector
from detectors.verdict import settle
from tests import synthetic


def run(data, reference=None):
    detector = MentionDetector(synthetic.library(), TestSettings())
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
