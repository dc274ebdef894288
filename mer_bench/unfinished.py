"""The working folder of a run that has no record yet: who is at it, and the states from which it can go on.

`<out>/<dataset>/<model>/.<run>.unfinished/` holds ::

    owner-<n>                               the process that is at it; see `mer_bench.claim`
    begun                                   the run is one of several that a command was asked for
    [fold2-]epoch-000012.….safetensors      the state of training after an epoch; see `mer_bench.checkpoint`
    fold1-done.….safetensors                what a finished fold has come to: its weights and scores
    audit-….safetensors                     weights of every epoch, where an audit was asked for

Of the states of one moment's kind the last two are kept: a damaged one is named, and the one before takes its place.
The folder goes once the record is written.
"""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mer_bench import __version__, registry
from mer_bench.atomic import TEMPORARY_SUFFIX, remove, storage_errors, temporary_beside
from mer_bench.checkpoint import Context, Saved, context_digest, read_state, saved_states, write_state
from mer_bench.claim import Claim
from mer_bench.errors import CheckpointError, StorageError

if TYPE_CHECKING:
    import torch

    from mer_bench.recording import Recording

KEPT = 2
"""States of training that are kept, the last ones."""
SHARE = 0.03
"""The share of a run's time that saving takes at most: where epochs are quicker than that, not each is saved."""
FIRST_AFTER_SECONDS = 2.0
"""A run younger than this is not saved: to begin it again costs no more."""
BEGUN = "begun"

GO_ON = "run the same command again to go on"

_WORDS = {
    "identity": "for the run",
    "mer-bench": "by mer-bench",
    "code": "with the code",
    "python": "with Python",
    "torch": "with torch",
    "numpy": "with NumPy",
    "threads": "with threads",
    "device": "on the device",
    "processor": "on the processor",
    "deterministic": "with deterministic",
    "store": "from the store",
}


def context_of(recording: Recording, device: torch.device) -> dict[str, str]:
    """All that must be equal for a run to go on from a saved state with the bits of an undisturbed one.

    The identity says what is computed; the rest, how: versions, the code itself, thread count, device and processor.
    """
    import numpy as np
    import torch

    on_cuda = device.type == "cuda"
    return {
        "identity": recording.identity,
        "store": recording.features(recording.stores).store,
        "mer-bench": __version__,
        "code": _code_checksum(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "processor": _processor(),
        "deterministic": "yes" if torch.are_deterministic_algorithms_enabled() else "no",
    }


@lru_cache(maxsize=1)
def _code_checksum() -> str:
    """SHA-256 over mer-bench's own code and that of its models, which may change while its version does not."""
    folder = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    digest.update(registry.built_in_checksum().encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _processor() -> str:
    """What decides which of a library's ways to the same sum is taken."""
    import torch

    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def mark_begun(folder: Path) -> None:
    """Make a run's working folder before its turn comes, so that it is known to be wanted still.

    Raises:
        StorageError: If it cannot be made.
    """
    with storage_errors(f"work in {folder.parent}"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BEGUN).touch()


class Unfinished:
    """A run's working folder, held by this process from `with` to its end.

    Args:
        folder: Where; see `Recording.unfinished`.
        run: Its name, for sentences. doing: What a full disk keeps it from, to follow "cannot".
        context: See `context_of`.
        notice: Is told, in a sentence, what was found damaged or could not be saved.

    Attributes:
        path: The folder. is_finished: Set it once nothing is left to be done: the folder then goes at the end.
    """

    def __init__(
        self, folder: Path, run: str, context: Context, notice: Callable[[str], None], doing: str = "save the run"
    ) -> None:
        self.path = folder
        self.run = run
        self.context = dict(context)
        self.notice = notice
        self.doing = doing
        self.is_finished = False
        self._digest = context_digest(context)
        self._claim = Claim(folder, f"the run {run}")
        self._saved_at = time.perf_counter()
        self._cost: float | None = None
        self._could_not_save = False

    def __enter__(self) -> Self:
        """Hold the folder.

        Raises:
            AlreadyRunningError: If another process has it. StorageError: If it cannot be written to.
        """
        try:
            with storage_errors(self.doing):
                self._claim.take(self.notice)
                for left in self.path.glob(f".*{TEMPORARY_SUFFIX}"):
                    remove(left)  # of a killed process: nobody else writes here
        except StorageError:
            self._tidy()
            raise
        self._tell_of_foreign_states()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_finished:
            self._claim.release()
            self._remove()
            return
        if isinstance(error, KeyboardInterrupt) and self.has_states:
            error.add_note(f"what was saved before is kept: {GO_ON}.")
        self._claim.release()
        self._tidy()

    @property
    def has_states(self) -> bool:
        """Whether the same command can go on from here."""
        return any(saved.context == self._digest for saved in saved_states(self.path))

    def check(self) -> None:
        """See that no other process took the run over, before its record is written.

        Raises:
            AlreadyRunningError: If one did.
        """
        with storage_errors(self.doing):
            self._claim.check()

    def is_due(self) -> bool:
        """Whether enough time has passed since the last saving for another one."""
        passed = time.perf_counter() - self._saved_at
        return passed >= FIRST_AFTER_SECONDS if self._cost is None else passed * SHARE >= self._cost

    def save_epoch(self, fold: int | None, epoch: int, state: Mapping[str, Any]) -> bool:
        """Save the state after an epoch and keep the last two. One that cannot be saved is told of once.

        Returns:
            Whether it was saved.

        Raises:
            AlreadyRunningError: If another process took the run over.
        """
        self.check()
        started = time.perf_counter()
        saved = self._write(f"{_of_fold(fold)}epoch-{epoch:06}", state)
        for old in self._of_kind(f"{_of_fold(fold)}epoch-")[:-KEPT] if saved else ():
            remove(old.file)
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - started
        return saved

    def save_fold(self, fold: int, result: Mapping[str, Any]) -> None:
        """Keep what a fold has come to, so that it is not done again; its states of training go.

        Raises:
            AlreadyRunningError: If another process took the run over.
        """
        self.check()
        if self._write(f"{_of_fold(fold)}done", result):
            for old in self._of_kind(f"{_of_fold(fold)}epoch-"):
                remove(old.file)

    def last_epoch(self, fold: int | None) -> Mapping[str, Any] | None:
        """The last state of training that is whole, or None; damaged ones are told of and removed."""
        return self._last(f"{_of_fold(fold)}epoch-")

    def finished_fold(self, fold: int) -> Mapping[str, Any] | None:
        """What `save_fold` kept; None where there is none, or a damaged one, which is told of and removed."""
        return self._last(f"{_of_fold(fold)}done")

    def _of_kind(self, start: str) -> list[Saved]:
        return [s for s in saved_states(self.path) if s.context == self._digest and s.label.startswith(start)]

    def _last(self, start: str) -> Mapping[str, Any] | None:
        found = self._of_kind(start)
        while found:
            saved = found.pop()
            try:
                context, state = read_state(saved)
                if context != self.context or not isinstance(state, dict):
                    raise CheckpointError("is that of another run under this name")
            except CheckpointError as error:
                instead = f"goes on from {_moment(found[-1])}, saved before it" if found else "starts anew there"
                self.notice(f"the saved state {saved.file.name} {error}; it is removed, and the run {instead}.")
                remove(saved.file)
            else:
                return state
        return None

    def _write(self, label: str, state: Mapping[str, Any]) -> bool:
        try:
            write_state(self.path, label, self.context, state)
        except (StorageError, CheckpointError) as error:
            if not self._could_not_save:
                self.notice(f"{str(error).rstrip('.')}. The run goes on, but if it is stopped it starts from before.")
            self._could_not_save = True
            return False
        self._could_not_save = False
        return True

    def _tell_of_foreign_states(self) -> None:
        """Say why a run does not go on from states that are there, once and plainly."""
        states = saved_states(self.path)
        if not states or any(saved.context == self._digest for saved in states):
            return
        fault = ""
        for saved in reversed(states):
            try:
                theirs, _ = read_state(saved)
            except CheckpointError as error:
                fault = fault or f"the saved state {saved.file.name} {error}; the run starts anew."
                continue
            unequal = {name: theirs.get(name, "") for name, ours in self.context.items() if theirs.get(name) != ours}
            told = " and ".join(self._difference(name, value) for name, value in unequal.items())
            self.notice(
                f"{_moment(saved)} was saved {told}: to go on from it would give numbers that no undisturbed run "
                "gives, so the run starts anew. What was saved stays until the run is done."
            )
            return
        self.notice(fault)

    def _difference(self, name: str, theirs: str) -> str:
        ours = self.context[name]
        if len(ours) == 64:  # a checksum tells nobody anything
            ours, theirs = f"{ours[:8]}…", f"{theirs[:8]}…"
        return f"{_WORDS[name]} {theirs} (now {ours})"

    def _tidy(self) -> None:
        """Leave the folder only where it holds something to go on from."""
        if not saved_states(self.path) and not (self.path / BEGUN).exists():
            self._remove()

    def _remove(self) -> None:
        """In one step: whoever begins the same run meanwhile has a folder of his own."""
        gone = temporary_beside(self.path)
        try:
            self.path.rename(gone)
        except OSError:  # it never came to be, or may not be written to any more
            return
        remove(gone)


def _of_fold(fold: int | None) -> str:
    return "" if fold is None else f"fold{fold}-"


def _moment(saved: Saved) -> str:
    """`epoch 12`, `epoch 3 of fold 2`, `fold 1`."""
    parts = dict(re.findall(r"(epoch-|fold)([0-9]+)", saved.label))
    epoch = f"epoch {int(parts['epoch-'])}" if "epoch-" in parts else ""
    fold = f"fold {int(parts['fold'])}" if "fold" in parts else ""
    return " of ".join(part for part in (epoch, fold) if part)
