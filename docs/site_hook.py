"""What MkDocs does not do: README.md is the home page, and lists are read as on GitHub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

# "](docs/inputs.md)" of the README is "](inputs.md)" on the site.
_INTO_DOCS = re.compile(r"\]\(docs/")
_LINK = re.compile(r"\]\(([^)#:]+)\)")
_LIST_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
_FENCE = re.compile(r"\s*(?:```|~~~)")


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Add the home page, made from the README, and the other files that the README links to."""
    root = Path(config.config_file_path).parent
    text = _INTO_DOCS.sub("](", (root / "README.md").read_text(encoding="utf-8"))
    files.append(File.generated(config, "index.md", content=text))
    for link in sorted(set(_LINK.findall(text))):
        if files.get_file_from_path(link) is None and (root / link).is_file():
            files.append(File.generated(config, link, abs_src_path=str(root / link)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Markdown with an empty line before every list, which Python-Markdown asks for."""
    return set_lists_apart(markdown)


def set_lists_apart(markdown: str) -> str:
    """``markdown`` with an empty line between a paragraph and a list that follows it at once.

    GitHub needs none. Lines of fenced blocks stay as they are.
    """
    lines: list[str] = []
    fenced = in_list = False
    for line in markdown.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            item = _LIST_ITEM.match(line) is not None
            if item and not in_list and lines and lines[-1].strip():
                lines.append("")
            # Indented lines go on with an item; an empty one may stand between two.
            in_list = item or (in_list and line[:1] in ("", " "))
        lines.append(line)
    return "\n".join(lines)
