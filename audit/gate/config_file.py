"""Finds and reads the gate's settings: ``[tool.audit]`` in pyproject.toml, or audit.toml."""

from __future__ import annotations

import glob
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.errors import UsageError
from audit.gate.config import Budgets, DataSet, GateConfig, Suppression, Undecided
from audit.gate.toml_table import Table
from detectors.detector import TestSettings
from detectors.finding import Severity

OWN_FILE = "audit.toml"
SHARED_FILE = "pyproject.toml"

_TOP_KEYS = (
    "library",
    "reference",
    "model",
    "student-family",
    "fail-on",
    "detectors",
    "fdr",
    "effect-of-interest",
    "teacher-share",
    "seed",
    "schema",
    "tokenizer",
    "baseline",
    "data",
    "budgets",
    "suppressions",
)
_DATA_KEYS = ("name", "paths", "reference", "schema", "tokenizer")
_BUDGET_KEYS = ("rejected-rows-share", "inconclusive", "model-rows")
_SUPPRESSION_KEYS = ("data", "concept", "code", "owner", "reason", "expires")


def repository_root(folder: Path) -> Path | None:
    """The nearest folder from ``folder`` upwards that holds ``.git``, if any does."""
    return next((f for f in (folder, *folder.parents) if (f / ".git").exists()), None)


def find_config(folder: Path) -> Path:
    """The settings file of ``folder``, or of the nearest folder above it up to the repository's
    root. Outside of a repository only ``folder`` itself is looked at.

    A pyproject.toml without ``[tool.audit]`` is passed over. Raises ``UsageError`` where there is
    none, or where one folder has both files.
    """
    start = folder.absolute()
    root = repository_root(start)
    for candidate in (start, *start.parents):
        shared, own = candidate / SHARED_FILE, candidate / OWN_FILE
        in_shared = shared.is_file() and _tool_audit(_parsed(shared), str(shared)) is not None
        if in_shared and own.is_file():
            raise UsageError(
                f"{candidate} has both {OWN_FILE} and [tool.audit] in {SHARED_FILE}: keep one"
            )
        if in_shared:
            return shared
        if own.is_file():
            return own
        if candidate == root or root is None:
            break
    upwards = "" if root in (None, start) else f" nor in a folder above it up to {root}"
    raise UsageError(
        f"neither {OWN_FILE} nor [tool.audit] in {SHARED_FILE} is in {start}{upwards}: "
        "write one (docs/gate.md), or name it with --config"
    )


def load_config(path: Path) -> GateConfig:
    """Read the settings file at ``path``: pyproject.toml, or any other name for an audit.toml.

    Raises ``UsageError`` in one line that names the file, the table and the key.
    """
    file = path.absolute()
    content = _parsed(file)
    prefix = ""
    if file.name == SHARED_FILE:
        prefix = "tool.audit"
        section = _tool_audit(content, str(path))
        if section is None:
            raise UsageError(f"{path} has no [tool.audit]")
        content = section
    return _Reader(file, str(path), prefix).config(content)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of numbers beyond 4,300 digits too
        raise UsageError(f"{path}: is not TOML: {error}") from error


def _tool_audit(content: Mapping[str, Any], file: str) -> dict[str, Any] | None:
    tool = content.get("tool", {})
    section = tool.get("audit") if isinstance(tool, dict) else None
    if section is not None and not isinstance(section, dict):
        raise UsageError(f"{file}: [tool.audit] must be a table")
    return section


class _Reader:
    """Tables of one file to settings."""

    def __init__(self, file: Path, shown: str, prefix: str) -> None:
        self._file = file
        self._shown = shown
        self._prefix = prefix
        self._root = repository_root(file.parent) or file.parent

    def config(self, content: Mapping[str, Any]) -> GateConfig:
        top_name = f"[{self._prefix}]" if self._prefix else "the top level"
        top = Table(content, _TOP_KEYS, file=self._shown, name=top_name)
        fail_on = top.choice("fail-on", [str(severity) for severity in Severity])
        return GateConfig(
            root=self._root,
            file=os.path.relpath(self._file, self._root),
            data=self._data_sets(top),
            library=self._path(top, "library"),
            model=self._path(top, "model"),
            student_family=top.text("student-family"),
            fail_on=Severity.WARNING if fail_on is None else Severity(fail_on),
            detectors=top.texts("detectors") or (),
            test=_test_settings(top),
            seed=top.whole("seed", 0) or 0,
            baseline=self._path(top, "baseline"),
            budgets=self._budgets(top),
            suppressions=self._suppressions(top),
        )

    def _name(self, key: str) -> str:
        return f"{self._prefix}.{key}" if self._prefix else key

    def _tables(self, top: Table, key: str, keys: tuple[str, ...]) -> list[Table]:
        return [
            Table(values, keys, file=self._shown, name=f"[[{self._name(key)}]] number {number}")
            for number, values in enumerate(top.tables(key), 1)
        ]

    def _data_sets(self, top: Table) -> tuple[DataSet, ...]:
        reference = self._paths(top, "reference") or ()
        schema, tokenizer = top.text("schema"), self._path(top, "tokenizer")
        found: dict[str, DataSet] = {}
        for table in self._tables(top, "data", _DATA_KEYS):
            table.require("name", "paths")
            name, paths = table.text("name") or "", self._paths(table, "paths")
            if name in found:
                raise table.fault("name", f"'{name}' is taken: every data set needs its own")
            if not paths:
                raise table.fault("paths", "is empty: name files, globs, folders or URLs")
            own_reference = self._paths(table, "reference")
            found[name] = DataSet(
                name,
                paths,
                reference if own_reference is None else own_reference,
                table.text("schema") or schema,
                self._path(table, "tokenizer") or tokenizer,
            )
        if not found:
            raise UsageError(
                f"{self._shown} names no data: add [[{self._name('data')}]] with name and paths"
            )
        return tuple(found.values())

    def _budgets(self, top: Table) -> Budgets:
        table = Table(
            top.table("budgets"),
            _BUDGET_KEYS,
            file=self._shown,
            name=f"[{self._name('budgets')}]",
        )
        default = Budgets()
        share = table.number("rejected-rows-share")
        if share is not None and not 0 <= share <= 1:
            raise table.fault("rejected-rows-share", f"must lie between 0 and 1, not {share}")
        undecided = table.choice("inconclusive", [str(u) for u in Undecided])
        return Budgets(
            default.rejected_rows_share if share is None else share,
            default.inconclusive if undecided is None else Undecided(undecided),
            table.whole("model-rows", TestSettings().minimum_rows) or default.model_rows,
        )

    def _suppressions(self, top: Table) -> tuple[Suppression, ...]:
        found = []
        for table in self._tables(top, "suppressions", _SUPPRESSION_KEYS):
            table.require("data", "concept", "owner", "reason", "expires")
            expires = table.date("expires")
            assert expires is not None  # it is required
            found.append(
                Suppression(
                    table.text("data") or "",
                    table.text("concept") or "",
                    table.text("code") or "",
                    table.text("owner") or "",
                    table.text("reason") or "",
                    expires,
                )
            )
        return tuple(found)

    def _path(self, table: Table, key: str) -> str | None:
        value = table.text(key)
        return None if value is None else self._from_root(table, key, value)

    def _paths(self, table: Table, key: str) -> tuple[str, ...] | None:
        values = table.texts(key)
        return values and tuple(self._from_root(table, key, value) for value in values)

    def _from_root(self, table: Table, key: str, value: str) -> str:
        """``value``, which is relative to the settings file, relative to the root."""
        if value == "-":
            raise table.fault(key, "cannot be standard input: a gate needs files that stay")
        if "://" in value:
            return value
        folder = os.path.relpath(self._file.parent, self._root)
        # Brackets in the name of the folder are no pattern.
        if glob.has_magic(folder) and glob.has_magic(value):
            folder = glob.escape(folder)
        return os.path.normpath(os.path.join(folder, value))  # noqa: PTH118 - may be a glob


def _test_settings(top: Table) -> TestSettings:
    default = TestSettings()
    rate = top.number("fdr")
    if rate is not None and not 0 < rate < 1:
        raise top.fault("fdr", f"must lie between 0 and 1, not {rate:g}")
    interests = []
    for key in ("effect-of-interest", "teacher-share"):
        interest = top.number(key)
        # With an infinite one every scan could have seen it, and nothing would be undecided.
        if interest is not None and not 0 < interest < math.inf:
            raise top.fault(key, f"must be a number above 0, not {interest:g}")
        interests.append(interest)
    effect, share = interests
    return TestSettings(
        false_discovery_rate=default.false_discovery_rate if rate is None else rate,
        effect_of_interest=default.effect_of_interest if effect is None else effect,
        teacher_share_of_interest=default.teacher_share_of_interest if share is None else share,
    )
