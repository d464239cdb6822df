"""``audit completion``: the script with which a shell completes what one types."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from audit.errors import AuditError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the script with which a SHELL completes commands.

    It completes options, formats, detectors, strategies, concepts and files too.

    \b
    Examples:
      audit completion bash > ~/.local/share/bash-completion/completions/audit
      audit completion zsh > ~/.zfunc/_audit
      audit completion fish > ~/.config/fish/completions/audit.fish

    For the shell that is open, in bash:  source <(audit completion bash)
    """
    made = get_completion_class(shell)
    if made is None:
        raise AuditError(f"this version of click cannot complete in {shell}")
    click.echo(made(ctx.find_root().command, {}, "audit", "_AUDIT_COMPLETE").source())
