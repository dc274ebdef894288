"""The listener that hands a run's progress to trackers, each in a process of its own.

Nothing here waits while a run goes on: calls are put in a queue, a thread writes them to the tracker's process, and
only `close` waits, up to a limit. A tracker that failed is told of in one line and dropped. Neither the random
numbers nor the threads nor the memory of the run are shared with a tracker, so that a record is the same with and
without one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mer_bench.metrics import METRICS
from mer_bench.records import Epoch, Record, Selection, record_file, record_folder
from mer_bench.request import Plan
from mer_bench.runner import Listener
from mer_bench.trackers.catalogue import TRACKERS, check_trackers
from mer_bench.trackers.tracker import Value

CLOSE_SECONDS = 60.0
"""How long the end of the work waits for a tracker to write what it has."""
_MOST_WAITING = 10_000
"""Calls that may wait for a tracker that hangs; beyond, it is dropped."""


class Several(Listener):
    """Hands everything on to several listeners, in order; any method of theirs can be called.

    Where one is asked something, as by `stop_wanted`, the first that says yes has the word.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattribute__(name)
        methods = [getattr(each, name) for each in self._listeners if hasattr(each, name)]

        def call_each(*values: Any, **named: Any) -> Any:
            answers = [method(*values, **named) for method in methods]
            return next((answer for answer in answers if answer), answers[0] if answers else None)

        return call_each


class Following(Listener):
    """Follows runs in one or more trackers; used as a context manager, so that they are always closed.

    Args:
        names: In `TRACKERS`.
        folder: Where trackers write, each in a folder of its own name.
        told: Called with one line for a tracker that was dropped.
        seconds: How long `close` waits at most.

    Raises:
        UnknownNameError, RequestError: If there is no such tracker or it is not installed; nothing was started then.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        told: Callable[[str], None] = lambda line: None,
        seconds: float = CLOSE_SECONDS,
    ) -> None:
        check_trackers(names)
        self._told = told
        self._seconds = seconds
        self._followers = [_Follower(name, folder.absolute() / name) for name in names]
        self._plan: Plan | None = None
        self._fold = ""
        self._steps = 0

    def __enter__(self) -> Self:
        for each in self._followers:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_unfinished(f"{kind.__name__}: {error}" if kind else "it failed")
        self.close()

    @property
    def places(self) -> dict[str, Path]:
        """Where each tracker that was not dropped writes, by its name."""
        return {each.name: each.folder for each in self._followers}

    def run_started(self, plan: Plan) -> None:
        self._end_unfinished("it failed")
        self._plan, self._fold, self._steps = plan, "", 0
        name = f"{plan.dataset}/{plan.model}.{plan.key.features}.seed{plan.request.seed}"
        self._call("begin", name=name, settings=dict(settings_of(plan)))

    def fold_started(self, fold: int, folds: int) -> None:
        self._fold = f"fold{fold}/"

    def fold_ended(self, fold: int, folds: int, selection: Selection) -> None:
        self._call("epoch", step=max(self._steps, 1), values={f"fold{fold}/chosen_epoch": float(selection.epoch)})

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        self._steps = self._steps + 1 if self._fold else epoch.epoch
        values = {f"{self._fold}{name}": value for name, value in values_of(epoch).items()}
        self._call("epoch", step=self._steps, values=values)

    def run_ended(self, record: Record) -> None:
        if self._plan is None:
            return
        file = record_file(record_folder(self._plan.request.out, record), record.run)
        self._plan = None
        self._call("end", scores=scores_of(record), record=str(file.absolute()))

    def close(self) -> None:
        """Let each tracker write what it has; one that takes longer than the limit is dropped."""
        deadline = time.monotonic() + self._seconds
        for each in self._followers:
            each.finish()
        for each in self._followers:
            each.wait(max(0.0, deadline - time.monotonic()), self._seconds)
        self._tell_of_dropped()

    def _end_unfinished(self, reason: str) -> None:
        """A listener is not told of a run that failed: it hears of the next one, or of the end."""
        if self._plan is not None:
            self._plan = None
            self._call("fail", reason=reason)

    def _call(self, what: str, **values: Any) -> None:
        line = json.dumps({"call": what, **values})
        for each in self._followers:
            each.send(line)
        self._tell_of_dropped()

    def _tell_of_dropped(self) -> None:
        for each in [follower for follower in self._followers if follower.fault]:
            self._followers.remove(each)
            self._told(
                f"{TRACKERS[each.name].title} was dropped: {each.fault.rstrip('.')}. The run itself is not affected."
            )


class _Follower:
    """One tracker's process, the thread that writes to it and the thread that hears of its faults."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.fault = ""
        self._closed = False
        self._calls: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._process: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", "mer_bench.trackers.child", TRACKERS[self.name].entry, str(self.folder)]
        try:
            # A session of its own: Ctrl-C reaches the run alone, and what a tracker started can be ended with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            self.fault = f"its process could not be started ({error.strerror or error})"
            return
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    def send(self, line: str | None) -> None:
        try:
            self._calls.put_nowait(line)
        except queue.Full:
            self._drop("it takes no more; it seems to hang")

    def finish(self) -> None:
        """No further call comes."""
        self.send(None)

    def wait(self, seconds: float, limit: float) -> None:
        """Wait for the process to have written everything; end it where it takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._drop(f"it did not close within {limit:g} seconds")
        for thread in self._threads:
            thread.join(1.0)
        if not self.fault and not self._closed:
            self.fault = f"its process ended with code {self._process.returncode}"
        self._end_process()

    def _write(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            while (line := self._calls.get()) is not None:
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()
            self._process.stdin.close()
        except (OSError, ValueError):  # it is gone; what it said before that, or its code, says why
            pass

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:  # a process that was killed in the middle of a line
                continue
            self._closed = self._closed or bool(answer.get("closed"))
            self.fault = self.fault or str(answer.get("fault", ""))
        if not self._closed and not self.fault:
            self.fault = f"its process ended with code {self._process.wait()}"

    def _drop(self, reason: str) -> None:
        self.fault = self.fault or reason
        self._end_process()

    def _end_process(self) -> None:
        """End the process with all that it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone already
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _environment() -> dict[str, str]:
    """Nothing is sent to anybody unless the user asked for it by the tracker's own variables."""
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return {**quiet, **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}}


def settings_of(plan: Plan) -> Iterator[tuple[str, Value]]:
    """Everything that decides a run's result, by dotted name."""
    for name in ("dataset", "labels", "features", "protocol", "model", "synthetic"):
        yield name, getattr(plan, name)
    yield "modalities", "+".join(plan.modalities)
    yield "seed", plan.request.seed
    for part in ("settings", "training"):
        yield from _flat(part, getattr(plan, part).model_dump(mode="json"))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Value]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}.{key}", each)
    elif isinstance(value, list):
        yield name, json.dumps(value)
    else:
        yield name, value


def values_of(epoch: Epoch) -> dict[str, float]:
    """Loss terms, dev metrics and diagnostics of an epoch by name."""
    parts = {"train": epoch.train, "dev": epoch.dev, "diagnostics": epoch.diagnostics}
    values = {f"{part}/{name}": value for part, of in parts.items() for name, value in of.items()}
    return {name: value for name, value in {**values, "learning_rate": epoch.learning_rate}.items() if _finite(value)}


def scores_of(record: Record) -> dict[str, float]:
    """The test scores of a run, and the epoch that was chosen, by name."""
    scores = {f"test/{name}": getattr(record.test, name, None) for name in METRICS}
    found = {name: float(value) for name, value in scores.items() if value is not None}
    if record.selection is not None:
        found["chosen_epoch"] = float(record.selection.epoch)
    return {**found, "wall_seconds": record.cost.wall_seconds} if record.cost else found


def _finite(value: float) -> bool:
    return math.isfinite(value)
