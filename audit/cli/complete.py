"""What a shell offers for values that click does not know by itself."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def files(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of files: data may also be a glob or a URL, so the values are no paths."""
    return [CompletionItem(incomplete, type="file")]


def concepts(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the concepts that ship, decoys left out."""
    from signatures.concept import DEFAULT_CONCEPTS, load_concepts

    names = (c.name for c in load_concepts(DEFAULT_CONCEPTS) if not c.is_decoy)
    return _beginning(names, incomplete)


def detectors(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the detectors, those that need a model too."""
    from detectors.registry import detector_names, model_detector_names

    return _beginning((*detector_names(), *model_detector_names()), incomplete)


def strategies(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the strategies, without their settings."""
    from audit.sanitise.registry import AUTO, strategy_names

    return _beginning((AUTO, *strategy_names()), incomplete)
