"""Every error that mer-bench raises on purpose.

    MerBenchError
    ├── RequestError            the request was wrong: exit code 2
    │   ├── UnknownNameError    a name that nothing answers to; suggests the nearest
    │   ├── SettingError        a setting that does not exist or lies outside its range
    │   ├── CardError           a plugin's card.toml is missing, malformed or contradicts itself
    │   ├── PluginError         a plugin's code cannot be imported or breaks its contract
    │   ├── MissingDataError    data that the request needs are not on this machine
    │   ├── NotStackableError   a model whose seeds can't be trained in one pass
    │   ├── LicenceError        a corpus whose licence was not accepted; nothing of it was downloaded
    │   └── DataError           a file is damaged, malformed, of the wrong size or not what it claims
    │       └── UnsafePickleError   a pickle asks for something that data never need
    ├── RunError                the request was right and the run failed: exit code 1
    │   ├── DivergedError       the loss became NaN or infinite
    │   ├── OutOfMemoryError    memory of the device or of the machine was exhausted
    │   ├── CheckpointError     a saved state is damaged, or a state cannot be saved
    │   ├── AlreadyRunningError another process is at the same run
    │   ├── WorkerLostError     the worker was gone each time that it did this run
    │   └── StorageError        something could not be written or read: disk full, folder read-only
    ├── StoppedError            stopped by a signal, and saved: exit code 75
    ├── UnreachableError        no host answered (name or connection failure); exit code 1
    └── RecordError             a record or predictions file is not valid; exit code 2

The message of each is one or two plain sentences: what is wrong, what was given, what to do.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class MerBenchError(Exception):
    """Anything that mer-bench reports as one plain sentence."""

    exit_code = 1


class RequestError(MerBenchError):
    """The request was wrong; nothing was run or written."""

    exit_code = 2


class UnknownNameError(RequestError):
    """A name that nothing answers to.

    Args:
        kind: What was looked for, as a noun: `model`, `dataset`, `setting`.
        given: The name as it was given.
        known: The names that exist.
        where: A command that lists them, or "".
    """

    def __init__(self, kind: str, given: str, known: Iterable[str], where: str = "") -> None:
        names = sorted(known)
        self.given = given
        self.nearest = nearest_names(given, names)
        message = f"no {kind} is called '{given}'."
        if self.nearest:
            message += " Did you mean " + " or ".join(f"'{name}'" for name in self.nearest) + "?"
        elif names:
            message += " Known: " + ", ".join(names) + "."
        if where:
            message += f" See: {where}"
        super().__init__(message)


class SettingError(RequestError):
    """A setting that does not exist or lies outside its legal range."""


class CardError(RequestError):
    """A plugin's card is missing, malformed or contradicts itself."""


class PluginError(RequestError):
    """A plugin's code cannot be imported or breaks its contract."""


class MissingDataError(RequestError):
    """Data that the request needs are not on this machine."""


class NotStackableError(RequestError):
    """A model whose seeds can't be trained together in one pass; says what stands in the way."""


class LicenceError(RequestError):
    """A corpus may be downloaded only under a licence that was not accepted; no host was asked for anything.

    Args:
        dataset: Name of the corpus.
        owner: Who grants the licence. url: Where its text is and where it is asked for.
    """

    def __init__(self, dataset: str, owner: str, url: str) -> None:
        super().__init__(
            f"{dataset} may be downloaded only under the licence of {owner} ({url}), which was not accepted; nothing "
            f"was downloaded. Read it, and accept it with: mer-bench data fetch {dataset} --accept-licence "
            "(in Python: accept_licence=True)."
        )
        self.dataset = dataset
        self.owner = owner
        self.url = url


class DataError(RequestError):
    """A file is damaged, malformed, of the wrong size or not what it claims to be."""


class UnsafePickleError(DataError):
    """A pickle asks for something that data never need; nothing of it was run."""


class RunError(MerBenchError):
    """The request was right and the run failed."""


class DivergedError(RunError):
    """The training loss became NaN or infinite."""


class OutOfMemoryError(RunError):
    """The memory of the device or of the machine was exhausted."""


class WorkerLostError(RunError):
    """The worker was gone each time that it did this run: killed, out of memory, or out of reach."""


class StorageError(RunError):
    """Something could not be written or read: disk full, folder read-only.

    Args:
        reason: Why, and what to do, without what was being done; "" where the message is all there is.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class CheckpointError(RunError):
    """A saved state of a run is damaged or is that of another run, or a state cannot be saved."""


class AlreadyRunningError(RunError):
    """Another process is at the very same run, or took it over."""


class StoppedError(MerBenchError):
    """A run was stopped by a signal and can go on where it was; no failure, and no record says so.

    Args:
        saved: Whether a state was saved from which the same command goes on; else exit code 130, as Ctrl-C has.
    """

    exit_code = 75

    def __init__(self, message: str, saved: bool = True) -> None:
        super().__init__(message)
        if not saved:
            self.exit_code = 130


class UnreachableError(MerBenchError):
    """No host answered: a name or a connection failure, never an answer of the wrong kind."""


class RecordError(MerBenchError):
    """A record or a predictions file is not valid."""

    exit_code = 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was exhausted: Python's or NumPy's error, or torch's on a device or on the CPU.

    Told by names and words, so that torch need not be imported: torch's allocator on the CPU raises a plain
    `RuntimeError`, and cuBLAS and cuDNN tell of a workspace that they did not get in errors of their own.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _EXHAUSTED)


_EXHAUSTED = ("allocate memory", "out of memory", "bad_alloc", "status_alloc_failed", "status_not_enough_workspace")


def nearest_names(given: str, known: Iterable[str], count: int = 2) -> list[str]:
    """The known names that resemble the given one most, the best first; empty when none does.

    >>> nearest_names("dialogernn", ["dialoguernn", "dialoguecrn", "mmgcn"])
    ['dialoguernn', 'dialoguecrn']
    """
    by_folded = {name.casefold(): name for name in known}
    matches = difflib.get_close_matches(given.casefold(), by_folded, n=count, cutoff=0.6)
    return [by_folded[match] for match in matches]
