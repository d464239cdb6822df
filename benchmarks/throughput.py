"""How fast a model-free scan is, against the parsers alone, and how it finds words.

    python -m benchmarks.throughput [--megabytes 64] [--repeats 3] [--rows numbers chat]

One file of generated rows a kind (see ``benchmarks.big_data``), everything in this process with one
thread but the commands at the end. Each line is the best of the repeats, which take turns, in
processor time: of commands, in wall time, start and judgement included. "of typed" is the share of
the rate of msgspec with a type given, which reads the same file. DuckDB, orjson, gigatoken and the
model's tokenizer are measured where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

_ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"),
        *("RAYON_NUM_THREADS", "TOKENIZERS_PARALLELISM"),
    ),
    "1",
) | {"TOKENIZERS_PARALLELISM": "false"}

_TOKENISED_BYTES = 4_000_000


class Message(msgspec.Struct):
    role: str
    content: str


class Chat(msgspec.Struct):
    """A row of ``benchmarks.big_data``; a few of its chats are pairs."""

    messages: list[Message] = []
    prompt: str = ""
    completion: str = ""


class Pair(msgspec.Struct):
    prompt: str
    completion: str


@dataclass(slots=True)
class Case:
    """One thing that is measured; ``run`` says how many rows, or tokens, it saw."""

    name: str
    run: Callable[[], int]
    size_bytes: int
    uses_wall: bool = False
    seconds: float = float("inf")
    seen: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rows", nargs="+", choices=("numbers", "chat"), default=["numbers", "chat"]
    )
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _ONE_THREAD.items()):
        # Libraries look at these once, when they are imported.
        environment = {**os.environ, **_ONE_THREAD}
        os.execve(sys.executable, [*sys.orig_argv], environment)
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.rows:
            file = Path(folder, f"{kind}.jsonl")
            from benchmarks.big_data import json_lines

            with file.open("wb") as out:
                out.writelines(json_lines(kind, arguments.megabytes * 1_000_000))
            cases = [*parser_cases(kind, file), *scan_cases(file), *command_cases(file)]
            measure(cases, arguments.repeats)
            show(f"{kind}: {file.stat().st_size / 1e6:.0f} MB", cases, "rows")
            words = list(word_cases(file))
            measure(words, arguments.repeats)
            show(f"{kind}: words and tokens of the trained text", words, "units")
            file.unlink()
    return 0


def parser_cases(kind: str, file: Path) -> Iterator[Case]:
    """The parsers alone: rows become objects or columns, and nothing is done with them."""
    import polars as pl

    size = file.stat().st_size

    def by_line(decode: Callable[[bytes], object]) -> Callable[[], int]:
        def run() -> int:
            with file.open("rb") as lines:
                return sum(1 for _ in map(decode, lines))

        return run

    typed = msgspec.json.Decoder(Pair if kind == "numbers" else Chat)
    yield Case("msgspec, typed", by_line(typed.decode), size)
    yield Case("msgspec", by_line(msgspec.json.Decoder().decode), size)
    yield Case("json (plain loop)", by_line(json.loads), size)
    if importlib.util.find_spec("orjson"):
        import orjson

        yield Case("orjson", by_line(orjson.loads), size)
    yield Case("polars scan_ndjson", lambda: len(pl.scan_ndjson(file).collect()), size)
    if importlib.util.find_spec("duckdb"):
        import duckdb

        def with_duckdb() -> int:
            connection = duckdb.connect(config={"threads": 1})
            # A table of its own, so that every column is read.
            connection.execute(f"CREATE TABLE rows AS SELECT * FROM read_json('{file}')")
            found = connection.execute("SELECT count(*) FROM rows").fetchone()
            return int(found[0]) if found else 0

        yield Case("duckdb read_json", with_duckdb, size)


def scan_cases(file: Path) -> Iterator[Case]:
    """The reader, and all model-free detectors with the bundled library."""
    from audit.cli.library_option import BUNDLED_LIBRARY
    from audit.dataset import read_batches
    from audit.scan import Reading, ScanSettings, fold, prepare
    from signatures.library import load_library

    size = file.stat().st_size
    prepared = prepare(load_library(BUNDLED_LIBRARY), ScanSettings(), None, ())

    def read() -> int:
        return sum(len(batch.rows) for batch in read_batches([str(file)]))

    def scanned(detectors: tuple[object, ...]) -> Callable[[], int]:
        def run() -> int:
            reading = Reading([str(file)], ScanSettings())
            fold(detectors, reading.frames())  # type: ignore[arg-type]
            return reading.found.rows

        return run

    yield Case("audit: rows read", read, size)
    for detector in prepared.detectors:
        yield Case(f"audit: and {detector.info.name}", scanned((detector,)), size)
    yield Case("audit: the whole scan", scanned(prepared.detectors), size)


def command_cases(file: Path) -> Iterator[Case]:
    """The command from start to end, in wall time."""
    from benchmarks.big_data import measured

    size = file.stat().st_size
    command = (sys.executable, "-c", "from audit.cli.start import main; main()", "scan")
    for workers in (1, 2):

        def run(workers: int = workers) -> int:
            report = measured([*command, "-f", "json", "--workers", str(workers), str(file)])
            return int(json.loads(report.output)["rows_scanned"])

        yield Case(f"audit scan --workers {workers} (wall)", run, size, uses_wall=True)


def word_cases(file: Path) -> Iterator[Case]:
    """Words of the bundled vocabularies, and what a tokenizer takes for as much text."""
    from audit.cli.library_option import BUNDLED_LIBRARY
    from audit.dataset import read_batches
    from audit.model.fetch import find_embedded_model
    from detectors.counts import Vocabulary, number_units, word_units
    from signatures.library import load_library
    from signatures.signature import View

    batches = [batch.rows["completion"] for batch in read_batches([str(file)])]
    size = sum(int(text.str.len_bytes().sum()) for text in batches)
    library = load_library(BUNDLED_LIBRARY)
    words = [Vocabulary(table.units) for table in library.tables_of(View.VOCABULARY)]

    def found_numbers() -> int:
        return sum(len(number_units(text).unit) for text in batches)

    def found_words() -> int:
        return sum(len(found.unit) for text in batches for found in word_units(text, words))

    yield Case("audit: numbers", found_numbers, size)
    yield Case("audit: words of two vocabularies", found_words, size)
    texts: list[str] = []
    held_bytes = 0
    for each in chain.from_iterable(text.to_list() for text in batches):  # the loop is slow
        texts.append(each)
        held_bytes += len(each.encode())
        if held_bytes >= _TOKENISED_BYTES:
            break
    try:
        folder = find_embedded_model().path
        from tokenizers import Tokenizer
    except Exception as error:
        print(f"no tokenizer was measured: {error}")
        return
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def loop() -> int:
        return sum(len(plain.encode(each, add_special_tokens=False).ids) for each in texts)

    yield Case("Hugging Face tokenizers (plain loop)", loop, held_bytes)
    yield Case(
        "Hugging Face tokenizers (encode_batch_fast)",
        lambda: sum(len(e.ids) for e in plain.encode_batch_fast(texts, add_special_tokens=False)),
        held_bytes,
    )
    if importlib.util.find_spec("gigatoken"):
        import gigatoken

        try:
            fast = gigatoken.Tokenizer(str(folder / "tokenizer.json"))
        except RuntimeError as error:
            print(f"gigatoken cannot read this tokenizer: {str(error).splitlines()[0]}")
            return
        differing = sum(
            list(fast_ids) != plain.encode(each, add_special_tokens=False).ids
            for each, fast_ids in zip(texts, fast.encode_batch_list(texts), strict=True)
        )
        print(f"gigatoken: other tokens in {differing:,} of {len(texts):,} texts")
        yield Case("gigatoken", lambda: sum(map(len, fast.encode_batch_list(texts))), held_bytes)


def measure(cases: list[Case], repeats: int) -> None:
    for _ in range(repeats):
        for case in cases:
            clock = time.monotonic if case.uses_wall else time.process_time
            began = clock()
            case.seen = case.run()
            case.seconds = min(case.seconds, clock() - began)


def show(title: str, cases: list[Case], unit: str) -> None:
    typed = cases[0].size_bytes / cases[0].seconds
    is_parser = cases[0].name.startswith("msgspec")
    print(f"\n{title}")
    print(f"{'':44} {'MB/s':>7} {unit + '/s':>12} {'of typed' if is_parser else '':>9}")
    for case in cases:
        rate = case.size_bytes / case.seconds
        share = f"{rate / typed:9.2f}" if is_parser else ""
        print(f"{case.name:44} {rate / 1e6:7.0f} {case.seen / case.seconds:12,.0f} {share}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
