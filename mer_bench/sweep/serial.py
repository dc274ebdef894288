"""A sweep in this process, run after run: needs nothing but mer-bench, and is what every other way must agree with."""

from __future__ import annotations

from mer_bench.errors import MerBenchError, StoppedError, StorageError
from mer_bench.records import Epoch, Record
from mer_bench.runner import Listener, Opened, open_device, run_opened
from mer_bench.sweep.collecting import Collected
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.runs import Sweep, SweepRun


def work_here(sweep: Sweep, listener: SweepListener) -> Collected:
    """Do what is left of a sweep.

    Raises:
        StorageError: If results could not be written: the next run's could not either.
        StoppedError: If the listener wanted it stopped; the run that went on is saved.
    """
    collected = Collected(sweep, listener)
    listener.sweep_started(sweep, 1)
    for run in sweep.left:
        listener.run_begun(run, 1)
        try:
            device = open_device(run.plan.request)
            record = run_opened(Opened(run.plan, tuple(run.recording.stores), device), _Reporter(run, listener))
        except (StorageError, StoppedError):
            raise
        except MerBenchError as error:
            collected.fail(run, str(error))
        else:
            collected.done[run.identity] = record
            listener.run_done(run, record)
        listener.waited()
    return collected


class _Reporter(Listener):
    def __init__(self, run: SweepRun, listener: SweepListener) -> None:
        self._run = run
        self._listener = listener

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        self._listener.run_went_on(self._run, epoch.epoch, epochs, best_score)
        self._listener.waited()

    def training_started(self, can_be_saved: bool) -> None:
        self._listener.training_here(can_be_saved)

    def noticed(self, text: str) -> None:
        self._listener.noticed(self._run, text)

    def run_ended(self, record: Record) -> None:
        self._listener.training_here(False)

    def stop_wanted(self) -> str:
        return self._listener.stop_wanted()
