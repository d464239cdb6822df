"""peft, without what it loads saying anything."""

from __future__ import annotations

import logging
from typing import Any

from audit.errors import MissingExtraError


def import_peft(what: str) -> Any:
    """The package. Raises ``MissingExtraError`` for ``what``, which needs it, where it or something
    of its own is missing."""
    # It imports bitsandbytes where that is installed, which says on a CPU that an optional kernel
    # is missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(what, error.name or "peft", "models") from error
    return peft
