"""JSON text with some of its values replaced and every other character as it stands."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from itertools import pairwise

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.json_rows import decode_json

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BARE = re.compile(r"[^\s,:\[\]{}\"]+")
_SURROGATE = re.compile("[\ud800-\udfff]")


def edited_json(source: str, value: object) -> str:
    """``source``, JSON text without space around it, changed so that it reads as ``value``.

    What reads the same stays as it is written: numbers, escapes, space, the order of keys. Added
    and changed values are written in the manner of ``source``: with its separators, and escaped
    where it is ASCII. Of duplicate keys of an object that changes, all but the last are lost.
    Raises ``RowFault`` if ``source`` is no JSON value.
    """
    try:
        node = _Scanner(source).node()
        return _Writer(source, node).text(node, decode_json(source), value)
    except RecursionError:
        pass
    try:
        return _escaped(json.dumps(value, ensure_ascii=source.isascii()))
    except RecursionError:
        raise RowFault(RejectCode.TOO_DEEP, "nested too deeply for any JSON reader") from None


def _escaped(text: str) -> str:
    # No encoding has lone surrogates, so that they can only be escaped.
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@dataclass(slots=True)
class _Node:
    """One value in the source, ``source[start:end]``, and the values in it.

    ``keys`` has a key and where its text starts and ends for each child of an object, and is
    None for anything else.
    """

    start: int
    end: int = 0
    children: list[_Node] = field(default_factory=list)
    keys: list[tuple[str, int, int]] | None = None


class _Scanner:
    """Finds where every value stands, in text that is known to be JSON."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._position = 0

    def node(self) -> _Node:
        node = _Node(self._peek())
        opening = self._source[node.start]
        if opening in "[{":
            self._position += 1
            self._children(node, "]" if opening == "[" else "}")
        else:
            self._token(_STRING if opening == '"' else _BARE)
        node.end = self._position
        return node

    def _children(self, node: _Node, closing: str) -> None:
        if closing == "}":
            node.keys = []
        while self._source[self._peek()] != closing:
            if node.children:
                self._position += 1  # the comma
                self._peek()
            if node.keys is not None:
                start = self._position
                end = self._token(_STRING)
                node.keys.append((json.loads(self._source[start:end], strict=False), start, end))
                self._position = self._peek() + 1  # the colon
            node.children.append(self.node())
        self._position += 1

    def _peek(self) -> int:
        space = _SPACE.match(self._source, self._position)
        self._position = space.end() if space else self._position
        return self._position

    def _token(self, pattern: re.Pattern[str]) -> int:
        token = pattern.match(self._source, self._position)
        if token is None:
            raise RowFault(RejectCode.BAD_JSON, "not JSON")
        self._position = token.end()
        return self._position


class _Writer:
    def __init__(self, source: str, root: _Node) -> None:
        self._source = source
        self._ascii = source.isascii()
        self._separators = _separators(source, root)

    def text(self, node: _Node, old: object, new: object) -> str:
        """``new`` as text; ``old`` is what the source reads as at ``node``."""
        if same(old, new):
            return self._source[node.start : node.end]
        if isinstance(old, dict) and isinstance(new, dict) and node.keys:
            return self._object(node, node.keys, old, new)
        if isinstance(old, list) and isinstance(new, list) and node.children:
            kept = [
                self.text(child, before, after)
                for child, before, after in zip(node.children, old, new, strict=False)
            ]
            added = [self._dumped(value) for value in new[len(old) :]]
            return self._joined(node, [(c.start, c.end) for c in node.children], kept + added)
        return self._dumped(new)

    def _object(
        self,
        node: _Node,
        keys: list[tuple[str, int, int]],
        old: dict[str, object],
        new: dict[str, object],
    ) -> str:
        names = [key for key, _, _ in keys]
        starts = [start for _, start, _ in keys]
        spans = [(start, c.end) for start, c in zip(starts, node.children, strict=True)]
        last = {name: i for i, name in enumerate(names)}
        if names == list(new):
            return self._joined(
                node,
                spans,
                [
                    self._member(key, child, old[key[0]], new[key[0]])
                    for key, child in zip(keys, node.children, strict=True)
                ],
            )
        # Only the last of duplicate keys stays: with two values, no row can be read.
        members = [
            self._member(keys[last[name]], node.children[last[name]], old[name], value)
            if name in last
            else self._dumped(name) + self._separators[1] + self._dumped(value)
            for name, value in new.items()
        ]
        return self._joined(node, spans, members)

    def _member(self, key: tuple[str, int, int], child: _Node, old: object, new: object) -> str:
        return self._source[key[1] : child.start] + self.text(child, old, new)

    def _joined(self, node: _Node, spans: list[tuple[int, int]], texts: list[str]) -> str:
        """``texts`` between what stands around and between the old ``spans`` of ``node``."""
        opening = self._source[node.start : spans[0][0]]
        closing = self._source[spans[-1][1] : node.end]
        between = [self._source[a[1] : b[0]] for a, b in pairwise(spans)]
        if len(texts) != len(spans):
            usual = between[0] if between else self._separators[0]
            if not between and (space := opening[1:]):
                usual = "," + space
            between = [usual] * (len(texts) - 1)
        if not texts:
            return opening[0] + closing[-1]
        rest = (gap + text for gap, text in zip(between, texts[1:], strict=True))
        return opening + texts[0] + "".join(rest) + closing

    def _dumped(self, value: object) -> str:
        return _escaped(json.dumps(value, ensure_ascii=self._ascii, separators=self._separators))


def same(old: object, new: object) -> bool:
    """Whether two JSON values read the same: NaN is itself, and 1, 1.0 and true are three."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict) and isinstance(new, dict):
        return list(old) == list(new) and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old):
        return math.isnan(new)
    return old == new


def _separators(source: str, root: _Node) -> tuple[str, str]:
    """How ``source`` parts items, and keys from values: closely, or with a space."""
    colon = comma = None
    nodes = [root]
    while nodes and (colon is None or comma is None):
        node = nodes.pop()
        if colon is None and node.keys:
            colon = source[node.keys[0][2] : node.children[0].start].lstrip()
        if comma is None and len(node.children) > 1:
            follows = node.keys[1][1] if node.keys else node.children[1].start
            comma = source[node.children[0].end : follows].lstrip()
        nodes += node.children
    spaced = colon != ":"
    return ", " if (spaced if comma is None else comma != ",") else ",", ": " if spaced else ":"
