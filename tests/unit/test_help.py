"""Every command explains itself, and every example in its help is one that the parser takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from audit.cli.main import cli

TOP = click.Context(cli, info_name="audit")


def walk(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield ctx.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from walk(found, click.Context(found, parent=ctx, info_name=name))


COMMANDS = dict(walk(cli, TOP))


def examples(command: click.Command) -> list[str]:
    """The lines below "Examples:", those that end in a backslash joined with the next."""
    text = str(command.help).replace("\b", "").replace("\\\n", " ")
    found = re.search(r"^ *Examples:\n((?:^ +\S.*\n?)+)", text, re.MULTILINE)
    return [line.strip() for line in found[1].splitlines()] if found else []


def audit_calls(example: str) -> Iterator[list[str]]:
    """The words after each `audit` of a shell line: pipes part commands, redirections end one."""
    lexer = shlex.shlex(example, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    call: list[str] | None = None
    for word in lexer:
        if word in {"|", "<", ">"}:
            if call is not None:
                yield call
            call = None
        elif call is not None:
            call.append(word)
        elif word == "audit":
            call = []
    if call is not None:
        yield call


def test_the_tree_was_walked() -> None:
    assert {"audit", "audit scan", "audit signature", "audit signature sign"} <= set(COMMANDS)
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_a_summary_and_examples(path: str) -> None:
    command = COMMANDS[path]
    summary = str(command.help).strip().split("\n\n")[0]
    assert "\n" not in summary and summary.endswith((".", "?", "]."))
    shown = examples(command)
    assert shown, "no examples"
    assert any(re.search(rf"(^|\| ){path}\b", example) for example in shown)


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_explained(path: str) -> None:
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help or "-f" in parameter.opts or parameter.show_default, (
                parameter.opts
            )


def checked(call: list[str]) -> click.Command:
    """The command that ``call`` names, its options parsed and not one of them converted or run."""
    ctx, command = TOP, cli
    words = call
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0].isupper():
            return command  # a name to put in
        found = command.get_command(ctx, words[0])
        assert found is not None, f"there is no command {words[0]}"
        ctx = click.Context(found, parent=ctx, info_name=words[0])
        command, words = found, words[1:]
    # The parser knows the options and how many values each takes; it touches no file.
    values, left, _ = command.make_parser(ctx).parse_args(list(words))
    assert left == [] or isinstance(command, click.Group), left
    for parameter in command.params:
        if "--help" in words or "-h" in words:
            continue
        value = values.get(parameter.name)
        given = value not in (None, (), []) and not type(value).__name__.endswith("Sentinel")
        assert given or not parameter.required, f"{parameter.name} is required"
        if isinstance(parameter.type, click.Choice) and given:
            for one in value if isinstance(value, (list, tuple)) else [value]:
                assert one in parameter.type.choices, one
    return command


@pytest.mark.parametrize(
    ("path", "example"),
    [(path, example) for path, command in COMMANDS.items() for example in examples(command)],
)
def test_every_example_can_be_parsed(path: str, example: str) -> None:
    calls = list(audit_calls(example))
    assert calls, "an example without audit"
    for call in calls:
        checked(call)


@pytest.mark.parametrize(
    "call",
    [
        ["scan", "x", "--no-such-option"],
        ["no-such-command"],
        ["scan"],
        ["scan", "x", "--format", "pdf"],
        ["signature", "merge", "a"],
    ],
)
def test_a_wrong_example_would_be_found(call: list[str]) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        checked(call)


@pytest.mark.parametrize(
    "path", ["audit scan", "audit sanitise", "audit run", "audit verify", "audit doctor"]
)
def test_commands_that_judge_say_their_exit_codes(path: str) -> None:
    assert "Exit codes: 0 " in " ".join(str(COMMANDS[path].help).split()).replace(
        "Exit codes, of the scan of the output: 0", "Exit codes: 0"
    )
