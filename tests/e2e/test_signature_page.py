"""`audit signature show` as a user runs it, and its page in a real browser."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.report.signature_page import to_page
from audit.report.signature_terminal import render_concept, render_library
from signatures.library import load_library, save_library
from signatures.summary import summarise
from tests import synthetic
from tests.unit.test_report_safe_text import assert_inert
from tests.unit.test_signature_plots import HOSTILE_NAMES, hostile_library, png_size, with_causal

AUDIT = Path(sys.executable).parent / "audit"
BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser")
BROWSER = next((path for path in BROWSERS if shutil.which(path)), None)
VOID = {"meta", "br", "img", "input", "link", "hr"}


def audit(*arguments, columns=100):
    return subprocess.run(
        [AUDIT, "signature", "show", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"},
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("show")
    save_library(with_causal(synthetic.library(hub=0.5)), path / "lib")
    return path


class Page(HTMLParser):
    """Collects tags, text and references, and checks that tags are balanced."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(page.decode())
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def assert_self_contained(page: bytes) -> Page:
    """Nothing is run or fetched, all links lead somewhere, and the policy allows the style."""
    text = page.decode()
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(found.tags)
    names = {name for _, name, _ in found.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not {"style", "src", "xlink:href"} & names
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    for _, name, value in found.attributes:
        if name == "href":
            assert value.startswith("#")
            assert value[1:] in ids
        if name == "aria-labelledby":
            assert value in ids
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert ("meta", "content", policy) in found.attributes
    for tag in ("h1", "main", "nav", "header", "footer", "caption"):
        assert tag in found.tags
    assert found.tags.count("h1") == 1
    assert_inert(text)
    return found


def test_the_terminal_shows_the_bundled_library_by_default():
    run = audit()
    assert run.returncode == 0, run.stderr
    for heading in ("Tables", "Hubs", "Signal to noise of each concept", "Causal check"):
        assert f"\n{heading} ──" in run.stdout
    for table in summarise(load_library(BUNDLED_LIBRARY)).tables:
        assert f"{table.view}, {table.probe}" in run.stdout
        for hub in table.hubs[:2]:
            assert f"{hub.unit.strip()} ({hub.concepts})" in " ".join(run.stdout.split())


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_terminal_fits_its_width(folder, columns):
    run = audit(folder / "lib", columns=columns)
    assert run.returncode == 0, run.stderr
    assert max(map(len, run.stdout.splitlines())) <= columns
    assert "…" not in run.stdout.split("How the tables were measured")[0]
    assert "raises the concept" in run.stdout
    concept = audit(folder / "lib", "-c", "owl", columns=columns)
    assert max(map(len, concept.stdout.splitlines())) <= columns


def test_one_concept_at_a_terminal(folder):
    run = audit(folder / "lib", "--concept", "owl", "--concept", "cat")
    assert run.returncode == 0, run.stderr
    part = summarise(load_library(folder / "lib")).concept("owl").tables[0]
    for unit in part.top[:8]:
        assert re.search(rf"^ +{unit.unit} .*\+{unit.centred_nats:.3f}", run.stdout, re.MULTILINE)
    assert "own part" in run.stdout
    assert "noise unknown" in run.stdout  # the synthetic library's spreads are zero
    assert run.stdout.index("owl  thing") < run.stdout.index("cat  thing")


def test_json_and_every_file_at_once(folder):
    run = audit(
        *(folder / "lib", "-c", "owl", "--format", "json"),
        *("--html", folder / "x.html", "--png", folder / "x.png", "--svg", folder / "x.svg"),
    )
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["schema_version"] == 1
    assert [concept["name"] for concept in document["concepts"]] == ["owl"]
    found = assert_self_contained((folder / "x.html").read_bytes())
    assert found.tags.count("article") == 1
    png_size((folder / "x.png").read_bytes())
    assert (folder / "x.svg").read_bytes().startswith(b"<?xml")
    assert sorted(path.name for path in folder.iterdir()) == ["lib", "x.html", "x.png", "x.svg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lib", "-c", "owls"], "the library has no concept 'owls'; did you mean owl?"),
        (["nowhere"], "nowhere: no signature library here"),
        (["lib", "--png", "a", "--svg", "a"], "two outputs would go to the same file"),
        (["lib", *[f"-cdecoy {letter}" for letter in "abcdefg"], "--png", "a"], "at most 6"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(folder, arguments, message, monkeypatch):
    monkeypatch.chdir(folder)
    run = audit(*arguments)
    assert run.returncode == 4
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (folder / "a").exists()


def test_help_loads_no_drawing(folder):
    code = (
        "import sys; from audit.cli.main import cli\n"
        "cli.main(['signature', 'show', '--help'], standalone_mode=False)\n"
        "print({'vl_convert', 'jinja2', 'rich'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("set()")


def test_the_bundled_page_is_small_and_complete():
    library = load_library(BUNDLED_LIBRARY)
    page = to_page(library, summarise(library))
    assert len(page) < 5_000_000
    found = assert_self_contained(page)
    assert found.tags.count("article") == len(library.concepts)
    assert found.tags.count("svg") > len(library.concepts)


def test_hostile_text_is_inert_on_the_page_and_at_the_terminal():
    library = hostile_library()
    summary = summarise(library)
    found = assert_self_contained(to_page(library, summary))
    text = "".join(found.text)
    assert "<script>alert(1)</script>" in text
    assert "]]><svg onload=alert(1)>" in text
    assert "␛[31mred" in text
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO(), color_system=None)
    console.print(render_library(summary))
    for name in HOSTILE_NAMES:
        console.print(render_concept(summary, name))
    shown = console.export_text()
    assert_inert(shown)
    assert "<script>alert(1)</script>" in shown


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={profile}"),
    )
    return subprocess.run(
        [BROWSER, *flags, *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium at /usr/bin/chromium")
@pytest.mark.parametrize("size", ["390,1600", "1280,1600"])
def test_a_browser_shows_the_page_and_runs_nothing(tmp_path, size):
    library = hostile_library()
    page = tmp_path / "page.html"
    page.write_bytes(to_page(library, summarise(library)))
    picture = tmp_path / "page.png"
    run = browse(page, tmp_path / "a", f"--window-size={size}", f"--screenshot={picture}")
    assert picture.exists(), run.stderr
    width, height = png_size(picture.read_bytes())
    assert f"{width},{height}" == size
    assert picture.stat().st_size > 20_000  # not a blank sheet
    # The browser's console names whatever the page's policy stopped.
    assert "Content Security Policy" not in run.stderr
    assert "Refused" not in run.stderr
    dom = browse(page, tmp_path / "b", "--dump-dom").stdout
    assert "<script" not in dom
    assert "Signal to noise of each concept" in dom
