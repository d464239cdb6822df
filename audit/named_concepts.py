"""Concepts that a table or data sets only name, described by a concept file where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from audit.errors import UsageError
from signatures.concept import Concept, ConceptFileError, load_concepts, make_concept


def named_concepts(
    names: Iterable[str], category: str, concepts_path: Path | None
) -> tuple[Concept, ...]:
    """The concepts called ``names``; those that the file does not describe are of ``category``.

    Raises ``UsageError`` for a file that cannot be used, ``ConceptFileError`` for an unusable name.
    """
    described: dict[str, Concept] = {}
    if concepts_path is not None:
        try:
            described = {concept.name: concept for concept in load_concepts(concepts_path)}
        except ConceptFileError as error:
            raise UsageError(str(error)) from error
    return tuple(described.get(name) or make_concept(name, category) for name in names)
