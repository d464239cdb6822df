"""Where the installed command begins: what fails before it can read its arguments is told too."""

from __future__ import annotations

import os


def main() -> None:
    """Load the command line and run it.

    Python ends with 1 where an import fails, which means findings here.
    """
    # numpy's matrices are small here: several threads of BLAS only wait for each other, busily.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from audit.cli.main import main as run
    except BaseException as error:
        line = f"audit: cannot start ({type(error).__name__}: {error}): nothing was decided\n"
        try:
            os.write(2, line.encode("utf-8", "replace"))
        finally:
            os._exit(2)
    run()
