"""From any exception to one plain sentence and an exit code: the only place where that is decided."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from mer_bench.cli.stopping import Terminated
from mer_bench.errors import MerBenchError, RunError, is_out_of_memory

FAILED, WRONG_REQUEST, SAVED, INTERRUPTED = 1, 2, 75, 130


def describe(error: BaseException, arguments: Sequence[str] = ()) -> tuple[str, int]:
    """The sentence for standard error and the exit code.

    Args:
        arguments: The command line, so that a path is named as it was given.
    """
    if type(error) is RunError and error.__cause__ is not None and _is_of_the_machine(error.__cause__):
        # The runner cannot tell a plugin's fault from an exhausted machine; here the reason counts.
        error = error.__cause__
    if isinstance(error, MerBenchError):
        return " ".join(str(error).splitlines()), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        terminated = isinstance(error, Terminated)
        kept = " ".join(getattr(error, "__notes__", [])) or "nothing half-written was left behind."
        return f"stopped by {'SIGTERM' if terminated else 'Ctrl-C'}; {kept}", SAVED if terminated else INTERRUPTED
    if is_usage_error(error):
        return _usage_sentence(error), WRONG_REQUEST
    if is_out_of_memory(error):
        sentence = (
            "the memory of this machine or its device was exhausted. Try smaller batches, such as "
            "--set batch_size=8, a smaller model, or another --device."
        )
    elif isinstance(error, OSError):
        sentence = _storage_sentence(error, arguments)
    else:
        detail = str(error).strip().splitlines()
        told = f"{type(error).__name__}: {detail[0]}" if detail else type(error).__name__
        sentence = f"this should not have happened: {told} To see where it comes from, add --debug; please report it."
    return sentence, FAILED


def is_usage_error(error: BaseException) -> bool:
    """Whether the command line itself was wrong: an exception of Typer's that explains itself."""
    return isinstance(error, Exception) and callable(getattr(error, "format_message", None))


def _is_of_the_machine(error: BaseException) -> bool:
    return is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


def _usage_sentence(error: BaseException) -> str:
    name = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    where = f" See: {context.command_path} --help" if context is not None else ""
    if name and hasattr(error, "possibilities"):
        possible = sorted(error.possibilities or ())
        hint = " Did you mean " + " or ".join(f"'{option}'" for option in possible) + "?" if possible else ""
        return f"no option is called '{name}'.{hint}{where}"
    message: str = error.format_message()  # type: ignore[attr-defined]  # is_usage_error has checked it
    message = " ".join(message.split()).rstrip(".")
    return f"{message[:1].lower()}{message[1:]}.{where}"


def _storage_sentence(error: OSError, arguments: Sequence[str]) -> str:
    place = path_as_given(error.filename, arguments)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {place} could not be written. Free some space or choose another folder."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{place} may not be read or written by this user. Change its permissions or choose another folder."
    if error.errno == errno.EROFS:
        return f"{place} is on a read-only file system. Choose another folder."
    if error.errno == errno.ENOENT:
        return f"{place} is not there."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{place} cannot be a folder: a file of that name is in the way."
    return f"{place} could not be read or written: {error.strerror or error}."


def path_as_given(filename: object, arguments: Sequence[str]) -> str:
    """A path of an error in the words of the command line: `runs/meld` rather than `/home/.../runs/meld`."""
    if not isinstance(filename, (str, bytes)):
        return "a file"
    failed = Path(os.fsdecode(filename))
    for argument in arguments:
        given = Path(argument.partition("=")[2] if argument.startswith("--") else argument)
        if given == Path():
            continue
        absolute = given.absolute()
        if failed.absolute() == absolute:
            return str(given)
        if failed.absolute().is_relative_to(absolute):
            return str(given / failed.absolute().relative_to(absolute))
    return str(failed)
