"""What the installed distribution asks of its packages, and whether a version satisfies it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?(?P<range>[^;()]*)\)?\s*(?:;(?P<marker>.*))?"
)
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_CLAUSE = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+)*)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package, the versions allowed as they were written, and the extra that brings it or ""."""

    name: str
    versions: str
    extra: str

    def allows(self, version: str) -> bool:
        """Whether ``version`` lies in the range, by its release numbers: 2.13.0+cpu is 2.13.0.

        Clauses beyond >=, >, <=, <, == and != on plain numbers are none that this project writes.
        """
        return all(_holds(version, *clause) for clause in _CLAUSE.findall(self.versions))


def parse_requirement(text: str) -> Requirement:
    """``torch>=2.9; extra == "models"`` as a `Requirement`. Raises ``ValueError`` otherwise."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no requirement: {text}")
    extra = _EXTRA.search(found["marker"] or "")
    return Requirement(found["name"], found["range"].strip(), extra[1] if extra else "")


def _holds(version: str, sign: str, bound: str) -> bool:
    have, want = _release(version), _release(bound)
    length = max(len(have), len(want))
    left = have + (0,) * (length - len(have))
    right = want + (0,) * (length - len(want))
    return {
        ">=": left >= right,
        ">": left > right,
        "<=": left <= right,
        "<": left < right,
        "==": left == right,
        "!=": left != right,
    }[sign]


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
