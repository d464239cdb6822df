"""Pages in a real browser: nothing runs, nothing is asked for, everyone can read them.

Accessibility is checked by axe-core, which the package ``axe-playwright-python`` carries; the
browser is the system's Chromium.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from audit.report.scan_page import to_html
from audit.report.signature_page import to_page
from audit.report.verify_page import to_html as verify_html
from signatures.summary import summarise
from tests import synthetic
from tests.e2e.test_signature_page import BROWSER, assert_self_contained
from tests.unit.test_report_examples import disagreeing_result, incomplete_result
from tests.unit.test_scan_page import hostile, of_several, several
from tests.unit.test_signature_plots import hostile_library, with_causal
from tests.verify_results import hostile_verify_result, verify_result

AUDIT = Path(sys.executable).parent / "audit"
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium at /usr/bin/chromium")

VIEWS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"},
    "narrowest": {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark"},
}


def planted(folder: Path) -> bytes:
    """The page of a real scan."""
    data, reference = EXAMPLES / "planted.jsonl.gz", EXAMPLES / "reference.jsonl.gz"
    target = folder / "x.html"
    command = [
        AUDIT,
        "scan",
        data,
        "-r",
        reference,
        "--student-family",
        "llama",
        "-q",
        "-o",
        target,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 1, run.stderr
    return target.read_bytes()


def library_page() -> bytes:
    library = with_causal(synthetic.library(hub=0.5))
    return to_page(library, summarise(library))


def hostile_library_page() -> bytes:
    library = hostile_library()
    return to_page(library, summarise(library))


PAGES: dict[str, Callable[[], bytes]] = {
    "several": lambda: of_several(several()[2:]),
    "five detectors": lambda: to_html(disagreeing_result()),
    "incomplete": lambda: to_html(incomplete_result()),
    "hostile": lambda: to_html(hostile()),
    "library": library_page,
    "hostile library": hostile_library_page,
    "verification": lambda: verify_html(verify_result()),
    "hostile verification": lambda: verify_html(hostile_verify_result()),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = driver.chromium.launch(executable_path=BROWSER, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page as a file."""
    folder = tmp_path_factory.mktemp("pages")
    written = {}
    for name, made in {**PAGES, "planted": lambda: planted(folder)}.items():
        written[name] = folder / f"{name}.html"
        written[name].write_bytes(made())
    return written


def open_page(browser: Browser, path: Path, view: str, **options: Any) -> tuple[Page, list[str]]:
    """The page, and whatever the console said or the page asked for."""
    page = browser.new_context(**VIEWS[view], offline=True, **options).new_page()
    page.set_default_timeout(120_000)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri())
    assert heard == [path.as_uri()]
    heard.clear()
    return page, heard


@pytest.mark.parametrize(
    ("name", "view"),
    [
        *(("planted", view) for view in VIEWS),
        *((name, view) for name in PAGES for view in ("desktop", "narrowest")),
    ],
)
def test_axe_finds_nothing_and_the_page_fits(
    browser: Browser, pages: dict[str, Path], name: str, view: str
) -> None:
    page, _ = open_page(browser, pages[name], view, bypass_csp=True)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= VIEWS[view]["viewport"]["width"]  # type: ignore[index]
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate(AXE)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert found["testEngine"]["name"] == "axe-core"
    assert len(found["passes"]) > 10
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]] == []
    page.context.close()


@pytest.mark.parametrize(
    "name", ["hostile", "hostile library", "hostile verification", "planted", "several"]
)
def test_nothing_runs_and_nothing_is_asked_for(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    page, heard = open_page(browser, pages[name], "desktop")
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    for element in page.query_selector_all("blockquote, summary, mark")[:20]:
        element.hover()
    assert page.evaluate("typeof window.hit") == "undefined"
    assert page.query_selector_all("script, iframe, img, object, embed, form, [onload]") == []
    assert page.evaluate("[...document.links].every(a => a.getAttribute('href')[0] == '#')")
    assert heard == []
    page.context.close()


def test_the_policy_stops_a_script_that_got_in(browser: Browser, tmp_path: Path) -> None:
    page = to_html(incomplete_result()).decode()
    bad = tmp_path / "bad.html"
    bad.write_text(page.replace("</main>", "<script>window.hit = 1</script></main>"), "utf-8")
    opened = browser.new_page()
    heard: list[str] = []
    opened.on("console", lambda message: heard.append(message.text))
    opened.goto(bad.as_uri())
    assert opened.evaluate("typeof window.hit") == "undefined"
    assert any("Content Security Policy" in text for text in heard)
    opened.close()


def test_print_shows_what_is_folded(browser: Browser, pages: dict[str, Path]) -> None:
    page, _ = open_page(browser, pages["planted"], "desktop")
    tables = "[...document.querySelectorAll('details table')].map(t => t.checkVisibility())"
    on_screen = page.evaluate(tables)
    assert len(on_screen) == 3
    assert not any(on_screen)
    page.emulate_media(media="print")
    assert all(page.evaluate(tables))
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.context.close()


@pytest.mark.parametrize("name", ["planted", "five detectors", "several", "hostile"])
def test_nothing_is_cut_off_in_print(browser: Browser, pages: dict[str, Path], name: str) -> None:
    page, _ = open_page(browser, pages[name], "desktop")
    page.set_viewport_size({"width": 688, "height": 900})  # A4 within the page's margins
    page.emulate_media(media="print")
    beyond = page.evaluate(
        "[...document.querySelectorAll('table, svg, p, dl, blockquote')]"
        ".filter(part => part.getBoundingClientRect().right > innerWidth + 1)"
        ".map(part => part.outerHTML.slice(0, 100))"
    )
    assert beyond == []
    page.context.close()


def test_everything_that_scrolls_is_reached_by_keyboard(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page, _ = open_page(browser, pages["several"], "narrowest")
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    scrollers = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        " getComputedStyle(e).overflowX == 'auto').map(e => [e.tabIndex, e.getAttribute('role'),"
        " e.getAttribute('aria-label')])"
    )
    assert len(scrollers) > 5
    assert all(place == 0 and role == "region" and label for place, role, label in scrollers)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.context.close()


def test_the_page_of_a_real_scan_stands_alone(pages: dict[str, Path]) -> None:
    found = assert_self_contained(pages["planted"].read_bytes())
    shown = " ".join("".join(found.text).split())
    assert "▲ FLAGGED cat flagged in 1,536 rows." in shown
    assert "mark" in found.tags
