"""Who works in a folder: one process at a time, on a local or a network file system, without advisory locks.

A claim is a file `owner-<n>` that is made whole in one step and only if no file of that name is there, which
file systems keep to between machines too. It tells machine, process and the process's start, and its time stamp
is renewed as a heartbeat. Whoever finds a claim asks the operating system whether that process lives, if it is
one of this machine; of another machine's he watches the heartbeat, so that no clock is ever compared with another
one. A dead process's claim `n` is replaced by making `owner-<n + 1>`: of several who try, one succeeds.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mer_bench.atomic import remove, temporary_beside
from mer_bench.errors import AlreadyRunningError

BEAT_SECONDS = 10.0
"""Time between two heartbeats."""
WATCH_SECONDS = 3.5 * BEAT_SECONDS
"""A claim of another machine whose heartbeat is not heard for so long is that of a dead process."""

_NAME = re.compile(r"owner-([0-9]{1,9})")
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES, errno.EMLINK}
_ATTEMPTS = 20


@dataclass(frozen=True)
class Owner:
    """The process that a claim belongs to.

    Attributes:
        machine: Of this boot and this space of process numbers; equal where numbers mean the same processes.
        host: The machine's name, for people. born: When the process began, in the system's own count; "" if unknown.
        token: Unique. since: UTC, for people.
    """

    machine: str
    host: str
    pid: int
    born: str
    token: str
    since: str


class Claim:
    """One process's claim on a folder.

    Args:
        folder: Made if it is not there.
        what: What is done in it, as the start of a sentence: `the run cmath... `.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self.what = what
        self.owner = Owner(
            machine=_machine(),
            host=platform.node(),
            pid=os.getpid(),
            born=_born(os.getpid()),
            token=secrets.token_hex(16),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._number = 0
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self, waiting: Callable[[str], None]) -> None:
        """Claim the folder, and keep the claim alive until `release`.

        Args:
            waiting: Is told, in a sentence, that the heartbeat of another machine's process is being watched.

        Raises:
            AlreadyRunningError: If a living process has it.
            OSError: If the folder cannot be written to.
        """
        for _ in range(_ATTEMPTS):
            self.folder.mkdir(parents=True, exist_ok=True)
            number = _newest(self.folder)
            if number and self._is_alive(number, waiting):
                continue  # what was read is gone: look again
            if self._make(number + 1):
                self._number = number + 1
                for older in range(1, self._number):
                    remove(self._file(older))
                self._beating = threading.Thread(target=self._beat, name="claim", daemon=True)
                self._beating.start()
                return
        raise AlreadyRunningError(f"{self.what} is being begun by several processes at once; try again.")

    def check(self) -> None:
        """See that the claim still stands, before something is written on its strength.

        Raises:
            AlreadyRunningError: If another process took it over, having thought this one dead.
        """
        newest = _newest(self.folder)
        if newest == 0:  # somebody removed the files
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make(self._number)
            newest = _newest(self.folder)
        found = _read(self._file(newest))
        if newest != self._number or found is None or found.token != self.owner.token:
            by = f" by process {found.pid} on {found.host}" if found else ""
            raise AlreadyRunningError(
                f"{self.what} was taken over{by}, since this process gave no sign of life for a while; "
                "it goes on there, and this one ends."
            )

    def release(self) -> None:
        """Give the folder free."""
        self._ended.set()
        if self._beating:
            self._beating.join()
        found = _read(self._file(self._number)) if self._number else None
        if found and found.token == self.owner.token:
            remove(self._file(self._number))

    def holder(self) -> Owner | None:
        """The living process of this machine that has the folder; None: nobody, or it cannot be told at once."""
        number = _newest(self.folder)
        owner = _read(self._file(number)) if number else None
        return owner if owner and owner.machine == self.owner.machine and _lives(owner) else None

    def refusal(self, owner: Owner | None) -> AlreadyRunningError:
        """The sentence for whoever comes second."""
        who = "another process"
        if owner:
            where = "this machine" if owner.machine == self.owner.machine else owner.host
            who = f"process {owner.pid} on {where} since {owner.since}"
        return AlreadyRunningError(
            f"{self.what} is being done already, by {who}; wait until it has ended, or give another folder."
        )

    def _is_alive(self, number: int, waiting: Callable[[str], None]) -> bool:
        """False if a claim's process is dead; True if the claim itself is gone by now.

        Raises:
            AlreadyRunningError: If the process lives.
        """
        file = self._file(number)
        owner = _read(file)
        if owner and owner.machine == self.owner.machine:
            if _lives(owner):
                raise self.refusal(owner)
            return False
        before = _stamp(file)
        if before is None:
            return True
        host = owner.host if owner else "a process unknown"
        waiting(f"{self.what} was begun on {host}: watching for {WATCH_SECONDS:g} s whether it is still alive")
        until = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < until:
            time.sleep(min(1.0, WATCH_SECONDS / 10))
            now = _stamp(file)
            if now is None:
                return True
            if now != before:
                raise self.refusal(owner)
        return False

    def _make(self, number: int) -> bool:
        """Make the claim's file whole and in one step; False if there is one of that number, or no folder any more."""
        file = self._file(number)
        draft = temporary_beside(file)
        content = json.dumps(asdict(self.owner)).encode()
        try:
            draft.write_bytes(content)
            try:
                os.link(draft, file)
            except FileExistsError:
                # A network file system may have done it and lost the answer.
                return draft.stat().st_nlink == 2
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return _make_exclusively(file, content)
        except (FileNotFoundError, FileExistsError):
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                os.utime(self._file(self._number))
            except OSError:  # gone, or the network is: `check` will say
                continue

    def _file(self, number: int) -> Path:
        return self.folder / f"owner-{number}"


def _make_exclusively(file: Path, content: bytes) -> bool:
    """Where the file system has no hard links: a reader may meet half of it, and then waits for a heartbeat."""
    with file.open("xb") as stream:
        stream.write(content)
    return True


def _newest(folder: Path) -> int:
    """The highest number of a claim; 0 where there is none."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 (a list: the folder may go while an iterator is used)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return max((int(match[1]) for name in names if (match := _NAME.fullmatch(name))), default=0)


def _read(file: Path) -> Owner | None:
    """The owner in a claim's file; None if it is gone or says nothing that makes sense."""
    try:
        values = json.loads(file.read_bytes())
        owner = Owner(**values)
    except (OSError, ValueError, TypeError):
        return None
    texts = (owner.machine, owner.host, owner.born, owner.token, owner.since)
    return owner if type(owner.pid) is int and owner.pid > 0 and all(isinstance(text, str) for text in texts) else None


def _stamp(file: Path) -> tuple[int, int] | None:
    """Time stamp and size; opened, since a network file system answers from memory otherwise."""
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _lives(owner: Owner) -> bool:
    """Whether a process of this machine is there and is the one that made the claim."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        return True
    born = _born(owner.pid)
    return born not in {"ended"} and (not born or not owner.born or born == owner.born)


def _born(pid: int) -> str:
    """When a process began, in ticks since the boot; `ended` for one that is only waited for; "" where unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    if len(fields) < 20:
        return ""
    return "ended" if fields[0] in ("Z", "X") else fields[19]


def _machine() -> str:
    """The same for two processes exactly where a process number means the same to both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()
