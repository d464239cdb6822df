"""Choose what of a campaign is kept: ``python -m tests.fuzz.keep``.

Of the inputs in ``build/fuzz/NAME``, smallest first, those that reach lines of the readers that no
smaller one reached. Inputs that broke a promise are put into the corpus by hand once it is mended.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import CodeType, FrameType

from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.kept import CORPUS, corpus_files

_BUILD = Path(__file__).parents[2] / "build" / "fuzz"
_READERS = ("/audit/", "/signatures/", "/detectors/state_codec.py")
_MOST_BYTES = 64 << 10

Lines = set[tuple[str, int]]


def reached(name: str, data: bytes) -> Lines | None:
    """Lines of the readers that ``data`` reaches; None where it breaks a promise."""
    lines: Lines = set()
    watched: dict[CodeType, bool] = {}

    def trace(frame: FrameType, event: str, _: object):
        code = frame.f_code
        if code not in watched:
            watched[code] = any(part in code.co_filename for part in _READERS)
        if not watched[code]:
            return None
        if event == "line":
            lines.add((code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        HARNESSES[name](data)
    except Exception:
        return None
    finally:
        sys.settrace(None)
    return lines


def main() -> None:
    """Fill the corpus of every harness; what is there already stays."""
    for name in HARNESSES:
        known: Lines = set()
        for path in corpus_files(name):
            known |= reached(name, path.read_bytes()) or set()
        files = [path for path in (_BUILD / name).glob("*") if path.is_file()]
        found = sorted({path.read_bytes() for path in files}, key=lambda data: (len(data), data))
        for data in found:
            lines = reached(name, data) if len(data) <= _MOST_BYTES else None
            if lines is not None and lines - known:
                known |= lines
                (CORPUS / name).mkdir(parents=True, exist_ok=True)
                (CORPUS / name / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main()
