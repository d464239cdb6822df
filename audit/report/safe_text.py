"""Makes text from data safe to show: no escape sequence, no hidden or reordering character.

Every replacement is one character for one, so that character spans stay where they were.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

Span = tuple[int, int]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Characters that draw nothing although their category is letter, mark or space.
_INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}


class _SafeCharacters(dict[int, str]):
    """Code point -> what to show for it; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        shown = self[code] = _shown(code)
        return shown


def _shown(code: int) -> str:
    if code == 0x0A:
        return "↵"
    if code < 0x20:
        return chr(0x2400 + code)  # control pictures: ESC is shown as ␛
    if code == 0x7F:
        return "␡"
    character = chr(code)
    # Cc: C1 controls. Cf: bidi, zero-width, tags. Cs: lone surrogates. Zl, Zp: line breaks.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or code in _INVISIBLE:
        return _REPLACEMENT
    # Variation selectors can carry bytes; FE0E and FE0F (text or emoji style) are in common use.
    if 0xFE00 <= code <= 0xFE0D or 0xE0100 <= code <= 0xE01EF or 0x180B <= code <= 0x180F:
        return _REPLACEMENT
    return character


_TABLE = _SafeCharacters()


def strip_unsafe(text: str) -> str:
    """``text`` on one line, every unsafe character replaced by a visible one of length 1.

    C0 controls become their control pictures (ESC is ``␛``), line feed ``↵``, and C1 controls,
    bidi and zero-width characters, line separators and lone surrogates become U+FFFD.
    """
    return text.translate(_TABLE)


def clean_spans(spans: Iterable[Span], length: int) -> tuple[Span, ...]:
    """``spans`` clipped to ``[0, length)``, sorted, without empty ones, overlaps merged."""
    merged: list[Span] = []
    for start, end in sorted((max(0, start), min(length, end)) for start, end in spans):
        if start >= end:
            continue
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def shorten(text: str, characters: int, spans: Sequence[Span] = ()) -> tuple[str, tuple[Span, ...]]:
    """At most ``characters`` (3 or more) of ``text``, where the most marked characters are.

    A cut side shows ``…``, which counts. The returned spans fit the returned text.
    """
    if characters < 3:
        raise ValueError(f"cannot shorten to {characters} characters: 3 is the least")
    marks = clean_spans(spans, len(text))
    if len(text) <= characters:
        return text, marks
    start = _best_start(marks, len(text), characters)
    end = start + characters
    cut_left, cut_right = start > 0, end < len(text)
    shown = text[start + cut_left : end - cut_right]
    origin = start + cut_left
    left = "…" if cut_left else ""
    moved = clean_spans(((a - origin, b - origin) for a, b in marks), len(shown))
    shift = len(left)
    return (
        f"{left}{shown}{'…' if cut_right else ''}",
        tuple((a + shift, b + shift) for a, b in moved),
    )


def _best_start(marks: Sequence[Span], length: int, window: int) -> int:
    """Start of the window of ``text`` that holds the most marked characters; earliest wins."""
    best, best_marked = 0, -1
    # 256 windows are plenty to choose from, and keep a row of thousands of marks cheap.
    for mark_start, _ in ((0, 0), *marks[:256]):
        start = max(0, min(mark_start - window // 8, length - window))
        end = start + window
        marked = sum(max(0, min(b, end) - max(a, start)) for a, b in marks[:256])
        if marked > best_marked:
            best, best_marked = start, marked
    return best


def mark(text: str, spans: Iterable[Span]) -> str:
    """``text`` with each span between ``«`` and ``»``: for outputs that have no styles."""
    parts: list[str] = []
    position = 0
    for start, end in clean_spans(spans, len(text)):
        parts += [text[position:start], "«", text[start:end], "»"]
        position = end
    return "".join([*parts, text[position:]])
