"""The group of commands: nearest names for a mistyped command, and every error answered in one place."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mer_bench.errors import RequestError, UnknownNameError


class _Interrupted(Exception):  # noqa: N818 — carries Ctrl-C past Typer, which would answer it without a word
    pass


class Commands(TyperGroup):
    """A group that answers an unknown command with the nearest ones."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is named; one that does not exist is answered with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise UnknownNameError("command", args[0], self.commands, f"{ctx.command_path} --help")
        return super().resolve_command(ctx, args)


class Program(Commands):
    """The whole command line; its `main` turns any exception into a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise _Interrupted from interrupt

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the words of a command line; ends the process with the exit code of what came of them."""
        words = args[0] if args else extra.pop("args", None)
        given = list(sys.argv[1:] if words is None else words)
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a letter shows a question mark; it does not end the program.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            code = super().main(given, *args[1:], **{**extra, "standalone_mode": False})
        except Exception as error:
            sys.exit(_answer(error.__cause__ if isinstance(error, _Interrupted) else error, given))
        except KeyboardInterrupt as interrupt:
            sys.exit(_answer(interrupt, given))
        sys.exit(code if isinstance(code, int) else 0)


def help_when_alone(context: typer.Context) -> None:
    """A group that is named without a command shows its help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def refuse_misplaced(context: Any) -> None:
    """Options of a group that does something itself, given before the name of one of its commands, are not lost.

    Raises:
        RequestError: Names the first of them.
    """
    command, path = context.invoked_subcommand, context.command_path
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name == "COMMANDLINE":
            raise RequestError(
                f"{parameter.opts[0]} stands before '{command}', which knows nothing of it; what {command} takes "
                f"stands after it. See: {path} {command} --help"
            )


def _answer(error: BaseException | None, arguments: Sequence[str]) -> int:
    from mer_bench.cli.console import Screen
    from mer_bench.cli.failures import describe

    assert error is not None
    if "--debug" in arguments:
        traceback.print_exception(error)
    sentence, code = describe(error, arguments)
    Screen().fail(sentence)
    return code
