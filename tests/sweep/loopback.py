"""A cluster on the loopback device, of real processes that a test may kill; and a model that takes its time."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mer_bench.records import Record, predictions_file, read_record

SLOWLY = """
    '''Reads one modality, slowly.'''
    # /// mer-bench
    # title   = "Slowly"
    # summary = "Made up."
    # entry   = "Slowly"
    # config  = "SlowlySettings"
    # version = 1
    # modalities = ["text", "audio", "visual"]
    # causal = true
    # uses_speakers = false
    # speaker_symmetric = true
    # memory = "linear"
    # [settings.default]
    # epochs = 3
    # patience = 3
    # batch_size = 512
    # learning_rate = 0.05
    # ///
    from __future__ import annotations
    import os
    import signal
    import time
    from torch import nn
    from mer_bench.api import Batch, InputSpec, Model, Output, Settings

    class SlowlySettings(Settings):
        seconds: float = 0.0
        kills: bool = False
        breaks: bool = False

    class Slowly(Model):
        def __init__(self, spec: InputSpec, settings: SlowlySettings) -> None:
            super().__init__(spec, settings)
            self.settings = settings
            self.output = nn.Linear(spec.widths[spec.modalities[0]], spec.class_count)

        def forward(self, batch: Batch) -> Output:
            if self.settings.kills:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.settings.breaks:
                raise IndexError("no such row")
            if self.training:
                time.sleep(self.settings.seconds)
            return Output(self.output(batch.features[self.spec.modalities[0]]))
"""


def write_slowly(folder: Path) -> Path:
    """The model as a file, for `--plugin`."""
    file = folder / "slowly.py"
    file.write_text(textwrap.dedent(SLOWLY), encoding="utf-8")
    return file


def free_port() -> int:
    """A port of the loopback device on which nobody listens."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


@dataclass
class Loopback:
    """A scheduler and its workers, each a process of its own.

    Attributes:
        environment: Of the workers, besides this process's own.
        deaths: How many workers were killed. names: Every worker that was started, by its name.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    deaths: int = 0
    names: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _number: int = 0

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        """Start it, at the same address again and again."""
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show", "--no-jupyter"]
        self.scheduler = self._start("dask_scheduler", *words)
        wait_for(lambda: is_listening(self.port), "the scheduler")

    def start_worker(self, address: str | None = None, threads: int = 1) -> subprocess.Popen[bytes]:
        """Start one without anything that would start it again."""
        name = f"worker-{self._number}"
        words = [
            address or self.address,
            "--name",
            name,
            "--nthreads",
            str(threads),
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            "0",
        ]
        words += ["--local-directory", str(self.folder), "--death-timeout", "20"]
        worker = self._start("dask_worker", *words)
        self.workers.append(worker)
        self.names[name] = worker
        return worker

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        self._number += 1
        log = self.folder / f"{program}-{self._number}.log"
        with log.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", *words],
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, and no less."""
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process in self.workers:
            self.workers.remove(process)
            self.deaths += 1

    def restart(self) -> None:
        """Kill the scheduler, and start another with as many workers: Dask's own end with their scheduler."""
        assert self.scheduler is not None
        count = len(self.workers)
        self.kill(self.scheduler)
        for worker in list(self.workers):
            worker.kill()
            worker.wait()
        self.workers.clear()
        self.start_scheduler()
        for _ in range(count):
            self.start_worker()

    def stop(self) -> None:
        """End everything."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()


@contextmanager
def loopback(folder: Path, workers: int, **environment: str) -> Iterator[Loopback]:
    """Start a cluster; all of it is gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Loopback(folder, environment)
    with ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker()
        yield cluster


class Wire:
    """Passes bytes on to a port, until it is cut; connections that are made while it is cut fail."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._is_cut = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """To be given in place of the real one."""
        return f"tcp://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._server.accept()
                if self._is_cut:
                    ours.close()
                    continue
                theirs = socket.create_connection(("127.0.0.1", self._to))
                self._open += [ours, theirs]
                for source, target in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End all that goes through, and let nothing through any more."""
        self._is_cut = True
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._is_cut = False

    def close(self) -> None:
        """For good."""
        self.cut()
        self._server.close()


def is_listening(port: int) -> bool:
    """Whether somebody does on that port of the loopback device."""
    with closing(socket.socket()) as tried:
        tried.settimeout(1)
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_for(is_there: Callable[[], bool], what: str, seconds: float = 240) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: If it takes longer.
    """
    until = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < until, f"{what} did not come within {seconds:g} s"
        time.sleep(0.05)


@dataclass(frozen=True)
class Compared:
    """Two folders of records: what the second lacks, has twice, or has otherwise."""

    runs: int
    lost: int
    doubled: int
    changed: int

    @property
    def is_same(self) -> bool:
        """Nothing of all that."""
        return not (self.lost or self.doubled or self.changed)

    def __str__(self) -> str:
        return f"{self.runs} runs: {self.lost} lost, {self.doubled} doubled, {self.changed} changed"


def compare(serial: Path, other: Path) -> Compared:
    """Compare the records of two sweeps by identity, and their predictions byte by byte."""
    ours, theirs = _records(serial), _records(other)
    lost = len(ours.keys() - theirs.keys())
    doubled = sum(len(each) - 1 for each in theirs.values()) + len(theirs.keys() - ours.keys())
    changed = sum(_told(ours[identity][0]) != _told(theirs[identity][0]) for identity in ours.keys() & theirs.keys())
    return Compared(len(ours), lost, doubled, changed)


def _records(folder: Path) -> dict[str, list[tuple[Path, Record]]]:
    found: dict[str, list[tuple[Path, Record]]] = {}
    for file in sorted(folder.rglob("*.json")):
        record = read_record(file)
        found.setdefault(record.identity, []).append((file, record))
    return found


def _told(each: tuple[Path, Record]) -> object:
    """All of a record but what it cost and where and when it ran, and the checksum of its predictions."""
    file, record = each
    values = record.model_dump(mode="json", exclude={"cost", "machine", "started", "options"})
    predictions = predictions_file(file.parent, record.run)
    return values, hashlib.sha256(predictions.read_bytes()).hexdigest() if record.predictions else None


def unfinished(folder: Path) -> list[str]:
    """Hidden files and folders that a sweep left behind."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob(".*"))
