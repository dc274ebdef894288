"""What a worker does: one run, in this process, from an order that says everything to what came of it.

A worker that sees the folder of records writes to it, like a run at home. One that does not (no file system is shared)
works in a folder of its own and hands the files back. Neither is asked to be careful: the one that gave the order
checks what came.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from mer_bench import __version__, registry
from mer_bench.data.preparation import open_prepared
from mer_bench.errors import (
    AlreadyRunningError,
    DataError,
    MerBenchError,
    MissingDataError,
    RecordError,
    RequestError,
    StoppedError,
    WorkerLostError,
)
from mer_bench.locations import data_root, store_folder
from mer_bench.recording import Recording
from mer_bench.records import Cost, Epoch, Failure, predictions_file, private_file
from mer_bench.request import Plan, RunRequest, plan
from mer_bench.runner import Listener, Opened, open_device, open_run, run_opened

TRIES = 3
"""A run that was begun so often, and whose worker was gone each time, is not begun again."""

WAIT_SECONDS = 1.0
"""Between two looks at a run that another process is at."""

_AS_WITHOUT_DASK = {-3: 32 << 20, -1: 64 << 20}
"""glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in bytes, as they end in any other process of large tensors."""

_turn = threading.Lock()
"""A run seeds global generators and sets the process's threads: one at a time in a process."""


@dataclass(frozen=True)
class Order:
    """All that a worker must know of a run.

    Attributes:
        request: With `out` and `data_root` as they are where the order was given.
        identity: What the run must turn out to be: other data or other code would make another one.
        version: Of mer-bench. plugins: Places of models that are not installed.
        beacon: Name of a file in `out`: where it is seen, the folder is shared.
    """

    request: RunRequest
    identity: str
    version: str = __version__
    plugins: tuple[Path, ...] = ()
    beacon: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of an order.

    Attributes:
        status: `done`: record and files are written, or are in `files`. `failed`: the run has no result; its record
            says so where there is one. `unfit`: the worker cannot do this run. `dropped`: nobody wanted it any more.
        kind, reason: Of a failure: the kind of error, and its sentence.
        files: Content by name, where the folder is not shared.
    """

    identity: str
    status: Literal["done", "failed", "unfit", "dropped"]
    kind: str = ""
    reason: str = ""
    files: dict[str, bytes] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Surroundings:
    """What a worker hears from, and tells to, those who gave the order.

    Attributes:
        begin: Called before the run with what was saved of it; how often it was begun with no more than that, and how
            many seconds ago the first time. A run that got on before its worker was gone does not keep ending workers.
        tell: Takes news of the run: `{"run": identity, "epoch": 3, ...}`.
        is_unwanted: Whether the order was withdrawn.
    """

    begin: Callable[[str], tuple[int, float]] = lambda saved: (1, 0.0)
    tell: Callable[[dict[str, Any]], None] = lambda news: None
    is_unwanted: Callable[[], bool] = lambda: False


def perform(order: Order, around: Surroundings) -> Outcome:
    """Do the run of an order; whatever goes wrong is told, nothing is raised."""
    begun = time.monotonic()
    keep_freed_memory()
    with _turn, ExitStack() as stack:
        try:
            outcome = _perform(order, around, stack)
        except MerBenchError as error:
            outcome = Outcome(order.identity, "unfit", type(error).__name__, str(error))
        return replace(outcome, seconds=time.monotonic() - begun)


def keep_freed_memory() -> None:
    """Let the allocator of a Dask worker keep what was freed for the next step, as it does in any other process.

    Dask starts its workers with `MALLOC_TRIM_THRESHOLD_`, which is meant for large frames of data: what is freed goes
    back to the system at once, and the tensors of every training step are taken from there anew, page by page.
    """
    library = ctypes.CDLL(None)
    if "MALLOC_TRIM_THRESHOLD_" in os.environ and hasattr(library, "mallopt"):
        for parameter, size in _AS_WITHOUT_DASK.items():
            library.mallopt(parameter, size)


def _perform(order: Order, around: Surroundings, stack: ExitStack) -> Outcome:
    if order.version != __version__:
        raise DataError(f"this worker has mer-bench {__version__}, not {order.version}. Install the same version.")
    for place in order.plugins:
        if place not in registry.added_places():
            registry.add_plugin(place)
    is_shared = (order.request.out / order.beacon).is_file()
    request = order.request
    if not is_shared:
        own = stack.enter_context(tempfile.TemporaryDirectory(prefix="mer-bench-", ignore_cleanup_errors=True))
        request = replace(request, out=Path(own))
    opened = _opened(order, request)
    recording = Recording(opened.plan, opened.stores)
    with suppress(RecordError):  # a damaged one is replaced
        if recording.found() is not None:
            return Outcome(order.identity, "done")  # somebody who was taken for lost had finished it
    tries, seconds = around.begin(_saved(recording))
    if tries > TRIES:
        error = WorkerLostError(
            f"the worker was gone {TRIES} times while it did this run: its process was killed, ran out of memory, or "
            "could not be reached. The run was set aside."
        )
        return _set_aside(recording, opened, error, seconds, is_shared)
    around.tell({"run": order.identity, "tries": tries, "epochs": opened.plan.training.epochs})
    try:
        if not _run_in_turn(opened, recording, _Reporter(order, around), around):
            return Outcome(order.identity, "dropped")
    except MerBenchError as error:
        files = None if is_shared else _files(recording)
        return Outcome(order.identity, "failed", type(error).__name__, str(error), files)
    return Outcome(order.identity, "done", files=None if is_shared else _files(recording))


def _saved(recording: Recording) -> str:
    """What is saved of a run: the same text until it gets on."""
    return " ".join(sorted(file.name for file in recording.unfinished.glob("*.safetensors")))


def _run_in_turn(opened: Opened, recording: Recording, reporter: Listener, around: Surroundings) -> bool:
    """Do the run, or wait for another process that is at it, who may be a worker that was taken for lost.

    Returns:
        False if nobody wants it any more.

    Raises:
        MerBenchError: If the run failed.
    """
    while True:
        try:
            run_opened(opened, reporter)
        except AlreadyRunningError:
            if around.is_unwanted():
                return False
            time.sleep(WAIT_SECONDS)
            with suppress(RecordError):
                if recording.found() is not None:
                    return True
        except StoppedError:
            return False
        else:
            return True


def _set_aside(recording: Recording, opened: Opened, error: MerBenchError, seconds: float, is_shared: bool) -> Outcome:
    recording.prepare()
    record_lost(recording, opened, error, seconds)
    files = None if is_shared else _files(recording)
    return Outcome(recording.identity, "failed", type(error).__name__, str(error), files)


def record_lost(recording: Recording, opened: Opened, error: MerBenchError, seconds: float) -> None:
    """Write the record of a run whose workers were lost; of its cost no more is known than the time it took.

    Raises:
        StorageError: If it cannot be written.
    """
    from datetime import UTC, datetime, timedelta

    started = datetime.now(UTC) - timedelta(seconds=seconds)
    recording.write_failure(
        recording.record(
            opened.device,
            started=started.isoformat(timespec="seconds"),
            status="failed",
            curve=[],
            selection=None,
            dev=None,
            test=None,
            predictions=None,
            cost=Cost(wall_seconds=round(seconds, 3), epochs_per_second=0.0, memory_bytes=0, parameters=0),
            failure=Failure(kind=type(error).__name__, reason=str(error)),
        )
    )


def _files(recording: Recording) -> dict[str, bytes]:
    """The files of a run, as far as there are any."""
    folder, name = recording.folder, recording.name
    places = (private_file(folder, name), predictions_file(folder, name), recording.weights, recording.file)
    return {place.name: place.read_bytes() for place in places if place.is_file()}


def _opened(order: Order, request: RunRequest) -> Opened:
    """The run with its stores open, from the data folder of the one that gave the order, or from this machine's own.

    Raises:
        MissingDataError: If neither has the data. DataError: If these are other data.
    """
    given, own = data_root(request.data_root), data_root()
    faults: list[MerBenchError] = []
    for root in dict.fromkeys((given, own)):
        try:
            planned = plan(replace(request, data_root=root))
            if root == given and not all(store_folder(root, key).is_dir() for key in planned.stores):
                continue  # they were prepared there, so that this is another machine's folder
            opened = _open_once(planned, root)
        except RequestError as error:
            faults.append(error)
            continue
        if Recording(opened.plan, opened.stores).identity == order.identity:
            return opened
        faults.append(
            DataError(
                f"{planned.features} in {root}, or the code of {planned.model}, is not what the run was ordered with; "
                "bring the same files to the worker, or share the data folder with it."
            )
        )
    if faults:
        raise faults[0]
    raise MissingDataError(f"the worker has no prepared data in {given}, nor in its own data folder {own}.")


def _open_once(planned: Plan, root: Path) -> Opened:
    device = open_device(planned.request)
    if all(open_prepared(key, root) is not None for key in planned.stores):
        return open_run(planned, device, Listener())
    root.mkdir(parents=True, exist_ok=True)
    # Several workers on one machine: the first prepares, the others wait. A lock that does not hold (on some network
    # file systems) costs time only: a store takes its name as a whole.
    with FileLock(root / ".preparing.lock"):
        return open_run(planned, device, Listener())


class _Reporter(Listener):
    """Tells of a run's epochs, about once a second; when nobody wants it any more, it is saved and ends."""

    def __init__(self, order: Order, around: Surroundings) -> None:
        self._order = order
        self._around = around
        self._told = 0.0

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        now = time.monotonic()
        if now - self._told >= 1:
            self._told = now
            news = {"run": self._order.identity, "epoch": epoch.epoch, "epochs": epochs, "best": best_score}
            self._around.tell(news)

    def stop_wanted(self) -> str:
        return "the end of the sweep" if self._around.is_unwanted() else ""
