"""Runs in processes of their own that may be killed, and what they left compared with an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mer_bench import runner, unfinished
from mer_bench.metrics import rescore
from mer_bench.predictions import read_predictions
from mer_bench.records import Record, predictions_file, read_record, weights_file
from mer_bench.runner import Listener, RunRequest

SETTINGS = {"epochs": 4, "batch_size": 4, "average_decay": 0.9, "patience": 4}
PRELOADED = ["tests.faults.workshop", "mer_bench.trainer", "sklearn.metrics", "torch._dynamo", "torch.onnx"]
"""What a run imports and takes long to."""


@dataclass
class Counts:
    """What came of the faults; the three last must stay 0."""

    faults: int = 0
    noticed: int = 0
    harmless: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    why: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.lost + self.doubled + self.changed

    def __str__(self) -> str:
        told = f"{self.faults} faults"
        if self.noticed or self.harmless:
            told += f" ({self.noticed} noticed, {self.harmless} harmless)"
        told += f": {self.lost} runs lost, {self.doubled} doubled, {self.changed} changed"
        return "\n".join([told, *self.why])


class Ears(Listener):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def noticed(self, text: str) -> None:
        self.told.append(text)


def request_of(data: Path, out: Path, number: int) -> RunRequest:
    """The `number`-th run: another seed, every third one under a protocol with folds."""
    protocol = "halves" if number % 3 == 2 else "official"
    return RunRequest(
        "swinger", "trios", protocol=protocol, seed=number, settings=SETTINGS, data_root=data, out=out, threads=1
    )


@contextmanager
def saving_every_epoch() -> Iterator[None]:
    """What costs too much in earnest: the epochs here are quicker than their saving."""
    before = unfinished.FIRST_AFTER_SECONDS, unfinished.SHARE
    unfinished.FIRST_AFTER_SECONDS, unfinished.SHARE = 0.0, 1e9
    try:
        yield
    finally:
        unfinished.FIRST_AFTER_SECONDS, unfinished.SHARE = before


def run_child(request: RunRequest, kill_at: int, answer: Any) -> None:
    """A run in a process of its own.

    Args:
        kill_at: Number of the call of the file system before which the process kills itself; 0: it does not.
        answer: A connection that hears the number of such calls at the end.
    """
    calls = 0

    def counted(function: Any) -> Any:
        def count(*given: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **options)

        return count

    for name in ("replace", "fsync", "link", "unlink", "rename", "rmdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("replace", "unlink", "rename"):
        setattr(Path, name, counted(getattr(Path, name)))
    with saving_every_epoch():
        runner.run(request)
    answer.send(calls)


class Workshop:
    """Starts runs in processes that are forked off one in which everything is imported, which takes no time."""

    def __init__(self) -> None:
        self.context: ForkServerContext = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def start(self, request: RunRequest, kill_at: int = 0) -> tuple[BaseProcess, Any]:
        ours, theirs = self.context.Pipe(duplex=False)
        child = self.context.Process(target=run_child, args=(request, kill_at, theirs), daemon=True)
        child.start()
        theirs.close()
        return child, ours

    def finish(self, request: RunRequest) -> int:
        """Run to the end; the number of calls of the file system."""
        child, answer = self.start(request)
        child.join()
        if child.exitcode != 0:
            raise RuntimeError(f"an undisturbed run ended with {child.exitcode}")
        calls: int = answer.recv()
        return calls


def record_of(out: Path, counts: Counts, what: str) -> Record | None:
    """The one record in a folder; more of them, fewer, or anything else that was left behind is counted."""
    found = list(out.rglob("*.json"))
    if len(found) != 1:
        counts.lost += not found
        counts.doubled += len(found) > 1
        counts.why.append(f"{what}: {len(found)} records")
        return None
    record = read_record(found[0])
    if rescore(found[0]) != record.test:
        counts.changed += 1
        counts.why.append(f"{what}: the scores are not those of the predictions")
    extra = [f.name for f in found[0].parent.iterdir() if f.name.startswith(".")]
    if extra:
        counts.doubled += 1
        counts.why.append(f"{what}: {extra} were left behind")
    return record


def differences(left: Record, left_out: Path, right: Record, right_out: Path) -> list[str]:
    """What of two runs is not the same to the last bit, times apart."""
    found = [
        name
        for name in ("run", "identity", "status", "test", "dev", "selection", "curve", "settings", "training", "seed")
        if getattr(left, name) != getattr(right, name)
    ]
    found += [] if [_of_fold(f) for f in left.folds] == [_of_fold(f) for f in right.folds] else ["folds"]
    folders = [out / record.dataset / record.model for out, record in ((left_out, left), (right_out, right))]
    for file in (predictions_file, weights_file):
        contents = [file(folder, left.run) for folder in folders]
        if not all(each.is_file() for each in contents) or contents[0].read_bytes() != contents[1].read_bytes():
            found.append(contents[0].name)
    return found


def _of_fold(fold: Any) -> Any:
    return fold.model_dump()


def here(request: RunRequest) -> tuple[Record, list[str]]:
    """A run in this process, and what it noticed."""
    ears = Ears()
    return runner.run(request, ears), ears.told


__all__ = ["Counts", "Workshop", "differences", "here", "read_predictions", "record_of", "replace", "request_of"]
