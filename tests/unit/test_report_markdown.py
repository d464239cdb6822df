import dataclasses
import re

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from audit.report.markdown import COMMENT_CHARACTERS_LIMIT, to_markdown
from detectors.finding import EvidenceRow, Verdict
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    HOSTILE,
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

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
OWN_HTML = re.compile(r"\A(<details><summary>[\w ]+( \(\d+\))?</summary>|</details>)\n?\Z")


def tokens(text: str) -> list[Token]:
    return [t for token in PARSER.parse(text) for t in (token, *(token.children or ()))]


def visible(text: str) -> str:
    """What a reader sees: text and code, without mark-up."""
    return " ".join(t.content for t in tokens(text) if t.type in {"text", "code_inline", "fence"})


@pytest.mark.parametrize("name", EVERY_OUTCOME)
def test_every_outcome_says_verdict_rejects_and_limits(name: str) -> None:
    result = EVERY_OUTCOME[name]()
    text = to_markdown(result)
    assert text.splitlines()[0].startswith("## subliminal-audit: ")
    assert name.upper() in text.splitlines()[0]
    assert all(limit in visible(text) for limit in LIMITS)
    rejects = "11 rows rejected" if result.rows_rejected else "No row was rejected"
    assert rejects in text
    assert text == to_markdown(result)


def test_an_incomplete_scan_shows_its_flag() -> None:
    text = to_markdown(incomplete_result())
    assert "INCOMPLETE, AND FLAGGED" in text
    assert "**broken off** at `data/extra.jsonl.zst:901`" in text


def test_table_tokens_and_evidence() -> None:
    text = to_markdown(flagged_result())
    assert "| **FLAGGED** error | `owl` `animal` | `SA002` | +0.142 (+0.110 to +0.174)" in text
    assert "| `087` | 412 | 198.3 | 2.1× | +0.731 (+0.611 to +0.851) |" in text
    assert "data/train.jsonl:1043\n    480, 725, «087», «693», 747, «087»" in text
    assert "… and 31 more not detected (smallest detectable effect" in text


def test_concepts_with_a_sign_for_each_detector() -> None:
    text = to_markdown(disagreeing_result())
    assert "| verdict | concept | p | q | `SA001` | `SA002` | `SA003` | `SA004` | `SA005` |" in text
    assert "| **FLAGGED** error | `owl` `animal` | 1.2e-6 | 2.7e-5 | ○ | ? | ▲ | ○ | ○ |" in text
    assert (
        "| inconclusive: too little power | `cat` `animal` | 0.32 | 1.00 | ? | ? | ○ | ○ | ○ |"
    ) in text
    assert "- `owl`: SA003 likelihood (p 3e-07) flags it; SA004 divergence (p 0.9)" in text
    assert len(table_rows(tokens(text), 9)) == 12


def test_hostile_text_stays_text() -> None:
    text = to_markdown(hostile_result())
    assert_inert(text)
    found = tokens(text)
    assert not [t for t in found if t.type in {"html_inline", "image", "link_open", "strong"}]
    assert all(OWN_HTML.match(t.content) for t in found if t.type == "html_block")
    headings = [found[i + 1].content for i, t in enumerate(found) if t.type == "heading_open"]
    assert [h for h in headings if h in {"head", "Not read", "Not tested"}] == [
        "Not read",
        "Not tested",
    ]
    # Every table row keeps the columns of its header, whatever pipes are in the data.
    assert len({sum(t.type == "td_open" for t in row) for row in table_rows(found, 8)}) == 1
    assert "@everyone" not in visible_sentences(found)
    assert "<script>" in visible(text)


def table_rows(found: list[Token], columns: int) -> list[list[Token]]:
    rows: list[list[Token]] = []
    for token in found:
        if token.type == "tr_open":
            rows.append([])
        elif rows:
            rows[-1].append(token)
    return [row for row in rows if sum(t.type == "td_open" for t in row) == columns]


def visible_sentences(found: list[Token]) -> str:
    return " ".join(t.content for t in found if t.type == "text")


@pytest.mark.parametrize(
    "text",
    [
        "````",
        "`" * 12,
        "\n```\n# x",
        "~~~",
        "a|b\\|c",
        "`",
        " ` ",
        "\\",
        "</details>",
        "1. x",
        "- x",
    ],
)
def test_data_cannot_leave_its_cell_or_fence(text: str) -> None:
    bad = dataclasses.replace(
        owl(), concept=text, message=text, evidence=(EvidenceRow(text, 1, text, 1.0),)
    )
    found = tokens(to_markdown(composed(flagged_result(), findings=(bad,))))
    assert sum(t.type == "fence" for t in found) == 1
    assert len(table_rows(found, 8)) == 1
    assert sum(t.type == "heading_open" for t in found) == 7
    assert sum(t.type == "ordered_list_open" for t in found) == 0
    assert all(OWN_HTML.match(t.content) for t in found if t.type == "html_block")


def test_a_comment_is_never_too_long_for_github() -> None:
    flags = tuple(
        dataclasses.replace(
            f,
            verdict=Verdict.FLAGGED,
            message="word " * 500,
            evidence=owl().evidence,
            tokens=owl().tokens,
            notes=(HOSTILE,) * 60,
        )
        for f in clear_findings(120)
    )
    text = to_markdown(composed(flagged_result(), findings=flags))
    assert len(text) <= COMMENT_CHARACTERS_LIMIT
    assert "flagged findings are left out" in text
