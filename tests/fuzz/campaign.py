"""A campaign of coverage-guided fuzzing: ``python -m tests.fuzz.campaign jsonl --seconds 600``.

Needs the extra ``fuzz``. New inputs that reach new code gather in ``build/fuzz/NAME``; bytes that
break a promise are written to ``build/fuzz/broken/NAME`` and end the run of their harness, with a
traceback. The libraries read with native code, which is not instrumented. A reader that takes the
process down is one process down: the next is started with what is left of the time.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.kept import corpus_files
from tests.fuzz.words import WORDS

BUILD = Path(__file__).parents[2] / "build" / "fuzz"
_INSTRUMENTED = [
    *("audit.dataset", "audit.gate", "audit.shards", "audit.read_summary"),
    *("detectors.state_codec", "signatures", "tomllib", "tests.accounts"),
]
_LONGEST = {"parquet": 8192, "arrow": 8192, "shard": 65536}
_MOST_CRASHES = 50


def main() -> int:
    """Run the harnesses that are named, or all, one after another; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("harness", nargs="*")
    parser.add_argument("--seconds", type=int, default=30, help="of each harness")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _fuzz(asked.harness[0], asked.seconds)
    from tests.fuzz.harnesses import HARNESSES

    unknown = set(asked.harness) - set(HARNESSES)
    if unknown:
        parser.error(f"no harness {min(unknown)!r}: there are {', '.join(HARNESSES)}")
    broken = [_campaign(name, asked.seconds) for name in asked.harness or HARNESSES]
    return int(any(broken))


def _campaign(name: str, seconds: int) -> bool:
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    (BUILD / "broken" / name).mkdir(parents=True, exist_ok=True)
    from tests.fuzz.seeds import seeds_of

    for seed in [*seeds_of(name), *(path.read_bytes() for path in corpus_files(name))]:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    end = time.monotonic() + seconds
    crashes = 0
    while (left := int(end - time.monotonic())) > 0 and crashes < _MOST_CRASHES:
        command = [sys.executable, "-m", "tests.fuzz.campaign", "--child", name]
        done = subprocess.run([*command, "--seconds", str(left)], check=False)
        if done.returncode == 0:
            break
        crashes += 1
        print(f"{name}: a run ended with {done.returncode}", file=sys.stderr)
    print(f"{name}: {crashes} runs ended early; what broke them is in {BUILD / 'broken' / name}")
    return crashes > 0


def _escaped(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")) + '"'


def _fuzz(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.harnesses import HARNESSES

    harness = HARNESSES[name]
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST.get(name, 2048)}",
        f"-artifact_prefix={BUILD / 'broken' / name}/",
        "-rss_limit_mb=3000",
        "-timeout=30",
        "-print_final_stats=1",
        "-verbosity=0",
        str(BUILD / name),
    ]
    if name in WORDS:  # an empty dictionary is an error
        words = BUILD / f"{name}.dict"
        words.write_text("".join(f"{_escaped(word)}\n" for word in WORDS[name]))
        arguments.append(f"-dict={words}")
    atheris.Setup(arguments, harness)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
