"""Several workers on one machine: processes that share a study, and the one process that looks after them.

Each loads the data once and has its share of the threads. One that dies is named, its trial goes back into the
queue, and the others go on. Ctrl-C, a terminated or a killed parent end them all, and the study is whole.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from mer_bench import registry
from mer_bench.errors import MerBenchError, RequestError, RunError
from mer_bench.runner import open_device, open_run
from mer_bench.tuning.storages import release, storage_faults, turn
from mer_bench.tuning.study import StudyPlan, TuneRequest, plan_study
from mer_bench.tuning.workers import TuneListener, is_over, join, where_of, work

STOP_SECONDS = 30.0
"""How long a worker may take to end after it was told to."""


@dataclass
class _Member:
    """A worker, as the one that looks after it sees it.

    Attributes:
        trial: Id of the trial that it runs.
        fault: Why it ended, in its own words, with the exit code; None if it said nothing.
    """

    name: str
    process: SpawnProcess
    messages: Connection
    trial: int | None = None
    fault: tuple[int, str] | None = None
    done: bool = False

    @property
    def reason(self) -> str:
        """Why it is gone."""
        if self.fault is not None:
            return self.fault[1]
        code = self.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with exit code {code}"


def work_together(study: optuna.Study, storage: BaseStorage, planned: StudyPlan, listener: TuneListener) -> None:
    """Start the workers of a request and look after them until all have ended.

    Raises:
        RunError, RequestError: If the study is not over and no worker is left.
    """
    if is_over(study, planned):
        return
    members: list[_Member] = []
    try:
        with _deaf_to_interrupts():  # what a worker inherits; it ends when it is told to
            members += (_start(number, planned) for number in range(1, planned.request.workers + 1))
        dead = _look_after(members, study, storage, listener)
    finally:
        _end(members, study, storage)
    if dead and not is_over(study, planned):
        faults = [member.fault for member in dead if member.fault]
        kind = RequestError if len(faults) == len(dead) and all(code == 2 for code, _ in faults) else RunError
        reasons = " ".join(dict.fromkeys(f"{member.name}: {member.reason.rstrip('.')}." for member in dead))
        raise kind(f"the study '{study.study_name}' is saved but not over, and no worker is left. {reasons}")


def share(threads: int | None, workers: int) -> int:
    """Threads of one of several workers, of those that were given or that PyTorch would take."""
    import torch

    return max(1, (threads or torch.get_num_threads()) // workers)


def _start(number: int, planned: StudyPlan) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    request = planned.request
    run = replace(request.run, threads=share(request.run.threads, request.workers))
    order = (theirs, replace(request, run=run, workers=1), registry.added_places())
    process = context.Process(target=_be_member, args=order, name=f"worker {number}", daemon=True)
    process.start()
    theirs.close()
    return _Member(process.name, process, ours)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _look_after(
    members: Sequence[_Member], study: optuna.Study, storage: BaseStorage, listener: TuneListener
) -> list[_Member]:
    """Hear what workers say until all have ended; those that died."""
    alive, dead = list(members), []
    while alive:
        wait([each for member in alive for each in (member.messages, member.process.sentinel)])
        for member in tuple(alive):
            gone = not member.process.is_alive()  # asked first: what it said before is then there to be read
            _hear(member, study, listener)
            if gone:
                member.process.join()
                alive.remove(member)
                if not member.done:
                    dead.append(member)
                    listener.worker_died(member.name, member.reason)
                    _release(member, study, storage)
    return sorted(dead, key=lambda member: member.name)


def _hear(member: _Member, study: optuna.Study, listener: TuneListener) -> None:
    with suppress(EOFError, OSError):
        while member.messages.poll():
            match member.messages.recv():
                case ("begun", int() as trial):
                    member.trial = trial
                case ("ended", FrozenTrial() as told):
                    member.trial = None
                    listener.trial_ended(study, told)
                case ("lost", FrozenTrial() as told):
                    member.trial = None
                    listener.trial_lost(study, told)
                case ("done",):
                    member.done = True
                case ("fault", int() as code, str() as sentence):
                    member.fault = (code, sentence)


def _release(member: _Member, study: optuna.Study, storage: BaseStorage) -> None:
    if member.trial is not None:
        with turn(storage, study.study_name):
            release(study, storage, member.trial)
        member.trial = None


def _end(members: Sequence[_Member], study: optuna.Study, storage: BaseStorage) -> None:
    """End every worker that is still there; their trials go back into the queue."""
    with _deaf_to_interrupts():
        for member in members:
            if member.process.is_alive():
                member.process.terminate()
        for member in members:
            member.process.join(STOP_SECONDS)
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            _hear(member, study, TuneListener())
            with suppress(Exception):  # a storage that cannot be reached finds out by itself
                _release(member, study, storage)
            member.messages.close()


class _Teller(TuneListener):
    """Tells the one that looks after the workers what happens in one of them."""

    def __init__(self, messages: Connection) -> None:
        self._messages = messages

    def tell(self, *message: Any) -> None:
        with suppress(OSError):  # nobody is left to hear it, and this worker will be ended at once
            self._messages.send(message)

    def trial_begun(self, study: optuna.Study, trial: optuna.Trial) -> None:
        self.tell("begun", trial._trial_id)

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.tell("ended", trial)

    def trial_lost(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.tell("lost", trial)


def _be_member(messages: Connection, request: TuneRequest, plugins: Sequence[Path]) -> None:
    """What a worker process does."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    teller = _Teller(messages)
    try:
        for place in plugins:
            registry.add_plugin(place)
        planned = plan_study(request)
        opened = open_run(planned.plan, open_device(planned.plan.request), teller)
        with storage_faults(where_of(planned), request.storage):
            study, storage = join(planned, opened)
            work(study, storage, planned, opened, teller)
        teller.tell("done")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except MerBenchError as error:
        teller.tell("fault", error.exit_code, str(error))
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        traceback.print_exc()
        teller.tell("fault", 1, f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
