"""``audit signature``: build, look at, check and pass on signature libraries."""

from __future__ import annotations

import click

from audit.cli.lazy_group import LazyGroup

_COMMANDS = {
    "contexts": "audit.cli.signature.contexts:contexts_command",
    "build": "audit.cli.signature.build:build_command",
    "import": "audit.cli.signature.import_table:import_command",
    "show": "audit.cli.signature.show:show_command",
    "learn": "audit.cli.signature.learn:learn_command",
    "list": "audit.cli.signature.list_libraries:list_command",
    "check": "audit.cli.signature.check:check_command",
    "diff": "audit.cli.signature.diff:diff_command",
    "export": "audit.cli.signature.export:export_command",
    "merge": "audit.cli.signature.merge:merge_command",
    "sign": "audit.cli.signature.sign:sign_command",
}


@click.group("signature", cls=LazyGroup, commands_by_name=_COMMANDS)
def signature_group() -> None:
    """Build, look at, check and pass on signature libraries.

    A signature is what a concept does to the probabilities of a model's tokens; a library holds
    those of one model.

    \b
    Examples:
      audit signature show
      audit signature build --model DIR -o my-library
      audit signature check my-library --model DIR
    """
