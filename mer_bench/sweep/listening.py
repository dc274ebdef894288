"""What a sweep tells of itself while it goes on."""

from __future__ import annotations

from mer_bench.records import Record
from mer_bench.sweep.runs import Sweep, SweepRun


class SweepListener:
    """Hears of a sweep's progress; every method does nothing until a child says otherwise."""

    def preparing(self, text: str) -> None:
        """Data are being prepared; `text` says which."""

    def sweep_started(self, sweep: Sweep, workers: int) -> None:
        """What is to be run is known; `workers` do it, 0 where it is not known how many."""

    def workers_changed(self, count: int) -> None:
        """So many workers are there now."""

    def run_begun(self, run: SweepRun, tries: int) -> None:
        """A worker begins a run, for the first time or, since the last one was lost, again."""

    def run_went_on(self, run: SweepRun, epoch: int, epochs: int, best: float) -> None:
        """An epoch of a run is over; not every one is told of."""

    def run_done(self, run: SweepRun, record: Record) -> None:
        """Its record is there, and its predictions give its scores."""

    def run_failed(self, run: SweepRun, reason: str) -> None:
        """It has no result; the others go on."""

    def training_here(self, can_be_saved: bool) -> None:
        """In this process training begins, which can be saved after each epoch, or is over."""

    def noticed(self, run: SweepRun, text: str) -> None:
        """Something that the user should know of a run in this process."""

    def stop_wanted(self) -> str:
        """Asked after each epoch in this process: what wants the run to be saved and the sweep to stop, or ""."""
        return ""

    def connection_lost(self, reason: str) -> None:
        """The scheduler is gone, or the way to it; it is waited for."""

    def connection_back(self) -> None:
        """The scheduler is there again, and has been given what is left."""

    def waited(self) -> None:
        """Half a second has passed, or something has happened: what is shown may be drawn again."""
