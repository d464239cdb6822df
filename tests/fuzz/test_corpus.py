"""Every input that is kept keeps the promises of its reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.kept import CORPUS, corpus_files
from tests.fuzz.seeds import seeds_of
from tests.property.damage import damaged
from tests.property.generated import examples

KEPT = [(name, path) for name in HARNESSES for path in corpus_files(name)]


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{n}-{p.name[:12]}" for n, p in KEPT])
def test_what_is_kept_keeps_every_promise(name: str, path: Path) -> None:
    HARNESSES[name](path.read_bytes())


@pytest.mark.parametrize("name", HARNESSES)
def test_seeds_keep_every_promise(name: str) -> None:
    for seed in seeds_of(name):
        HARNESSES[name](seed)


# A damaged Parquet page may take the process down in native code: only a campaign can stand that.
@pytest.mark.parametrize("name", [name for name in HARNESSES if name != "parquet"])
@examples(20)
@given(data=st.data())
def test_damaged_seeds_keep_every_promise(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds_of(name)))
    HARNESSES[name](data.draw(damaged(seed)))


@pytest.mark.parametrize("name", HARNESSES)
def test_a_harness_fails_where_its_reader_breaks_a_promise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("not documented")

    for reader in ("read", "load_concepts", "load_config", "read_baseline", "read_shard"):
        monkeypatch.setattr(f"tests.fuzz.harnesses.{reader}", breaks)
    monkeypatch.setattr("tests.fuzz.harnesses.load_library", breaks)
    with pytest.raises(RuntimeError, match="not documented"):
        HARNESSES[name](seeds_of(name)[0])


def test_the_corpus_is_small_and_of_known_harnesses() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} <= set(HARNESSES)
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) <= 64 << 10
    assert sum(sizes) <= 1 << 20
