"""Is a library of this model? By the fingerprints of weights, tokenizer and chat template."""

from __future__ import annotations

from dataclasses import dataclass

from signatures.language_model import ModelIdentity
from signatures.library import LibraryError, SignatureLibrary

_FINGERPRINTS = (
    ("weights", "weights_sha256"),
    ("tokenizer", "tokenizer_sha256"),
    ("chat template", "chat_template_sha256"),
)


@dataclass(frozen=True, slots=True)
class FingerprintMatch:
    """One fingerprint of two models, ``what`` in words. Empty means that it was not recorded."""

    what: str
    first: str
    second: str

    @property
    def known(self) -> bool:
        """True where both models have it."""
        return bool(self.first and self.second)

    @property
    def agrees(self) -> bool:
        """True where both models have it and it is the same."""
        return self.known and self.first == self.second


def match_fingerprints(first: ModelIdentity, second: ModelIdentity) -> tuple[FingerprintMatch, ...]:
    """Weights, tokenizer and chat template of two models, compared one by one."""
    return tuple(
        FingerprintMatch(what, getattr(first, name), getattr(second, name))
        for what, name in _FINGERPRINTS
    )


def refuse_other_model(library: SignatureLibrary, identity: ModelIdentity) -> None:
    """Raise ``LibraryError`` unless ``library`` was measured on the model ``identity``.

    The message names which of weights, tokenizer and chat template differ, or that the library
    does not record them (as an imported one).
    """
    matches = match_fingerprints(library.model, identity)
    differing = [match.what for match in matches if match.known and not match.agrees]
    if differing:
        raise LibraryError(
            f"library {library.name!r} was measured on another model than {identity.name!r}: "
            f"{_listed(differing)} {'differs' if len(differing) == 1 else 'differ'}; "
            "give its own model, or build a library of this one"
        )
    unknown = [match.what for match in matches if not match.known]
    if unknown:
        raise LibraryError(
            f"library {library.name!r} does not say on which {_listed(unknown)} it was measured, "
            f"so {identity.name!r} may be another model; build a library of this model"
        )


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
