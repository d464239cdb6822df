"""The page of a scan: what it says, what it marks, what it leaves out, and that data stay text."""

from __future__ import annotations

import dataclasses
import random
import re
import sys
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from audit.cli.main import main
from audit.errors import MissingExtraError
from audit.named_scan import Accepted, AcceptedBy, NamedScan
from audit.report.drawing import INK, Figure
from audit.report.formats import check_formats, format_for_path, write_outputs
from audit.report.page import render_page
from audit.report.scan_page import scans_to_html, to_html
from audit.report.scan_plots import (
    ON_STRONG,
    STEPS,
    Cell,
    effect_figure,
    heat_map,
    step,
    token_figure,
)
from audit.report.summary import MEANING
from audit.scan_result import ScanResult
from detectors.finding import EvidenceRow, TokenEnrichment, Verdict
from tests.e2e.test_signature_page import assert_self_contained
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    HOSTILE,
    clear_result,
    disagreeing_result,
    finding,
    flagged_result,
    hostile_result,
    incomplete_result,
    inconclusive_result,
    owl,
    result,
)
from tests.unit.test_signature_plots import parsed, texts

MARKUP = (
    HOSTILE + "</style><style>*{display:none}</style></title><svg onload=window.hit=1>"
    "<img src=x onerror=window.hit=1><a href='javascript:window.hit=1'>x</a>]]><script>"
    "window.hit=1</script><iframe srcdoc='<script>parent.hit=1</script>'></iframe>"
    '"; background:url(https://evil.example) {{ 7*7 }} {% raw %} ${7*7} datum.x +'
    "' onmouseover=window.hit=1 style=position:fixed "
)


def hostile() -> ScanResult:
    """The result of which every text from data is ``MARKUP``."""

    def changed(value: Any) -> Any:
        if value == HOSTILE:
            return MARKUP
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: changed(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return dataclasses.replace(value, **fields)
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        if isinstance(value, dict):
            return {changed(key): changed(each) for key, each in value.items()}
        return value

    made = changed(hostile_result())
    assert isinstance(made, ScanResult)
    return made


def several() -> list[NamedScan]:
    """Six data sets: two with a flag that counts, one with accepted flags only, and others."""
    known = Accepted("SA002", "owl", AcceptedBy.SUPPRESSION, "ana", "a set on owls", "2027-01-31")
    baseline = [
        Accepted(code, concept, AcceptedBy.BASELINE, "", "", "")
        for code, concept in (("SA002", "owl"), ("SA001", "love of the moon"))
    ]
    return [
        NamedScan("quiet", clear_result()),
        NamedScan("half", flagged_result(), (known,)),
        NamedScan("whole", flagged_result(), tuple(baseline)),
        NamedScan("broken", incomplete_result()),
        NamedScan("small", inconclusive_result()),
        NamedScan("five", disagreeing_result()),
    ]


def of_several(scans: list[NamedScan]) -> bytes:
    return scans_to_html(scans, verdict="FAILED", headline="Two data sets have flags.")


class Text(HTMLParser):
    """The words of a page in order, the texts of ``mark`` elements, and rows of tables."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.words: list[str] = []
        self.marked: list[str] = []
        self.rows: list[list[str]] = []
        self._tags: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self._tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
        elif tag == "mark":
            self.marked.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._tags:
            return
        self.words.append(data)
        if "mark" in self._tags:
            self.marked[-1] += data
        if {"td", "th"} & set(self._tags):
            self.rows[-1][-1] += data

    @property
    def whole(self) -> str:
        return " ".join(" ".join(self.words).split())


# What the page says


@pytest.mark.parametrize("name", EVERY_OUTCOME)
def test_every_outcome_says_its_verdict_first_and_never_clean(name: str) -> None:
    made = EVERY_OUTCOME[name]()
    page = to_html(made)
    assert_self_contained(page)
    shown = Text(page).whole
    main_part = shown.index("What this scan could not have seen")
    assert shown.index(made.headline) < main_part
    assert shown.index(MEANING[made.outcome]) < main_part
    assert made.outcome.value.upper() in shown[: shown.index(made.headline)]
    assert not re.search(r"\bclean\b", shown, re.IGNORECASE)
    for limit in made.limits:
        assert limit in shown
    assert page == to_html(made)
    assert not re.search(r"\b20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", shown)  # no time of day


def test_the_order_of_findings_changes_nothing() -> None:
    made = disagreeing_result()
    findings = list(made.findings)
    random.Random(1).shuffle(findings)
    assert to_html(dataclasses.replace(made, findings=tuple(findings))) == to_html(made)


def test_an_incomplete_scan_shows_its_flag_and_where_it_broke() -> None:
    shown = Text(to_html(incomplete_result())).whole
    assert "INCOMPLETE, AND FLAGGED" in shown
    assert "data/extra.jsonl.zst:901 zstd stream ends early" in shown
    assert "No row was rejected" not in shown


def test_tables_have_every_number_of_the_plots() -> None:
    rows = Text(to_html(flagged_result())).rows
    # concept, verdict, q, p, SA001, SA002, SA003, why, category
    assert ["owl", "▲ flagged", "<1e-16", "<1e-16", "", "▲flagged <1e-16", "–skipped",
            "error", "animal"] in rows  # fmt: skip
    # concept, test, verdict, effect, interval, detectable, statistic = effect / half width * 1.6
    assert ["owl", "SA002", "▲ flagged", "+0.142", "+0.110 to +0.174", "0.021", "7.1", "<1e-16",
            "<1e-16"] in rows  # fmt: skip
    # seen 412 of 198.3 expected, e**0.731 = 2.08
    assert ["087", "412", "198.3", "2.1×", "+0.731", "+0.611 to +0.851"] in rows


def test_disagreements_stand_with_the_verdicts() -> None:
    assert "SA003 likelihood (p 3e-07) flags it" in Text(to_html(disagreeing_result())).whole


def test_rows_are_marked_and_the_page_says_what_is_marked() -> None:
    found = Text(to_html(flagged_result()))
    # The three rows of owl: spans 10-13, 15-18, 25-28; 1-4, 7-10; 500-503, 505-508.
    assert found.marked[:5] == ["087", "693", "087", "693", "747"]
    assert len(found.marked) == 7
    assert "Marked: entangled numbers and tokens" in found.whole
    assert "data/train.jsonl:1043 , score +3.210" in found.whole


@pytest.mark.parametrize(
    ("code", "spans", "words"),
    [
        ("SA004", ((0, 3),), "Marked: divergence tokens"),
        ("SA003", (), "Marked: no part: the detector weighs the row as a whole."),
        ("SA001", ((0, 3),), "Marked: the concept's names"),
    ],
)
def test_each_detector_marks_what_it_looks_at(code: str, spans: Any, words: str) -> None:
    row = EvidenceRow("a.jsonl", 1, "087 1", 2.0, spans)
    found = dataclasses.replace(owl(), code=code, evidence=(row,))
    made = result(flagged_result().outcome, "owl flagged.", (found,))
    assert words in Text(to_html(made)).whole


def test_what_could_not_be_seen_is_told() -> None:
    found = Text(to_html(flagged_result()))
    assert ["not-json", "11", "the line is not JSON: repair it",
            "data/train.jsonl:12, data/train.jsonl:5 and 9 more"] in found.rows  # fmt: skip
    assert "SA003 likelihood needs the model: pass --model" in found.whole
    assert "has no surface forms (basilisk, kraken)" in found.whole
    assert "too few rows (1) unicorn" in found.whole
    assert ["cat", "not tested", "0.020"] in found.rows  # smallest detectable effect
    assert ["unicorn", "–", "not tested"] in found.rows


def test_provenance_has_whole_hashes() -> None:
    made = flagged_result()
    found = Text(to_html(made))
    for sha256 in (*(s.sha256 for s in made.sources), made.library.content_sha256):
        assert len(sha256) == 64
        assert sha256 in found.whole
    assert made.library.model_sha256 in found.whole
    assert "There was no reference file." in found.whole


def test_both_endings_ask_for_the_page_and_write_it(tmp_path: Path) -> None:
    paths = [tmp_path / "a.html", tmp_path / "b.HTM"]
    write_outputs(flagged_result(), [(format_for_path(path), path) for path in paths])
    assert [path.read_bytes() for path in paths] == [to_html(flagged_result())] * 2


# Several data sets


def test_several_data_sets_come_gravest_first_and_nothing_accepted_is_hidden() -> None:
    page = of_several(several())
    assert_self_contained(page)
    found = Text(page)
    assert "FAILED Two data sets have flags." in found.whole
    start = found.rows.index(["data set", "outcome", "flagged", "accepted", "rows", "rejected"])
    lines = found.rows[start + 1 : start + 7]
    assert [line[0].split(" ", 1)[1] for line in lines] == [
        "broken", "five", "half", "small", "whole", "quiet"
    ]  # fmt: skip
    assert lines[2][1:] == ["▲ flagged", "love of the moon", "owl", "11,986", "14"]
    assert lines[4][1:] == ["△ flagged, all accepted", "", "owl, love of the moon", "11,986", "14"]
    assert "Accepted by suppression until 2027-01-31: a set on owls (owner ana)." in found.whole
    assert found.whole.count("△ flagged, accepted") > 0
    # Heat map as a table: the six columns of owl, in the order of the lines.
    q = "2.7e-5"
    assert ["owl", "▲flagged <1e-16", f"▲flagged {q}", "△flagged, accepted <1e-16", "",
            "△flagged, accepted <1e-16", ""] in found.rows  # fmt: skip


def test_the_order_of_data_sets_changes_nothing() -> None:
    assert of_several(several()[::-1]) == of_several(several())


def test_no_data_set_is_no_pass() -> None:
    page = scans_to_html([], verdict="NOTHING SCANNED", headline="There was no data set.")
    assert "NOTHING SCANNED" in Text(page).whole
    assert 'class="verdict overall incomplete"' in page.decode()


def crowded(concepts: int, text: str) -> ScanResult:
    """Every concept flagged by two detectors with long rows, names and messages."""
    found = []
    for i in range(concepts):
        rows = tuple(EvidenceRow(text, n, text * 20, 1.0, ((0, 3), (900, 903))) for n in range(10))
        tokens = tuple(TokenEnrichment(text, 1.0, 9, 1.0, 1.1, 0.9, 1.3) for _ in range(40))
        for code in ("SA001", "SA002"):
            changes = {"category": text, "tokens": tokens, "evidence": rows, "notes": (text,) * 5}
            made = finding(f"{i} {text}", Verdict.FLAGGED, code=code, q=1e-9, message=text * 20)
            made = dataclasses.replace(made, **changes)  # type: ignore[arg-type]
            found.append(made)
    return result(flagged_result().outcome, text, tuple(found), limits=(text * 20,) * 50)


@pytest.mark.parametrize("sets", [1, 70])
def test_the_page_stays_small_and_says_what_it_leaves_out(sets: int) -> None:
    one = crowded(310 if sets == 1 else 60, "<é&\"'猫>" * 12)
    scans = [NamedScan(f"set {i}", one) for i in range(sets)]
    page = to_html(one) if sets == 1 else of_several(scans)
    assert len(page) < 5_000_000
    shown = Text(page).whole
    assert "more flagged findings are left out here" in shown
    assert "more concepts are left out here" in shown
    assert ("more data sets are left out here" in shown) == (sets > 1)


# Plots


@pytest.mark.parametrize(
    ("q_value", "shade"),
    [(float("nan"), 0), (1.0, 0), (0.51, 0), (0.5, 1), (0.051, 1), (0.05, 2), (0.0011, 2),
     (0.001, 3), (1.1e-6, 3), (1e-6, 4), (0.0, 4)],
)  # fmt: skip
def test_shades_of_the_heat_map(q_value: float, shade: int) -> None:
    assert step(q_value, 0.05) == shade


def test_the_heat_map_shows_signs_and_values_where_something_was_asked() -> None:
    cells = [[Cell("▲", 1e-7), None], [Cell("?", float("nan")), Cell("○", 0.8)]]
    figure = heat_map(
        ["owl", "cat"], ["SA001", "SA002"], cells, 0.05, with_numbers=True, description="told"
    )
    root = parsed(figure)
    shown = texts(root)
    assert sorted(shown) == sorted(["owl", "cat", "SA001", "SA002", "▲ 1.0e-7", "?", "○ 0.80"])
    assert (root.attrib["role"], root.attrib["aria-label"]) == ("img", "told")
    fills = [element.attrib.get("fill") for element in root.iter()]
    assert {STEPS[0], STEPS[4], ON_STRONG, INK} <= set(fills)


def test_effects_zero_and_what_could_be_detected_share_one_scale() -> None:
    # Of 0.30 (0.20 to 0.40) with 0.10 detectable: 0.10 lies a third of the way from zero.
    found = finding("owl", Verdict.FLAGGED, effect=0.3, half_width=0.1, q=1e-9,
                    smallest_detectable_effect=0.1)  # fmt: skip
    figure = effect_figure([found])
    assert figure is not None
    zero, detectable, bar, mark = marks(figure)
    assert detectable - zero == pytest.approx((mark - zero) / 3, abs=0.2)
    assert bar - zero == pytest.approx((mark - zero) * 2 / 3, abs=0.2)  # where the bar begins
    assert "owl +0.300 (+0.200 to +0.400), flagged" in figure.description


def marks(figure: Figure) -> tuple[float, ...]:
    """From the left edge: zero, the detectable effect, the bar's start and the effect."""

    def at(element: ElementTree.Element) -> float:
        place = re.match(r"translate\(([-\d.]+)", element.attrib["transform"])
        assert place is not None
        return float(place[1])

    groups = {}
    for group in parsed(figure).iter():
        for element in group:
            kind = element.tag.rsplit("}")[-1]
            drawn = {**group.attrib, **element.attrib}
            if "transform" not in element.attrib or kind not in {"line", "path"}:
                continue
            if kind == "path":
                groups["mark"] = at(element)
            elif drawn.get("stroke-dasharray"):
                groups["detectable"] = at(element)
            elif drawn.get("stroke") == "#5b6875" and float(element.attrib.get("y2", 0)) > 10:
                groups["zero"] = at(element)
            elif drawn.get("stroke") == "#b4540a":
                groups["bar"] = at(element) + min(0.0, float(element.attrib.get("x2", 0)))
    return groups["zero"], groups["detectable"], groups["bar"], groups["mark"]


def test_what_is_far_from_detectable_is_off_the_scale() -> None:
    near = finding("owl", effect=0.01, half_width=0.01, smallest_detectable_effect=9.0)
    figure = effect_figure([near])
    assert figure is not None
    assert "▸" in texts(parsed(figure))


def test_nothing_known_is_no_figure() -> None:
    nan = float("nan")
    unknown = finding("owl", effect=nan, effect_low=nan, effect_high=nan,
                      smallest_detectable_effect=nan)  # fmt: skip
    assert effect_figure([unknown]) is None
    assert token_figure("owl", [TokenEnrichment("1", 1.0, 0, nan, nan, nan, nan)]) is None


# Safety


def test_hostile_text_is_text() -> None:
    scans = [NamedScan(MARKUP, hostile(), (Accepted("SA002", MARKUP, AcceptedBy.BASELINE,
             MARKUP, MARKUP, MARKUP),))]  # fmt: skip
    for page in (
        to_html(hostile()),
        scans_to_html(scans, verdict=MARKUP, headline=MARKUP, notes=[MARKUP]),
    ):
        found = assert_self_contained(page)
        shown = "".join(found.text)
        assert "<script>window.hit=1</script>" in shown
        assert "{{ 7*7 }}" in shown
        assert "49" not in shown.replace("…", "")
        assert "␛[31mred" in shown


def test_a_page_that_cannot_be_drawn_is_refused_before_the_scan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    check_formats(["json", "terminal"])
    with pytest.raises(MissingExtraError, match="vl-convert-python"):
        check_formats(["json", "html"])
    data = tmp_path / "not-there.jsonl"  # would be refused otherwise, as it is read
    with pytest.raises(SystemExit) as ended:
        main(["scan", str(data), "-o", str(tmp_path / "x.html")])
    assert ended.value.code == 4
    assert "subliminal-audit[report]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Colours


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    digits = colour.removeprefix("#")
    digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("screen", ["light", "dark"])
def test_text_on_every_shade_can_be_read(screen: str) -> None:
    style = "".join(
        (resources.files("audit.report") / name).read_text("utf-8")
        for name in ("page.css", "scan_page.css")
    )
    colours: dict[str, str] = {}
    blocks = re.findall(r"(@media[^{]*dark\) \{\s*)?:root \{([^}]*)\}", style)
    for media, block in blocks:
        if media and screen == "light":
            continue
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", block))
    ink, strong = colours["ink"], colours["on-strong"]
    for index, over in enumerate((ink, ink, ink, strong, strong)):
        assert contrast(colours[f"step-{index}"], over) >= 4.5, index
    assert contrast(colours["marked"], ink) >= 4.5
    for name in ("ink", "muted", "raised", "lowered", "hub"):
        assert contrast(colours["panel"], colours[name]) >= 4.5, name
        assert contrast(colours["paper"], colours[name]) >= 4.5, name
    # The colours of the drawings are those that the page restyles.
    for index, fill in enumerate(STEPS):
        assert f'[fill="{fill}"] {{ fill: var(--step-{index}); }}' in style


def test_a_page_needs_every_fact() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        render_page("scan_page", {})
