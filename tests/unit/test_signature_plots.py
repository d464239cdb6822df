import math
import re
import struct
import sys
import zlib
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from audit.errors import MissingExtraError
from audit.report.drawing import Figure
from audit.report.signature_plots import (
    causal_figure,
    cluster_order,
    concept_figure,
    overview_figure,
    shift_figure,
    similarity_figure,
)
from signatures.causal import CausalTrial, UnitRole
from signatures.library import ProbeRecord, SignatureLibrary
from signatures.number_trie import NUMBERS
from signatures.signature import Probe, ProbeTable, View
from signatures.summary import summarise
from tests import synthetic
from tests.unit.test_report_safe_text import assert_inert

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {f"{SVG}{tag}" for tag in ("svg", "g", "path", "line", "rect", "text")}
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "]]><svg onload=alert(1)>",
    "\x1b[31mred\x1b[0m \u202eowl",
    "' onclick='alert(1)",
    "\ufffe\ud800 & &lt;",
)
HOSTILE_UNITS = tuple(
    f"{start}{i}"
    for i in range(8)
    for start in ("<b>", "]]>", "\x1b]0;", "\u202e", "\uffff", "&", " ")
)


def with_causal(library: SignatureLibrary) -> SignatureLibrary:
    trials = [
        CausalTrial(table.probe, name, f"{role}{i}", role, rise)
        for table in library.tables
        for place, name in enumerate(table.concepts)
        for role, base in ((UnitRole.ENTANGLED, 0.3 - 0.2 * place), (UnitRole.CONTROL, 0.0))
        for i, rise in enumerate((base - 0.1, base, base + 0.1))
    ]
    return replace(library, causal=tuple(trials))


def hostile_library() -> SignatureLibrary:
    rng = np.random.default_rng(0)
    shift = rng.normal(size=(len(HOSTILE_NAMES), len(HOSTILE_UNITS)))
    shift[:, 3] += 9  # a hub
    share = np.full(len(HOSTILE_UNITS), 1 / len(HOSTILE_UNITS))
    table = ProbeTable(
        View.VOCABULARY,
        Probe.CONTEXT,
        HOSTILE_UNITS,
        HOSTILE_NAMES,
        shift,
        np.full(shift.shape, 0.1),
        share,
        np.broadcast_to(share, shift.shape).copy(),
    )
    base = synthetic.library()
    concepts = tuple(
        replace(base.concepts[0], name=name, category=name, system_prompt=name)
        for name in HOSTILE_NAMES
    )
    record = ProbeRecord(
        View.VOCABULARY, Probe.CONTEXT, HOSTILE_NAMES[0], {"<i>": HOSTILE_NAMES[1]}
    )
    library = replace(
        base, name=HOSTILE_NAMES[0], concepts=concepts, probes=(record,), tables=(table,)
    )
    return with_causal(library)


LIBRARY = with_causal(synthetic.library(hub=0.5))
SUMMARY = summarise(LIBRARY)


def parsed(figure: Figure) -> ElementTree.Element:
    root = ElementTree.fromstring(figure.to_svg())
    for element in root.iter():
        assert element.tag in DRAWN
        assert not {name for name in element.attrib if name.startswith("on") or "href" in name}
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height, after a check of the signature and of every chunk."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunk = data[at + 4 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(chunk)
        kinds.append(chunk[:4])
        at += 12 + length
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_a_concept_is_plotted_with_its_units_named() -> None:
    figure = shift_figure(LIBRARY.tables[0], SUMMARY.tables[0], "owl")
    shown = texts(parsed(figure))
    part = SUMMARY.concept("owl").tables[0]
    for unit in (*part.top[:8], *part.bottom[:4]):
        assert unit.unit in shown
    for hub in SUMMARY.tables[0].hubs[:5]:
        assert hub.unit in shown
    assert SUMMARY.tables[0].hubs
    assert figure.description.startswith("owl, numbers, context probe")
    assert part.top[0].unit in figure.description


def test_all_numbers_are_dots_and_thinning_keeps_the_extremes() -> None:
    figure = shift_figure(LIBRARY.tables[0], SUMMARY.tables[0], "owl")
    assert longest_path(figure).count("Z") == len(NUMBERS)
    thin = shift_figure(LIBRARY.tables[0], SUMMARY.tables[0], "owl", 400)
    assert longest_path(thin).count("Z") == 400
    assert thin == shift_figure(LIBRARY.tables[0], SUMMARY.tables[0], "owl", 400)
    assert len(thin.svg) < 20_000


def longest_path(figure: Figure) -> str:
    return max((element.attrib.get("d", "") for element in parsed(figure).iter()), key=len)


def test_labels_do_not_overlap() -> None:
    figure = shift_figure(LIBRARY.tables[0], SUMMARY.tables[0], "owl")
    part = SUMMARY.concept("owl").tables[0]
    named = {unit.unit for unit in (*part.top[:8], *part.bottom[:4])}
    heights = sorted(
        float(re.findall(r"[-\d.]+", element.attrib["transform"])[1])
        for element in parsed(figure).iter(f"{SVG}text")
        if element.text in named
    )
    assert len(heights) == 12
    assert min(np.diff(heights)) >= 12.8


def test_a_question_probe_is_plotted_against_the_shared_shift() -> None:
    library = synthetic.library(probe=Probe.QUESTION)
    shown = texts(parsed(shift_figure(library.tables[0], summarise(library).tables[0], "cat")))
    assert "shift that all share, nats" in shown
    assert "share without the concept (log scale)" not in shown


def test_a_share_of_zero_still_has_a_place() -> None:
    share = LIBRARY.tables[0].neutral_share.copy()
    share[:5] = 0.0
    table = replace(LIBRARY.tables[0], neutral_share=share)
    summary = summarise(replace(LIBRARY, tables=(table,)))
    figure = shift_figure(table, summary.tables[0], "owl")
    assert longest_path(figure).count("Z") == len(NUMBERS)
    assert "NaN" not in figure.svg


def test_the_heat_map_names_every_concept_on_both_sides() -> None:
    figure = similarity_figure(LIBRARY.tables[0], LIBRARY)
    shown = texts(parsed(figure))
    for name in LIBRARY.tables[0].concepts:
        assert shown.count(name) == 2
    assert "Most alike: " in figure.description
    # Every pair twice; equal colours are joined into few paths.
    paths = [e.attrib["d"] for e in parsed(figure).iter(f"{SVG}path")]
    count = len(LIBRARY.tables[0].concepts)
    assert sum(path.count("Z") for path in paths) == count * (count - 1) + 20  # and the key
    assert len(paths) < 100


def test_alike_concepts_stand_side_by_side() -> None:
    alike = np.full((4, 4), -0.4)
    for one, other in ((0, 2), (1, 3)):
        alike[one, other] = alike[other, one] = 0.9
    np.fill_diagonal(alike, 1.0)
    order = cluster_order(alike)
    assert sorted(order) == [0, 1, 2, 3]
    assert abs(order.index(0) - order.index(2)) == 1
    assert abs(order.index(1) - order.index(3)) == 1
    assert cluster_order(np.full((3, 3), np.nan)) != []


def test_causal_effects_are_drawn_largest_first() -> None:
    figure = causal_figure(SUMMARY)
    assert figure is not None
    names = [text for text in texts(parsed(figure)) if text in LIBRARY.tables[0].concepts]
    assert names == list(LIBRARY.tables[0].concepts)  # made to fall from 0.3
    assert "raises the concept" in texts(parsed(figure))
    assert causal_figure(summarise(replace(LIBRARY, causal=()))) is None


@pytest.mark.parametrize("names", [(), ("owl",), ("owl", "cat")])
def test_pictures_are_real_and_of_a_sane_size(names: tuple[str, ...]) -> None:
    figure = concept_figure(LIBRARY, SUMMARY, names) if names else overview_figure(LIBRARY, SUMMARY)
    data = figure.to_png()
    width, height = png_size(data)
    assert 500 < width < 6000
    assert 500 < height < 6000
    assert 10_000 < len(data) < 3_000_000
    assert set(names) <= set(texts(parsed(figure)))


def test_a_very_large_picture_is_drawn_smaller() -> None:
    huge = Figure('<svg xmlns="http://www.w3.org/2000/svg" width="4000" height="9000"></svg>', "")
    width, height = png_size(huge.to_png())
    assert width * height == pytest.approx(36e6, rel=0.01)


def test_hostile_text_is_inert_in_drawings() -> None:
    library = hostile_library()
    summary = summarise(library)
    for figure in (
        overview_figure(library, summary),
        concept_figure(library, summary, HOSTILE_NAMES),
    ):
        text = figure.to_svg().decode()
        assert_inert(text)
        assert "<script" not in text
        shown = texts(parsed(figure))
        assert any("<script>alert(1)</s" in part for part in shown)
        assert not any(c in part for part in shown for c in "\ufffe\uffff\ud800")
        png_size(figure.to_png())


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(MissingExtraError, match=r"subliminal-audit\[report\]"):
        overview_figure(LIBRARY, SUMMARY)


def test_one_concept_alone_can_be_drawn() -> None:
    table = LIBRARY.tables[0].select_concepts(("owl",))
    library = replace(LIBRARY, tables=(table,), concepts=(LIBRARY.concept("owl"),), causal=())
    summary = summarise(library)
    assert math.isnan(summary.tables[0].own_rms_nats)
    png_size(overview_figure(library, summary).to_png())
    png_size(concept_figure(library, summary, ["owl"]).to_png())
