"""What `audit gate` and `audit baseline` share: the settings, the day, the model, the scans."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from audit.backends.open_model import ModelChoice
from audit.cli.library_option import BUNDLED_LIBRARY, open_library
from audit.cli.model_options import optional_model_options
from audit.errors import UsageError
from audit.gate.baseline import BaselineEntry
from audit.gate.changes import Changes
from audit.gate.config import GateConfig
from audit.gate.config_file import find_config, load_config
from audit.gate.result import GateResult


def gate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config, --today, --model and the other options of a model.

    The command gets ``config``, ``today`` and ``model_choice``: the model of --model or, without
    it, that of the settings, run as the other options say.
    """

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Settings file [default: audit.toml or pyproject.toml with [tool.audit], here or in "
        "a folder above, up to the repository's root].",
    )
    @click.option(
        "--today",
        type=click.DateTime(["%Y-%m-%d"]),
        metavar="YYYY-MM-DD",
        help="Judge suppressions as of this day [default: the system's date].",
    )
    @optional_model_options(
        "Folder of the Hugging Face model that you will fine-tune [default: that of the settings]."
    )
    @wraps(command)
    def with_settings(
        *args: Any,
        config_path: Path | None,
        today: datetime.datetime | None,
        model_choice: ModelChoice | None,
        **options: Any,
    ) -> Any:
        from audit.gate.run import check_config

        config = load_config(config_path or find_config(Path.cwd()))
        day = datetime.date.today() if today is None else today.date()
        choice = model_choice or _model_of(config)
        check_config(config, day, has_model=choice is not None)
        return command(*args, config=config, today=day, model_choice=choice, **options)

    return with_settings


def _model_of(config: GateConfig) -> ModelChoice | None:
    if config.model is None:
        return None
    folder = config.root / config.model
    if not folder.is_dir():
        raise UsageError(f"{config.file}: the model '{config.model}' is no folder")
    given = click.get_current_context().params
    names = ("backend", "dtype", "device", "threads", "tensor_parallel")
    return ModelChoice(folder, **{name: given[name] for name in names})


def gate_result(
    config: GateConfig,
    today: datetime.date,
    model_choice: ModelChoice | None,
    *,
    baseline: Sequence[BaselineEntry] | None = None,
    changes: Changes | None = None,
) -> GateResult:
    """Scan and decide, showing on standard error how far it has come."""
    from audit.gate.run import Scanning, model_accesses, run_gate
    from audit.report.progress import scan_progress

    library = open_library(
        BUNDLED_LIBRARY if config.library is None else config.root / config.library
    )
    with (
        scan_progress(None) as progress,
        model_accesses(model_choice, config, progress.reading) as access,
    ):
        return run_gate(
            config,
            Scanning(library, config.library or "bundled", access, progress.advance),
            today=today,
            baseline=baseline,
            changes=changes,
        )
