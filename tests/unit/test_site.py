"""The site of the documentation: it builds, loads nothing from elsewhere, and its links lead on."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mkdocs.config import load_config

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
# Attributes by which a page loads something; <a href> only leads somewhere.
LOADS = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
CSS_LOADS = re.compile(r"url\(\s*['\"]?([^)'\"]+)|@import\s+['\"]([^'\"]+)")


class Page(HTMLParser):
    """Ids, links and loaded addresses of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get("rel") not in ("canonical", "next", "prev"):
            self.loads += [values[name] for name in LOADS.get(tag, ()) if name in values]
        self.loads += [one or other for one, other in CSS_LOADS.findall(values.get("style", ""))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; what would ask the network meets a closed port."""
    folder = tmp_path_factory.mktemp("site")
    closed = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, **closed, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


def nav_pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for value in entry.values():
            yield from nav_pages(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from nav_pages(value)


def test_the_menu_lists_every_page_once() -> None:
    listed = list(nav_pages(load_config(str(ROOT / "mkdocs.yml")).nav))
    assert sorted(listed) == sorted(
        ["index.md", *(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))]
    )


def test_every_page_is_built_and_can_be_searched(site: Path, pages: dict[Path, Page]) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    for page in DOCS.rglob("*.md"):
        name = f"{page.relative_to(DOCS).with_suffix('')}/"
        assert site / name / "index.html" in pages
        assert name in found


def test_pages_load_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert any(page.loads for page in pages.values())
    for path, page in pages.items():
        for address in page.loads:
            assert_of_the_site(site, path, address)
    for sheet in site.rglob("*.css"):
        for one, other in CSS_LOADS.findall(sheet.read_text()):
            assert_of_the_site(site, sheet, one or other)


def assert_of_the_site(site: Path, where: Path, address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return
    assert not parts.scheme, f"{where}: {address}"
    assert not parts.netloc, f"{where}: {address}"
    assert target(site, where, parts.path).exists(), f"{where}: {address}"


def target(site: Path, where: Path, path: str) -> Path:
    """The file that ``path``, as written in the page ``where``, is served from."""
    if path.startswith("/"):
        return site / unquote(path[1:])
    return where if not path else where.parent / unquote(path)


def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    checked = 0
    ids = {path.resolve(): page.ids for path, page in pages.items()}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert parts.scheme == "https" or link.startswith("http://mlcommons.org/"), link
                continue
            file = target(site, path, parts.path)
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), f"{path}: {link}"
            if parts.fragment and file.suffix == ".html":
                assert unquote(parts.fragment) in ids[file.resolve()], f"{path}: {link}"
                checked += 1
    assert checked > 100


def test_the_home_page_is_the_readme(site: Path) -> None:
    readme, home = (ROOT / "README.md").read_text(), (site / "index.html").read_text()
    for heading in re.findall(r"^#{1,3} (.*)$", readme, re.MULTILINE):
        if "`" not in heading:
            assert f">{heading}<a" in home or f">{heading}</h" in home, heading
    assert "](docs/" in readme
    assert 'href="docs/' not in home
    assert not (DOCS / "index.md").exists()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("**Known.**\n- one\n- two", "**Known.**\n\n- one\n- two"),
        ("Steps:\n1. one\n2. two\nend", "Steps:\n\n1. one\n2. two\nend"),
        ("- one\n  more\n- two", "- one\n  more\n- two"),
        ("- one\n\n- two", "- one\n\n- two"),
        ("text\n\n- one", "text\n\n- one"),
        ("a\n```\nb\n- c\n```", "a\n```\nb\n- c\n```"),
        ("- one", "- one"),
        ("2 - 1\n-3", "2 - 1\n-3"),
    ],
)
def test_lists_stand_apart_as_on_github(written: str, read: str) -> None:
    spec = importlib.util.spec_from_file_location("site_hook", DOCS / "site_hook.py")
    assert spec
    assert spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    assert hook.set_lists_apart(written) == read
