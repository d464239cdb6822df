"""A group of commands, each imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from audit.cli.streams import let_ctrl_c_interrupt


class LazyGroup(click.Group):
    """Knows its commands by name and by ``module:attribute``."""

    def __init__(self, *args: Any, commands_by_name: Mapping[str, str], **options: Any) -> None:  # noqa: D107
        super().__init__(*args, **options)
        self._targets = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self._targets)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        target = self._targets.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        command: click.Command = getattr(import_module(module), attribute)
        let_ctrl_c_interrupt()
        return command
