"""What every report says of a finding that a pipeline lets through."""

from __future__ import annotations

from audit.named_scan import Accepted, NamedScan
from detectors.compose import ConceptVerdict
from detectors.finding import Family, Finding


def accepted_words(accepted: Accepted) -> str:
    """``accepted by suppression until 2026-12-31: harmless list (owner data-team)``.

    Owner and reason are as they were given: renderings make them safe.
    """
    until = f" until {accepted.expires}" if accepted.expires else ""
    owner = f" (owner {accepted.owner})" if accepted.owner else ""
    return f"accepted by {accepted.by.value}{until}: {accepted.reason or 'no reason'}{owner}"


class Acceptance:
    """Which concepts and findings of one scan are let through."""

    def __init__(self, scan: NamedScan) -> None:
        """Look ``scan`` through once."""
        self._scan = scan
        self._flagged: dict[tuple[Family, str], list[Finding]] = {}
        for f in scan.result.flagged():
            self._flagged.setdefault((f.family, f.concept), []).append(f)

    def flagged(self, concept: ConceptVerdict) -> tuple[Finding, ...]:
        """The flagged findings of ``concept``, in the order of the scan."""
        return tuple(self._flagged.get((concept.family, concept.concept), ()))

    def is_accepted(self, concept: ConceptVerdict) -> bool:
        """Whether ``concept`` is flagged, and each of its flagged findings is let through."""
        flagged = self.flagged(concept)
        return bool(flagged) and all(self._scan.acceptance(f) is not None for f in flagged)

    @property
    def is_whole(self) -> bool:
        """Whether something is flagged, and all of it is let through."""
        return bool(self._flagged) and not self._scan.held()
